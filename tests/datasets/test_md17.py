"""MD17 and its relatives are what was published, in eV and Å, with their splits, or refused with a reason."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_geometric.datasets

from pyg_schnet import RadiusGraph
from pyg_schnet.datasets import md17
from pyg_schnet.datasets.cards.card import read_card
from pyg_schnet.datasets.md17 import MD17, check_fingerprint
from pyg_schnet.datasets.md22 import MD22
from pyg_schnet.io.remote import download as downloads
from pyg_schnet.io.remote.archive import extract
from pyg_schnet.io.remote.download import DownloadError
from tests.io.remote import http_server

SAMPLE = Path(__file__).parents[2] / "datasets/md17/ethanol_gfn2_xtb.npz"
SHARED = Path(__file__).parents[2] / "../shared/data/rmd17"
ORIGINAL = (
    "aspirin benzene ethanol malonaldehyde naphthalene salicylic_acid toluene uracil azobenzene paracetamol"
)
REVISED = (
    "aspirin azobenzene benzene ethanol malonaldehyde naphthalene paracetamol salicylic_acid toluene uracil"
)
NAMES = (
    *(name.replace("_", " ") for name in ORIGINAL.split()),
    "benzene 2018",
    *(f"revised {name}".replace("_", " ") for name in REVISED.split()),
    *("aspirin CCSD", "benzene CCSD(T)", "ethanol CCSD(T)", "malonaldehyde CCSD(T)", "toluene CCSD(T)"),
)
TAR = "rmd17.tar.bz2"
KCAL = 0.0433641042418009  # eV
# Three frames of OH, in kcal/mol and Å.
Z = np.array([8, 1], dtype=np.uint8)
R = np.array([[[0, 0, 0.5], [0, 0, 1.5]], [[0.1, 0, 0], [0, -0.9, 0]], [[0.2, 0, 0], [0, 1.1, 0]]])
E = np.array([[-100.0], [-99.0], [-97.5]])
F = np.array([[[0, 0, 2.0], [0, 0, -2.0]], [[0.5, 0, 0], [-0.5, 0, 0]], [[0, 1.5, 0], [0, -1.5, 0]]])
REVISED_ARRAYS = {
    "nuclear_charges": Z,
    "coords": R,
    "energies": E.ravel(),
    "forces": F,
    "old_indices": np.array([7, 5, 3]),
    "old_energies": 2 * E.ravel(),
    "old_forces": -F,
}


def fingerprint(z, R, E, F):
    digests = [hashlib.md5(array.tobytes()).digest() for array in (z, R, E, F)]
    return hashlib.md5(b"".join(digests)).hexdigest()


def original(**changes):
    """The arrays of a file of the original, with its fingerprint as bytes."""
    arrays = {"z": Z, "R": R, "E": E, "F": F, "name": "oh", "theory": "DFT", "type": "d", **changes}
    own = fingerprint(*(arrays[key] for key in "zREF"))
    return {"md5": np.array(own.encode()), **arrays}


def npz(arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def tarred(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:bz2") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def revised(changes=None):
    """The archive of the revised set, with two molecules; split n trains on frame n % 3."""
    members = {"rmd17/readme.txt": b"rMD17"}
    for molecule in ("ethanol", "salicylic"):
        members[f"rmd17/npz_data/rmd17_{molecule}.npz"] = npz(REVISED_ARRAYS)
    for n in range(1, 6):
        members[f"rmd17/splits/index_train_0{n}.csv"] = f"{n % 3}\n".encode()
        members[f"rmd17/splits/index_test_0{n}.csv"] = f"{(n + 1) % 3}\n{(n + 2) % 3}\n".encode()
    return tarred({**members, **(changes or {})})


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "PYG_SCHNET_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(downloads, "_BACKOFF", 0.001)


@pytest.fixture
def server(monkeypatch):
    """A server that all addresses of the cards lead to, under the names of the files."""
    with http_server.Server() as server:
        cards = {}
        for name in ("md17", "md22"):
            card = read_card(name)
            files = [
                replace(file, urls=(server.url(f"/{file.name}"),), md5=None) if file.urls else file
                for file in card.files
            ]
            cards[name] = replace(card, files=tuple(files))
        monkeypatch.setattr(md17, "read_card", cards.__getitem__)
        yield server


@pytest.fixture
def publish(server):
    def of(**files):
        for name, content in files.items():
            server.answers[f"/{name}"] = [http_server.content(content)]

    return of


def put(root, files):
    for name, content in files.items():
        path = root / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def energies(dataset):
    """Energies in kcal/mol, to ten digits."""
    return [round(item.energy.item() / KCAL, 10) for item in dataset]


def asked(server):
    return [path.lstrip("/") for path, _ in server.requests]


def test_all_published_sets_have_their_names():
    assert MD17.names() == NAMES
    assert MD22.names() == (
        *("Ac-Ala3-NHMe", "DHA", "stachyose", "AT-AT", "AT-AT-CG-CG", "buckyball-catcher"),
        "double-walled nanotube",
    )


def test_the_names_are_pygs():
    theirs = torch_geometric.datasets.MD17.file_names
    ours = {name: MD17._find(name).name.split("/")[-1] for name in theirs}
    assert ours == theirs
    # PyG's "benzene FHI-aims", and until PyG 2.7 "naphtalene"
    assert {"benzene 2018"} <= set(NAMES) - set(theirs) <= {"benzene 2018", "naphthalene"}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("asprin", " Did you mean 'aspirin'?"),
        ("Ethanol", " Did you mean 'ethanol'?"),
        ("ethanol ccsd(t)", " Did you mean 'ethanol CCSD(T)'?"),
        ("revised_uracil", " Did you mean 'revised uracil'?"),
        ("qwertz", ""),
        ("", ""),
    ],
)
def test_another_name_is_refused_with_the_nearest(name, hint, tmp_path):
    with pytest.raises(ValueError, match=r"^`name`.*'aspirin'.*'benzene'") as caught:
        MD17(tmp_path, name)
    assert str(caught.value).endswith(f", 'toluene CCSD(T)'; got {name!r}.{hint}")


def test_md17s_names_are_not_md22s(tmp_path):
    with pytest.raises(ValueError, match=r"'Ac-Ala3-NHMe'.*'dha'.*'DHA'"):
        MD22(tmp_path, "dha")


def test_the_original_is_downloaded_and_converted_to_ev(publish, server, tmp_path):
    publish(**{"md17_ethanol.npz": npz(original())})
    dataset = MD17(tmp_path, "ethanol", dtype=torch.float64)
    assert asked(server) == ["md17_ethanol.npz"]
    assert len(dataset) == 3
    first = dataset[0]
    assert set(first.keys()) == {"z", "pos", "energy", "forces", "idx"}
    assert first.z.tolist() == [8, 1]
    assert first.pos.tolist() == [[0, 0, 0.5], [0, 0, 1.5]]
    # 1 kcal/mol is 0.0433641042418009 eV.
    assert first.energy.tolist() == [pytest.approx(-4.33641042418009, rel=1e-14)]
    assert first.forces[:, 2].tolist() == pytest.approx([0.0867282084836018, -0.0867282084836018], rel=1e-14)
    assert (first.energy.dtype, first.forces.dtype) == (torch.float64, torch.float64)
    assert [item.idx.item() for item in dataset] == [0, 1, 2]
    assert dataset.splits == {}


def test_a_processed_set_needs_no_raw_files_and_no_server(publish, server, tmp_path):
    publish(**{"md17_ethanol.npz": npz(original())})
    MD17(tmp_path, "ethanol")
    server.answers.clear()
    (tmp_path / "raw/md17_ethanol.npz").unlink()
    assert energies(MD17(tmp_path, "ethanol")) == [-100, -99, -97.5]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("cls", "name", "file"),
    [
        (MD17, "paracetamol", "paracetamol_dft.npz"),
        (MD17, "benzene", "md17_benzene2017.npz"),
        (MD17, "benzene 2018", "benzene2018_dft.npz"),
        (MD17, "benzene FHI-aims", "benzene2018_dft.npz"),
        (MD17, "salicylic acid", "md17_salicylic.npz"),
        (MD22, "DHA", "md22_DHA.npz"),
        (MD22, "double-walled nanotube", "md22_double-walled_nanotube.npz"),
    ],
)
@pytest.mark.parametrize("by_hand", [False, True])
def test_each_set_is_its_own_file(publish, server, tmp_path, cls, name, file, by_hand):
    (put if by_hand else lambda _, files: publish(**files))(tmp_path, {file: npz(original())})
    assert energies(cls(tmp_path, name)) == [-100, -99, -97.5]
    assert asked(server) == ([] if by_hand else [file])


def test_a_file_that_cannot_be_had_is_told_with_all_that_is_needed(server, tmp_path):
    with pytest.raises(DownloadError) as caught:
        MD17(tmp_path, "ethanol")
    assert str(caught.value) == (
        f"md17_ethanol.npz: no source is available\n  {server.url('/md17_ethanol.npz')}: HTTP status 404\n"
        f"  place a file into {tmp_path / 'raw'} manually"
    )


def test_the_revised_set_is_unpacked_and_has_both_labels(publish, server, tmp_path):
    publish(**{TAR: revised()})
    new = MD17(tmp_path, "revised ethanol")
    old = MD17(tmp_path, "revised ethanol", energy_key="old_energies")
    assert asked(server) == [TAR]
    assert energies(new) == [-100, -99, -97.5]
    assert energies(old) == [-200, -198, -195]
    assert new[0].forces[0, 2].item() == pytest.approx(0.0867282084836018, rel=1e-14)
    assert old[0].forces[0, 2].item() == pytest.approx(-0.0867282084836018, rel=1e-14)
    assert sorted(path.name for path in (tmp_path / "raw/rmd17/npz_data").iterdir()) == ["rmd17_ethanol.npz"]


def test_the_five_splits_of_the_revised_set_are_read(publish, tmp_path):
    publish(**{TAR: revised()})
    for _ in range(2):  # as read, and as stored
        dataset = MD17(tmp_path, "revised ethanol")
        assert list(dataset.splits) == ["1", "2", "3", "4", "5"]
        split = dataset.split("2")
        assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([2], [], [0, 1])
        assert [len(dataset[part]) for part in split] == [1, 0, 2]
        assert energies(dataset[split.train]) == [-97.5]


def test_splits_follow_a_filter(publish, tmp_path):
    publish(**{TAR: revised()})
    dataset = MD17(tmp_path, "revised ethanol", pre_filter=lambda item: item.idx.item() != 1)
    assert len(dataset) == 2
    split = dataset.split("2")
    assert (split.train.tolist(), split.test.tolist()) == ([1], [0])
    assert [len(dataset[part]) for part in split] == [1, 0, 1]


@pytest.mark.parametrize("unpacked", [False, True])
def test_the_revised_set_may_be_put_there_by_hand(server, tmp_path, unpacked):
    put(tmp_path, {TAR: revised()})
    if unpacked:
        extract(tmp_path / "raw" / TAR, tmp_path / "raw")
        (tmp_path / "raw" / TAR).unlink()
    assert energies(MD17(tmp_path, "revised salicylic acid")) == [-100, -99, -97.5]
    assert server.requests == []


@pytest.mark.parametrize(
    "content", [b"", b"0\n3\n", b"0\n-1\n", b"0.0\n", b"train\n0\n", b"\xff", b"9" * 5000]
)
def test_a_split_that_does_not_fit_is_refused(publish, tmp_path, content):
    publish(**{TAR: revised({"rmd17/splits/index_test_04.csv": content})})
    path = tmp_path / "raw/rmd17/splits/index_test_04.csv"
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}.*frame number from 0 to 2"):
        MD17(tmp_path, "revised ethanol")
    assert not list((tmp_path / "processed").glob("*.safetensors"))


def test_an_archive_without_the_molecule_is_refused(publish, tmp_path):
    publish(**{TAR: revised()})
    with pytest.raises(ValueError, match=r"rmd17\.tar\.bz2.*'rmd17/npz_data/rmd17_uracil\.npz'"):
        MD17(tmp_path, "revised uracil")


def test_the_coupled_cluster_sets_have_their_official_split(publish, server, tmp_path):
    parts = {
        "ethanol_ccsd_t-train.npz": npz(original(R=R[:2], E=E[:2], F=F[:2])),
        "ethanol_ccsd_t-test.npz": npz(original(R=R[2:], E=E[2:], F=F[2:])),
    }
    publish(**{"ethanol_ccsd_t.zip": zipped(parts)})
    for _ in range(2):
        dataset = MD17(tmp_path, "ethanol CCSD(T)")
        assert energies(dataset) == [-100, -99, -97.5]
        split = dataset.split("official")
        assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([0, 1], [], [2])
    assert asked(server) == ["ethanol_ccsd_t.zip"]
    assert [item.idx.item() for item in dataset] == [0, 1, 2]


def test_the_parts_of_a_coupled_cluster_set_may_be_put_there_by_hand(server, tmp_path):
    put(tmp_path, {f"aspirin_ccsd-{part}.npz": npz(original()) for part in ("train", "test")})
    assert len(MD17(tmp_path, "aspirin CCSD").split("official").test) == 3
    assert server.requests == []


def test_a_coupled_cluster_archive_lacks_a_part(publish, tmp_path):
    publish(**{"toluene_ccsd_t.zip": zipped({"toluene_ccsd_t-train.npz": npz(original())})})
    with pytest.raises(ValueError, match=r"toluene_ccsd_t\.zip.*'toluene_ccsd_t-test\.npz'"):
        MD17(tmp_path, "toluene CCSD(T)")


def test_sets_without_a_published_split_say_so(publish, tmp_path):
    publish(**{"md17_ethanol.npz": npz(original())})
    with pytest.raises(ValueError, match=r"`split`.*published.*'1'"):
        MD17(tmp_path, "ethanol").split("1")


def test_another_number_of_frames_than_published_is_told(publish, tmp_path, caplog):
    publish(**{"md17_ethanol.npz": npz(original())})
    with caplog.at_level(logging.WARNING):
        MD17(tmp_path, "ethanol")
    assert "md17_ethanol.npz: has 3 frames, published are 555092" in caplog.text


def test_molecules_share_a_folder(publish, tmp_path):
    other = npz(original(E=E - 50))
    publish(**{"md17_ethanol.npz": npz(original()), "md17_uracil.npz": other, TAR: revised()})
    names = ["ethanol", "uracil", "revised ethanol"]
    first = {name: energies(MD17(tmp_path, name)) for name in names}
    assert first == {
        "ethanol": [-100, -99, -97.5],
        "uracil": [-150, -149, -147.5],
        "revised ethanol": [-100, -99, -97.5],
    }
    assert {name: energies(MD17(tmp_path, name)) for name in names} == first
    assert len(list((tmp_path / "processed").glob("*.safetensors"))) == 3


def test_other_labels_are_stored_beside(publish, tmp_path):
    publish(**{TAR: revised()})
    keys = [
        (None, None),
        ("old_energies", None),
        (None, "old_forces"),
        ("old_energies", "forces"),
        (None, "none"),
    ]
    for _ in range(2):
        sets = [MD17(tmp_path, "revised ethanol", energy_key=e, forces_key=f) for e, f in keys]
        assert [energies(dataset)[0] for dataset in sets] == [-100, -200, -100, -200, -100]
        forces = [dataset[0].forces[0, 2].item() > 0 for dataset in sets[:-1]]
        assert forces == [True, False, False, True]
        assert "forces" not in sets[-1][0]
    assert len(list((tmp_path / "processed").glob("*.safetensors"))) == 5


def test_a_key_is_no_path(publish, tmp_path):
    publish(**{"md17_ethanol.npz": npz(original())})
    with pytest.raises(ValueError, match=r"root/raw/md17_ethanol\.npz.*'\.\./\.\./E'"):
        MD17(tmp_path / "root", "ethanol", energy_key="../../E")
    assert [path.name for path in (tmp_path / "root/processed").iterdir()] == []


@pytest.mark.parametrize("cls", [MD17, MD22])
def test_a_file_of_the_users_is_read_without_a_folder(tmp_path, cls, server):
    (tmp_path / "own.npz").write_bytes(npz(original()))
    dataset = cls(None, cls.names()[0], source=tmp_path / "own.npz")
    assert energies(dataset) == [-100, -99, -97.5]
    assert dataset.splits == {}
    assert server.requests == []


def test_a_file_of_the_users_that_was_replaced_is_read_again(tmp_path):
    path = tmp_path / "own.npz"
    path.write_bytes(npz(original()))
    assert len(MD17(tmp_path / "root", "ethanol", source=path)) == 3
    path.write_bytes(npz(original(R=R[:2], E=E[:2], F=F[:2])))
    os.utime(path, ns=(1, 1))
    assert len(MD17(tmp_path / "root", "ethanol", source=path)) == 2


@pytest.mark.parametrize("name", ["no.npz", "own.xyz", "."])
def test_a_source_that_is_no_npz_file_is_told(tmp_path, name):
    (tmp_path / "own.xyz").write_text("1\n\nH 0 0 0\n")
    path = tmp_path / name
    with pytest.raises(FileNotFoundError) as caught:
        MD17(tmp_path / "root", "ethanol", source=path)
    assert "`source` must be 'auto' or an npz file" in str(caught.value)
    assert str(path) in str(caught.value)


def test_downloads_need_a_folder():
    with pytest.raises(ValueError, match=r"`root`.*folder"):
        MD17(None, "ethanol")


@pytest.mark.parametrize("text", [str, str.encode])
def test_the_fingerprint_may_be_text_or_bytes(tmp_path, text):
    arrays = original()
    arrays["md5"] = np.array(text(arrays["md5"].item().decode()))
    (tmp_path / "own.npz").write_bytes(npz(arrays))
    check_fingerprint(tmp_path / "own.npz")


@pytest.mark.parametrize("key", ["z", "R", "E", "F"])
def test_a_number_that_was_changed_is_noticed(publish, tmp_path, key):
    arrays = original()
    found = {"z": Z, "R": R, "E": E, "F": F, key: arrays[key].copy()}
    found[key].flat[-1] += 1
    arrays[key] = found[key]
    publish(**{"md17_ethanol.npz": npz(arrays)})
    expected, stored = fingerprint(**found)[:12], arrays["md5"].item().decode()[:12]
    path = re.escape(str(tmp_path / "raw/md17_ethanol.npz"))
    with pytest.raises(ValueError, match=f"^{path}: fingerprint must be {stored}…, got {expected}…"):
        MD17(tmp_path, "ethanol")
    assert not list((tmp_path / "processed").glob("*.safetensors"))


@pytest.mark.parametrize("lacking", ["md5", "F"])
def test_a_file_without_a_fingerprint_is_accepted(tmp_path, lacking):
    arrays = {**original(), "md5": np.array("0" * 32)}
    del arrays[lacking]
    (tmp_path / "own.npz").write_bytes(npz(arrays))
    assert len(MD17(None, "ethanol", source=tmp_path / "own.npz")) == 3


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_fingerprint_does_not_depend_on_the_order_in_memory(tmp_path, order):
    arrays = original()
    (tmp_path / "own.npz").write_bytes(npz({**arrays, "R": np.asarray(arrays["R"], order=order)}))
    check_fingerprint(tmp_path / "own.npz")


class Creates:
    """A pickle of this creates a folder when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "two texts", "number"])
def test_a_fingerprint_that_is_no_text_is_refused_and_not_executed(tmp_path, kind):
    trap, pickled = tmp_path / "executed", np.empty(1, dtype=object)
    pickled[0] = Creates(trap)
    md5 = {"pickle": pickled, "two texts": np.array(["a", "b"]), "number": np.array(1)}[kind]
    np.savez(tmp_path / "own.npz", allow_pickle=True, **{**original(), "md5": md5})
    with pytest.raises(ValueError, match=r"own\.npz.*'md5'.*another"):
        MD17(None, "ethanol", source=tmp_path / "own.npz")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>404</html>", "must be an npz file, got another or a damaged file"),
        (npz(original())[:-50], "must be an npz file, got another or a damaged file"),
        (npz({"a": Z}), "'R'"),
        (npz(original(E=np.array([[1.0], [np.nan], [2.0]]))), "frame 1"),
    ],
)
def test_a_damaged_file_is_refused_with_its_path(publish, tmp_path, content, reason):
    publish(**{"md17_ethanol.npz": content})
    with pytest.raises(ValueError, match=rf"raw/md17_ethanol\.npz: .*{reason}"):
        MD17(tmp_path, "ethanol")


@pytest.mark.parametrize("memory_map", [False, True])
def test_a_graph_for_schnet_is_made_as_items_are_read(publish, tmp_path, memory_map):
    publish(**{"md17_ethanol.npz": npz(original())})
    dataset = MD17(tmp_path, "ethanol", RadiusGraph(5.0), memory_map=memory_map)
    assert dataset[1].edge_index.tolist() == [[1, 0], [0, 1]]
    assert dataset[1].pos.dtype == torch.float32


def test_the_shipped_sample_is_read(tmp_path):
    for root in (None, tmp_path):
        dataset = MD17(root, "ethanol", source=SAMPLE)
        assert len(dataset) == 1500
        # -7139.09697672503 kcal/mol and (-13.7418, -82.7865, -27.1680) kcal/mol/Å.
        assert dataset[0].energy.item() == pytest.approx(-309.5805454910301056, rel=1e-15)
        forces = [-0.5959017474902039, -3.589960540130749, -1.1781169000219644]
        assert dataset[0].forces[0].tolist() == pytest.approx(forces, rel=1e-14)
        assert dataset[0].z.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="the reference data of revised MD17 are not beside the repository"
)
@pytest.mark.parametrize(
    ("key", "energy", "force"),
    [  # -97079.92222178938 and -97198.78429048166 kcal/mol; -17.6473… and -32.5109… kcal/mol/Å
        (None, -4209.783867011602, -0.7652596600354963),
        ("old_energies", -4214.93821414877, -1.4098079055100786),
    ],
)
def test_revised_md17_itself_is_read_with_either_labels(key, energy, force):
    path = SHARED / "rmd17_ethanol_train_01.npz"
    dataset = MD17(None, "revised ethanol", source=path, energy_key=key)
    assert len(dataset) == 1000
    assert dataset[0].energy.item() == pytest.approx(energy, rel=1e-15)
    assert dataset[0].forces[0, 0].item() == pytest.approx(force, rel=1e-14)


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="the reference data of revised MD17 are not beside the repository"
)
@pytest.mark.parametrize("name", ["aspirin", "benzene", "malonaldehyde", "salicylic", "toluene", "uracil"])
def test_forces_of_revised_md17_sum_to_zero(name):
    dataset = MD17(None, "revised ethanol", source=SHARED / f"rmd17_{name}_train_01.npz")
    total = dataset._data.forces.view(len(dataset), -1, 3).sum(1)
    assert float(total.abs().max()) < 1e-5  # eV/Å
