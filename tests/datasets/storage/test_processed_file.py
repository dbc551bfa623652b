"""Processed files come back to the bit, are whole or not there, and lie to nobody."""

import json
import multiprocessing
import os
import pickle
import random
import re
import signal
import threading
import weakref
from contextlib import suppress

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pyg_schnet import Potential, SchNet
from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.storage import checksums
from pyg_schnet.datasets.storage import processed_file as storage
from pyg_schnet.datasets.storage import writer as storage_writer
from pyg_schnet.datasets.storage.chunks import Chunk, join
from pyg_schnet.potentials import checkpoint

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip
NAMES = ["Wasser, H₂O", "a\nb\r\n", "", 'F/C=C\\F "trans"', "\u2028\x00\x85", "🧪", "\ud800", "null"]


def chunk(sizes, seed=0):
    """Molecules with a field an atom, edges, vectors a molecule and names."""
    rng, atoms, n = torch.Generator().manual_seed(seed), sum(sizes), len(sizes)
    edges = torch.tensor([2 * (size - 1) for size in sizes])
    counts = torch.tensor(sizes)
    fields = {
        "z": torch.randint(1, 10, (atoms,), generator=rng, dtype=torch.uint8),
        "pos": torch.randn(atoms, 3, generator=rng, dtype=torch.float64),
        "energy": torch.randn(n, generator=rng, dtype=torch.float64),
        "dipole": torch.randn(n, 3, generator=rng),
        "edge_index": torch.randint(0, 9, (2, int(edges.sum())), generator=rng),
        "name": [NAMES[i % len(NAMES)] for i in range(n)],
    }
    return Chunk(fields, {"z": counts, "pos": counts, "edge_index": edges})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.safetensors"


@pytest.fixture
def written(path):
    split = Split(torch.tensor([4, 0]), torch.tensor([], dtype=torch.long), torch.tensor([1, 2]))
    storage.write(path, [chunk([3, 1, 2]), chunk([5, 2], 1)], splits=lambda: {"official": split})
    return path


def assert_same(fields, slices, expected, expected_slices):
    assert list(fields) == list(expected)
    assert set(slices) == set(expected_slices)
    for name, value in expected.items():
        assert torch.equal(slices[name], expected_slices[name]), name
        if isinstance(value, list):
            assert fields[name] == value
            continue
        assert fields[name].dtype == value.dtype
        assert fields[name].shape == value.shape
        assert bits(fields[name]) == bits(value), name


def bits(value):
    return value.flatten().clone().view(torch.uint8).tolist()


def edited(path, change):
    """Write a file again with other tensors, or with another header of ours."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["pyg_schnet"])
    tensors.pop("crc32:blocks", None)  # which would tell
    change(header, tensors)
    save_file(tensors, path, {"pyg_schnet": json.dumps(header)})


def refused(path, **options):
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")) as caught:
        storage.read(path, **options)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("block", [2**16, 64])
@pytest.mark.parametrize("memory_map", [False, True])
def test_a_damaged_bit_is_found_wherever_it_is(written, flip, monkeypatch, block, memory_map):
    monkeypatch.setattr(checksums, "BLOCK", block)
    split = Split(torch.tensor([4]), torch.tensor([0]), torch.tensor([1, 2]))
    storage.write(written, [chunk([3, 1, 2]), chunk([5, 2], 1)], splits=lambda: {"official": split})

    def read_all():
        found = storage.read(written, memory_map)
        if found.mapped is not None:
            found.mapped.check_molecules(found.slices, torch.arange(5))

    content, accepted = written.read_bytes(), []
    for place in random.Random(0).sample(range(8 * len(content)), 300):
        flip(written, place)
        with suppress(ValueError):
            read_all()
            accepted.append(place // 8)
        written.write_bytes(content)
    # Without its name, the list of checksums is not known: the file is one of an earlier version, and right.
    name = content.index(b"crc32:blocks")
    assert set(accepted) <= set(range(name, name + len("crc32:blocks")))
    read_all()


def test_only_the_molecules_of_a_damaged_block_are_refused(path, flip, monkeypatch):
    monkeypatch.setattr(checksums, "BLOCK", 64)
    storage.write(path, [chunk([3, 1, 2, 40, 2])])
    content, end = path.read_bytes(), storage.read(path).fields["pos"][-1].numpy().tobytes()
    flip(path, 8 * content.index(end) + 3)
    stored = storage.read(path, memory_map=True)
    stored.mapped.check_molecules(stored.slices, torch.arange(3))
    with pytest.raises(ValueError, match=r"set.safetensors.*damaged.*\(bytes"):
        stored.mapped.check_molecules(stored.slices, torch.tensor([1, 4]))
    with pytest.raises(ValueError, match="is damaged"):
        storage.read(path)


@pytest.mark.parametrize("memory_map", [False, True])
def test_a_file_of_an_earlier_version_has_no_checksums_and_is_read(written, memory_map):
    expected = storage.read(written)
    edited(written, lambda header, tensors: None)
    assert b"crc32:blocks" not in written.read_bytes()
    stored = storage.read(written, memory_map)
    assert_same(stored.fields, stored.slices, expected.fields, expected.slices)


def test_a_set_that_is_written_to_is_verified_by_the_file(written):
    stored = storage.read(written, memory_map=True)
    stored.fields["pos"].zero_()
    stored.mapped.check_molecules(stored.slices, torch.arange(5))


@pytest.mark.parametrize("memory_map", [False, True])
@pytest.mark.parametrize("chunks", [
    [chunk([3, 1, 2])],
    [chunk([3, 1, 2]), chunk([5, 2], 1), chunk([1], 2)],
    [chunk([1])],
    [chunk([1, 1])],
    [chunk([4, 4, 4])],
    [chunk([]), chunk([2, 1] * 8), chunk([])],
], ids=["one", "several", "one atom", "two atoms", "constant", "empty"])  # fmt: skip
def test_what_was_written_is_read_to_the_bit(path, chunks, memory_map):
    storage.write(path, chunks)
    stored = storage.read(path, memory_map)
    assert_same(stored.fields, stored.slices, *join(chunks))


@pytest.mark.parametrize("memory_map", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_type_keeps_its_bits(path, dtype, memory_map):
    content = torch.arange(12 * dtype.itemsize, dtype=torch.uint8) * 37 + 3
    value = (content % 2 if dtype == torch.bool else content).view(dtype).view(4, 3)
    chunks = [Chunk({"odd": torch.ones(4, dtype=torch.uint8), "x": value})]
    storage.write(path, chunks)
    stored = storage.read(path, memory_map)
    assert_same(stored.fields, stored.slices, *join(chunks))


def test_numbers_that_are_no_numbers_keep_their_bits(path):
    value = torch.tensor([float("nan"), -0.0, float("inf"), 5e-324], dtype=torch.float64)
    storage.write(path, [Chunk({"x": value})])
    assert storage.read(path).fields["x"].view(torch.int64).equal(value.view(torch.int64))


def test_tensors_that_are_not_contiguous_are_written_as_they_look(path):
    value = torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1)[::2].requires_grad_()
    storage.write(path, [Chunk({"x": value})])
    assert storage.read(path).fields["x"].equal(value)


def test_index_fields_of_any_dimension_come_back(path):
    fields = {
        "index": torch.tensor([3, 1]),
        "edge_index": torch.tensor([[3, 1], [2, 4]]),
        "pair_index": torch.arange(12).view(2, 3, 2),
    }
    storage.write(path, [Chunk(fields), Chunk({name: value + 5 for name, value in fields.items()})])
    stored = storage.read(path)
    for name, value in fields.items():
        assert stored.fields[name].equal(torch.cat([value, value + 5], -1)), name


def test_chunks_written_one_by_one_give_the_file_of_one_chunk(tmp_path):
    parts = [chunk([3, 1, 2]), chunk([5, 2], 1), chunk([1], 2)]
    fields, slices = join(parts)
    whole = Chunk(fields, {name: slices[name].diff() for name in parts[0].counts})
    storage.write(tmp_path / "a", parts)
    storage.write(tmp_path / "b", [whole])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("held", [0, 100, 500])
def test_the_memory_for_what_waits_makes_no_difference(tmp_path, monkeypatch, held):
    parts = [chunk([3, 1, 2]), chunk([5, 2], 1), chunk([1], 2)]
    storage.write(tmp_path / "a", parts)
    monkeypatch.setattr(storage_writer, "_BUFFERED", held)
    storage.write(tmp_path / "b", parts)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_chunks_are_asked_for_one_at_a_time_and_do_not_wait_in_memory(path, monkeypatch):
    monkeypatch.setattr(storage_writer, "_BUFFERED", 1_000_000)
    values, on_disk = [], []

    def chunks():
        for number in range(20):
            value = torch.full((25_000,), number)  # 200 kB
            values.append(weakref.ref(value))
            on_disk.append(sum(file.stat().st_size for file in path.parent.rglob("*.part")))
            assert sum(value() is not None for value in values) <= 6
            yield Chunk({"x": value})

    storage.write(path, chunks())
    assert on_disk[-1] >= 14 * 200_000
    assert storage.read(path).fields["x"].equal(torch.arange(20).repeat_interleave(25_000))


def test_offsets_are_stored_once_and_only_where_they_say_something(written):
    names = {name for name in load_file(written) if name.startswith("ptr:")}
    assert names == {"ptr:z", "ptr:edge_index"}


def test_the_file_is_a_plain_safetensors_file(written):
    tensors = load_file(written)
    first, second = chunk([3, 1, 2]), chunk([5, 2], 1)
    assert tensors["pos"].equal(torch.cat([first.fields["pos"], second.fields["pos"]]))
    assert tensors["ptr:z"].tolist() == [0, 3, 4, 6, 11, 13]
    assert tensors["edge_index"].shape == (4 + 0 + 2 + 8 + 2, 2)
    assert bytes(tensors["name"].numpy()).startswith(b'"Wasser, H\\u2082O"\n')
    assert int.from_bytes(written.read_bytes()[:8], "little") % 8 == 0  # so that all tensors are aligned


def test_atoms_alone_have_offsets_all_the_same(path):
    """So that a reader in another language finds in every file how many atoms a molecule has."""
    storage.write(path, [chunk([1, 1, 1])])
    assert load_file(path)["ptr:z"].tolist() == [0, 1, 2, 3]


def test_each_tensor_begins_at_a_multiple_of_its_size(path):
    odd = {f"x{i}": torch.zeros(3).to(dtype) for i, dtype in enumerate(reversed(DTYPES))}
    storage.write(path, [Chunk({"name": ["a", "bcd", "e"], **odd})])
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    table = json.loads(content[8 : 8 + length])
    sizes = {
        "F64": 8,
        "I64": 8,
        "F32": 4,
        "I32": 4,
        "F16": 2,
        "BF16": 2,
        "I16": 2,
        "I8": 1,
        "U8": 1,
        "BOOL": 1,
    }
    del table["__metadata__"]
    assert len(table) == 12  # with the checksums
    for entry in table.values():
        assert (8 + length + entry["data_offsets"][0]) % sizes[entry["dtype"]] == 0


def test_the_header_and_the_splits_come_back(path):
    splits = {
        "a:b": Split(torch.tensor([2, 0]), torch.tensor([1]), torch.tensor([], dtype=torch.long)),
        "1": Split(
            torch.tensor([0], dtype=torch.int32), torch.tensor([], dtype=torch.long), torch.tensor([2])
        ),
    }
    storage.write(path, [chunk([1, 2, 3])], lambda: {"notes": {"Å": [1, None, "ü"]}}, lambda: splits)
    stored = storage.read(path)
    assert stored.header["notes"] == {"Å": [1, None, "ü"]}
    assert (stored.header["format"], stored.header["kind"], stored.header["molecules"]) == (1, "data set", 3)
    assert set(stored.splits) == set(splits)
    for name, split in splits.items():
        assert [part.tolist() for part in stored.splits[name]] == [part.tolist() for part in split]
        assert {part.dtype for part in stored.splits[name]} == {torch.int64}


def test_the_header_and_the_splits_are_asked_for_when_all_chunks_were_read(path):
    order = []

    def chunks():
        yield chunk([1])
        order.append("chunks")

    def asked(name):
        return lambda: order.append(name) or {}

    storage.write(path, chunks(), asked("header"), asked("splits"))
    assert order == ["chunks", "header", "splits"]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"x": torch.zeros(2), "y": torch.zeros(2)}, "the same fields, got `y` in some of them only"),
        ({"y": torch.zeros(2)}, "must have the same fields, got `x` in some of them only"),
        ({"x": torch.zeros(2).double()}, "`x` must be alike in all structures, got torch.float64 rows"),
        ({"x": torch.zeros(2, 3)}, "got torch.float32 rows of shape (3,) after torch.float32 rows"),
        ({"x": ["a", "b"]}, "`x` must be alike in all structures, got texts after torch.float32"),
    ],
)  # fmt: skip
def test_chunks_that_differ_are_refused_and_leave_nothing(path, second, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        storage.write(path, [Chunk({"x": torch.zeros(2)}), Chunk(second)])
    assert os.listdir(path.parent) == []


def test_counts_that_do_not_fit_are_refused_before_there_is_a_file(path):
    with pytest.raises(ValueError, match=r"^`x`.*count.*2.*structures"):
        storage.write(path, [Chunk({"y": torch.zeros(2), "x": torch.zeros(3)}, {"x": torch.tensor([1, 1])})])
    assert os.listdir(path.parent) == []


def test_a_type_that_no_file_holds_is_refused(path):
    with pytest.raises(ValueError, match=r"^`x`.*float64.*bool.*torch\.complex64"):
        storage.write(path, [Chunk({"x": torch.zeros(2, dtype=torch.complex64)})])


@pytest.mark.parametrize("chunks", [[], [chunk([])]])
def test_a_set_of_no_structures_is_refused(path, chunks):
    with pytest.raises(ValueError, match=r"at least.*structure.*none"):
        storage.write(path, chunks)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_exception_between_chunks_leaves_the_folder_as_it_was(path, before, error):
    if before:
        path.write_bytes(b"old")

    def chunks():
        yield chunk([2, 1])
        raise error("the disk is full")

    with pytest.raises(error):
        storage.write(path, chunks())
    assert os.listdir(path.parent) == ["set.safetensors"] * before
    assert not before or path.read_bytes() == b"old"


def test_what_a_killed_process_left_is_removed(tmp_path):
    path = tmp_path / "frames[1].safetensors"  # brackets have a meaning to glob
    left, other = tmp_path / f".{path.name}.abc12345", tmp_path / ".frames1.safetensors.abc12345"
    for folder in (left, other):
        folder.mkdir()
        (folder / f"{path.name}.0.part").write_bytes(b"half a field")
    storage.write(path, [chunk([2])])
    assert set(os.listdir(tmp_path)) == {path.name, other.name}


def test_a_link_that_looks_like_a_leftover_is_not_followed(tmp_path, path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    (tmp_path / f".{path.name}.linklink").symlink_to(precious, target_is_directory=True)
    storage.write(path, [chunk([2])])
    assert (precious / "thesis.tex").read_text() == "years of work"


def write_until_the_end_comes(path, ready):
    def chunks():
        for number in range(100):
            yield Chunk({"x": torch.full((10_000,), number)})
            if number == 2:
                ready.set()
                threading.Event().wait()

    storage.write(path, chunks())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # Python 3.12 fears for threads; the child has one
def test_a_process_that_is_killed_while_writing_leaves_no_file_and_the_next_one_tidies(path, monkeypatch):
    monkeypatch.setattr(storage_writer, "_BUFFERED", 0)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=write_until_the_end_comes, args=(path, ready))
    child.start()
    assert ready.wait(60)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    (left,) = os.listdir(path.parent)
    assert left.startswith(f".{path.name}.")
    assert (
        path.parent / left / f"{path.name}.0.part"
    ).stat().st_size == 2 * 80_000  # the third waits in memory
    storage.write(path, [chunk([2, 1])])
    assert os.listdir(path.parent) == [path.name]
    assert len(storage.read(path).fields["z"]) == 3


def test_a_reader_keeps_its_file_while_another_one_takes_its_place(written):
    stored = storage.read(written, memory_map=True)
    before = stored.fields["pos"].clone()
    storage.write(written, [chunk([2], 5)])
    assert stored.mapped is not None
    stored.mapped.release()
    assert stored.fields["pos"].equal(before)
    assert len(storage.read(written).fields["pos"]) == 2


@pytest.mark.parametrize("memory_map", [False, True])
def test_nothing_is_unpickled(written, monkeypatch, memory_map):
    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, refuse)
    storage.write(written, [chunk([2, 1])])
    assert len(storage.read(written, memory_map).fields["z"]) == 3


def test_a_missing_file_is_told(path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"{path}: no such data set")):
        storage.read(path)


@pytest.mark.parametrize("fraction", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(written, fraction):
    content = written.read_bytes()
    written.write_bytes(content[: int(fraction * len(content))])
    reason = refused(written)
    assert reason.startswith("not a complete safetensors file (")
    assert reason.endswith("); it is truncated or of another kind, make this data set again")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04", b"\xff" * 100, b"\x80\x05."])
def test_a_file_of_another_kind_is_refused(path, content):
    path.write_bytes(content)
    assert refused(path).startswith("not a complete safetensors file (")


OTHER = "must be a data set of pyg_schnet, got another safetensors file; a checkpoint is no data"


@pytest.mark.parametrize("metadata", [
    None,
    {"format": "pt"},
    {"pyg_schnet": ""},
    {"pyg_schnet": "no JSON"},
    {"pyg_schnet": "3"},
    {"pyg_schnet": "[1]"},
    {"pyg_schnet": "null"},
    {"pyg_schnet": "{}"},
    {"pyg_schnet": '{"format": 1}'},
    {"pyg_schnet": '{"format": 1, "kind": "training state"}'},
    {"pyg_schnet": "[" * 100_000},
])  # fmt: skip
def test_another_safetensors_file_is_refused(path, metadata):
    save_file({"z": torch.zeros(3)}, path, metadata)
    assert refused(path) == OTHER


def test_a_checkpoint_is_refused(path):
    checkpoint.save(Potential(SchNet.paper(hidden_channels=2, num_filters=2, num_interactions=1)), path)
    assert refused(path) == OTHER


def test_a_newer_format_is_refused_with_the_way_out(written):
    edited(written, lambda header, _: header.update(format=2, version="9.1", fields=None))
    assert refused(written) == (
        "a data set written by pyg_schnet 9.1 in format 2, this version reads up to 1; upgrade with "
        "pip install -U pyg-schnet"
    )


@pytest.mark.parametrize("form", ["1", None, [1], 1.5])
def test_a_format_that_is_no_number_is_refused(written, form):
    edited(written, lambda header, _: header.update(format=form))
    assert "this version reads up to 1" in refused(written)


LYING_HEADERS = {
    "no fields": lambda header: header.pop("fields"),
    "empty fields": lambda header: header.update(fields={}),
    "a list of fields": lambda header: header.update(fields=["z", "pos"]),
    "a number for fields": lambda header: header.update(fields=7),
    "a layout that is a list": lambda header: header["fields"].update(z=[]),
    "a layout that is nothing": lambda header: header["fields"].update(z=None),
    "a field that is not there": lambda header: header["fields"].update(forces={"kind": "tensor"}),
    "offsets that are not there": lambda header: header["fields"]["z"].update(ptr="ptr:y"),
    "offsets that are positions": lambda header: header["fields"]["z"].update(ptr="pos"),
    "offsets that are a list": lambda header: header["fields"]["z"].update(ptr=[]),
    "no offsets": lambda header: header["fields"]["z"].pop("ptr"),
    "other molecules": lambda header: header.update(molecules=4),
    "no molecules": lambda header: header.pop("molecules"),
    "zero molecules": lambda header: header.update(molecules=0),
    "negative molecules": lambda header: header.update(molecules=-5),
    "more molecules than memory": lambda header: header.update(molecules=10**15),
    "more molecules than numbers": lambda header: header.update(molecules=10**30),
    "molecules in words": lambda header: header.update(molecules="five"),
    "half molecules": lambda header: header.update(molecules=5.5),
    "positions as text": lambda header: header["fields"].update(pos={"kind": "text"}),
}


@pytest.mark.parametrize("memory_map", [False, True])
@pytest.mark.parametrize("lie", LYING_HEADERS.values(), ids=LYING_HEADERS.keys())
def test_a_lying_header_is_refused(written, lie, memory_map):
    edited(written, lambda header, _: lie(header))
    assert re.fullmatch(
        r"is damaged \(.*\); make this data set again", refused(written, memory_map=memory_map), re.S
    )


def offsets(*values, dtype=torch.long):
    return lambda tensors: tensors.update({"ptr:z": torch.tensor(values, dtype=dtype)})


LYING_TENSORS = {
    "not monotonic": offsets(0, 3, 2, 6, 11, 13),
    "beyond the rows": offsets(0, 3, 4, 6, 11, 14),
    "before the rows": offsets(-3, 3, 4, 6, 11, 13),
    "not from the first row": offsets(1, 3, 4, 6, 11, 13),
    "short of the rows": offsets(0, 3, 4, 6, 11, 12),
    "wrapping around": offsets(0, 2**63 - 1, -(2**63), -1, 11, 13),
    "too many": offsets(0, 3, 4, 6, 11, 13, 13),
    "too few": offsets(0, 3, 4, 6, 13),
    "none": offsets(),
    "no integers": offsets(0, 3, 4, 6, 11, 13, dtype=torch.float64),
    "small integers": offsets(0, 3, 4, 6, 11, 13, dtype=torch.uint8),
    "a table": lambda tensors: tensors.update({"ptr:z": tensors["ptr:z"].view(6, 1)}),
    "a number": lambda tensors: tensors.update({"ptr:z": torch.tensor(13)}),
    "other offsets of positions": lambda tensors: tensors.update({"pos": tensors["pos"][:-1]}),
    "other rows of edges": lambda tensors: tensors.update({"edge_index": tensors["edge_index"][1:]}),
    "a molecule without energy": lambda tensors: tensors.update({"energy": tensors["energy"][1:]}),
    "an energy of no molecule": lambda tensors: tensors.update({"energy": torch.tensor(1.0)}),
    "a text less": lambda tensors: tensors.update({"name": text(b'"a"\n"b"\n')}),
    "numbers for texts": lambda tensors: tensors.update({"name": text(b"1\n2\n3\n4\n5\n")}),
    "deep texts": lambda tensors: tensors.update({"name": text(b"[" * 100_000)}),
    "no texts": lambda tensors: tensors.update({"name": text(b"\xff\xfe")}),
    "texts of another type": lambda tensors: tensors.update({"name": torch.zeros(5, dtype=torch.bfloat16)}),
    "a split less a part": lambda tensors: tensors.pop("split:official:val"),
    "a split of others": lambda tensors: tensors.update({"split:official:test": torch.tensor([1, 5])}),
    "a split of negative ones": lambda tensors: tensors.update({"split:official:test": torch.tensor([-1])}),
    "a split of halves": lambda tensors: tensors.update({"split:official:test": torch.tensor([0.5])}),
    "a split in rows": lambda tensors: tensors.update({"split:official:test": torch.tensor([[1]])}),
}  # fmt: skip


def text(content):
    return torch.tensor(list(content), dtype=torch.uint8)


@pytest.mark.parametrize("memory_map", [False, True])
@pytest.mark.parametrize("lie", LYING_TENSORS.values(), ids=LYING_TENSORS.keys())
def test_lying_tensors_are_refused(written, lie, memory_map):
    edited(written, lambda _, tensors: lie(tensors))
    assert re.fullmatch(
        r"is damaged \(.*\); make this data set again", refused(written, memory_map=memory_map), re.S
    )


def test_atoms_whose_fields_belong_to_different_molecules_are_refused(written):
    def change(header, tensors):
        tensors["ptr:pos"] = torch.tensor([0, 2, 4, 6, 11, 13])
        header["fields"]["pos"]["ptr"] = "ptr:pos"

    edited(written, change)
    assert refused(written) == (
        "is damaged (offsets of `pos`, which are not those of `z`); make this data set again"
    )


def test_a_type_that_cannot_be_mapped_is_refused(written):
    edited(written, lambda _, tensors: tensors.update(energy=torch.zeros(5, dtype=torch.float8_e5m2)))
    assert refused(written, memory_map=True).startswith("is damaged (")
