"""Files that somebody made to do harm: each is written by a function, which names the door that it is for."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import sqlite3
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from tests.faults import samples

Writer = Callable[[Path], Path]
HOSTILE: dict[str, tuple[str, Writer]] = {}  # name of the trick: the door, and what writes the file


def hostile(door: str) -> Callable[[Writer], Writer]:
    """Enter a file among those that a door must refuse."""

    def enter(write: Writer) -> Writer:
        HOSTILE[write.__name__] = (door, write)
        return write

    return enter


class Canary:
    """Makes a file beside the folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.path = str(folder.parent / "executed")

    def __reduce__(self):
        return os.mkdir, (self.path,)


def npy(head: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data


def npz(path: Path, **members: bytes) -> Path:
    """Write an npz file of members as they are; the others are those of a valid file."""
    np.savez(path, **samples.arrays())
    with zipfile.ZipFile(path) as file:
        whole = {info.filename: file.read(info) for info in file.infolist()}
    whole |= {f"{name}.npy": content for name, content in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in whole.items():
            file.writestr(name, content)
    return path


def header_of(path: Path, change: Callable[[dict], object]) -> Path:
    """Change what a checkpoint says of itself."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    table = json.loads(content[8 : 8 + length])
    own = json.loads(table["__metadata__"]["pyg_schnet"])
    change(own)
    table["__metadata__"]["pyg_schnet"] = json.dumps(own)
    text = json.dumps(table).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return path


def checkpoint_with(folder: Path, **model: object) -> Path:
    samples.write_checkpoint(folder / "model.safetensors")
    return header_of(folder / "model.safetensors", lambda own: own["model"].update(model))


def safetensors(folder: Path, table: object, data: bytes = b"", length: int | None = None) -> Path:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    size = len(text) if length is None else length
    path = folder / "model.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# ---- pickles


@hostile("npz")
def pickle_in_npz(folder):
    objects = np.empty(1, dtype=object)
    objects[0] = Canary(folder)
    np.savez(folder / "a.npz", allow_pickle=True, **{**samples.arrays(), "E": objects})
    return folder / "a.npz"


@hostile("npz")
def pickle_named_npz(folder):
    return put(folder / "a.npz", pickle.dumps(Canary(folder)))


@hostile("weights")
def pickle_of_torch(folder):
    torch.save({"weight": torch.ones(2), "model": Canary(folder)}, folder / "weights.pt")
    return folder / "weights.pt"


@hostile("weights")
def pickle_named_pth(folder):
    return put(folder / "weights.pth", pickle.dumps(Canary(folder)))


@hostile("checkpoint")
def pickle_named_safetensors(folder):
    return put(folder / "model.safetensors", pickle.dumps(Canary(folder)))


@hostile("ASE's trajectory")
def pickle_named_traj(folder):
    return put(folder / "a.traj", pickle.dumps(Canary(folder)))


@hostile("structures")
def pickle_named_bundle(folder):
    return put(folder / "a.bundle", pickle.dumps(Canary(folder)))


# ---- npz


@hostile("npz")
def code_in_the_head_of_an_array(folder):
    return npz(folder / "a.npz", E=npy("__import__('os').system('touch executed')"))


@hostile("npz")
def array_of_a_trillion_numbers(folder):
    head = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"
    return npz(folder / "a.npz", E=npy(head, bytes(8)))


@hostile("npz")
def array_of_a_negative_size(folder):
    return npz(folder / "a.npz", E=npy("{'descr': '<f8', 'fortran_order': True, 'shape': (-3,)}", bytes(24)))


@hostile("npz")
def array_nested_a_thousand_times(folder):
    return npz(folder / "a.npz", E=npy("(" * 3000 + ")" * 3000))


@hostile("npz")
def two_arrays_of_one_name(folder):
    np.savez(folder / "a.npz", **samples.arrays())
    with zipfile.ZipFile(folder / "a.npz", "a") as file:
        file.writestr("E", file.read("E.npy"))  # NumPy names both 'E'
    return folder / "a.npz"


@hostile("npz")
def kilobytes_that_are_gigabytes_of_zeros(folder):
    np.savez(folder / "a.npz", **{k: v for k, v in samples.arrays().items() if k != "F"})
    with (
        zipfile.ZipFile(folder / "a.npz", "a", zipfile.ZIP_DEFLATED) as file,
        file.open("F.npy", "w") as member,
    ):
        member.write(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (25165824,)}"))
        for _ in range(12):  # 192 MiB
            member.write(bytes(2**24))
    return folder / "a.npz"


# ---- safetensors and our header


@hostile("checkpoint")
def header_longer_than_the_file(folder):
    return safetensors(folder, {}, length=10**6)


@hostile("checkpoint")
def header_of_an_exabyte(folder):
    return safetensors(folder, {}, length=2**63)


@hostile("checkpoint")
def tensors_that_overlap(folder):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return safetensors(folder, {"a": entry, "b": entry}, bytes(8))


@hostile("checkpoint")
def tensor_beyond_the_file(folder):
    return safetensors(folder, {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]}}, bytes(8))


@hostile("checkpoint")
def shape_whose_size_overflows(folder):
    entry = {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]}
    return safetensors(folder, {"a": entry})


@hostile("checkpoint")
def header_nested_a_million_times(folder):
    return safetensors(folder, b'{"a":' * 10**5 + b"1" + b"}" * 10**5)


@hostile("checkpoint")
def our_header_nested_deeply(folder):
    return safetensors(folder, {"__metadata__": {"pyg_schnet": "[" * 10**5}})


@hostile("checkpoint")
def a_billion_channels(folder):
    return checkpoint_with(folder, hidden_channels=10**9)


@hostile("checkpoint")
def a_billion_interactions(folder):
    return checkpoint_with(folder, num_interactions=10**9)


@hostile("checkpoint")
def a_billion_gaussians(folder):
    return checkpoint_with(folder, num_gaussians=10**9)


@hostile("checkpoint")
def sizes_that_are_texts(folder):
    return checkpoint_with(folder, hidden_channels="4")


@hostile("checkpoint")
def a_cutoff_that_is_no_number(folder):
    return checkpoint_with(folder, cutoff=float("nan"))


@hostile("checkpoint")
def a_domain_of_no_elements(folder):
    samples.write_checkpoint(folder / "model.safetensors")
    return header_of(
        folder / "model.safetensors", lambda own: own["domain"]["shortest"].update({"1-100000000": 1.0})
    )


@hostile("restart file")
def a_restart_at_a_quintillion(folder):
    samples.write_restart(folder / "md.extxyz")
    return header_of(folder / "md.extxyz.restart", lambda own: own.update(size=-1))


@hostile("weights")
def torch_file_that_unpacks_to_gigabytes(folder):
    samples.write_weights(folder / "weights.pt")
    with zipfile.ZipFile(folder / "weights.pt") as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    with zipfile.ZipFile(folder / "weights.pt", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return folder / "weights.pt"


# ---- archives


def tar_member(folder: Path, kind: bytes, name: str, link: str = "") -> Path:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    with tarfile.open(folder / "a.tar", "w") as file:
        file.addfile(info)
    return folder / "a.tar"


@hostile("archive")
def tar_of_a_link_out(folder):
    return tar_member(folder, tarfile.SYMTYPE, "a", "../../outside")


@hostile("archive")
def tar_of_a_hard_link_out(folder):
    return tar_member(folder, tarfile.LNKTYPE, "a", "/etc/passwd")


@hostile("archive")
def tar_of_a_device(folder):
    return tar_member(folder, tarfile.CHRTYPE, "a")


@hostile("archive")
def tar_of_a_pipe(folder):
    return tar_member(folder, tarfile.FIFOTYPE, "a")


@hostile("archive")
def tar_that_leads_up(folder):
    samples.write_archive(folder / "a.tar", {"../outside": b"x"})
    return folder / "a.tar"


@hostile("archive")
def zip_of_an_absolute_name(folder):
    samples.write_archive(folder / "a.zip", {"/tmp/outside": b"x"})
    return folder / "a.zip"


@hostile("archive")
def zip_of_members_that_overlap(folder):
    """Write a thousand entries of one member of 1 MiB: some 70 kB unpack to a gigabyte."""
    samples.write_archive(folder / "a.zip", {"a": bytes(2**20)})
    content = (folder / "a.zip").read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    directory = content[start:end] * 1000
    counts = struct.pack("<HHII", 1000, 1000, len(directory), start)
    return put(folder / "a.zip", content[:start] + directory + b"PK\x05\x06" + bytes(4) + counts + bytes(2))


@hostile("archive")
def tar_of_one_name_twice(folder):
    with tarfile.open(folder / "a.tar", "w") as file:
        for name in ("a/b", "a/./b"):
            file.addfile(tarfile.TarInfo(name))
    return folder / "a.tar"


@hostile("archive")
def zip_of_one_name_twice(folder):
    samples.write_archive(folder / "a.zip", {"a": b"1", "b": b"2"})
    content = (folder / "a.zip").read_bytes()
    return put(folder / "a.zip", content.replace(b"b", b"a"))


@hostile("archive")
def bzip2_of_nothing(folder):
    """Write 400 MiB of zeros as one member of a tar, in some hundred bytes."""
    info = tarfile.TarInfo("a")
    info.size = 400 * 2**20
    packer = bz2.BZ2Compressor(9)
    zeros = bytes(2**24)
    parts = [packer.compress(info.tobuf()), *(packer.compress(zeros) for _ in range(25)), packer.flush()]
    return put(folder / "a.tar.bz2", b"".join(parts))


# ---- HDF5


def hdf5(folder: Path, change: Callable[[h5py.Group], None]) -> Path:
    samples.write_hdf5(folder / "a.h5")
    with h5py.File(folder / "a.h5", "a") as file:
        change(file["O1H2"])
    return folder / "a.h5"


def replaced(group: h5py.Group, **options: object) -> None:
    del group["coordinates"]
    group.create_dataset("coordinates", **options)


@hostile("HDF5")
def external_link(folder):
    (folder.parent / "secret.h5").write_bytes(b"")

    def change(group):
        del group["coordinates"]
        group["coordinates"] = h5py.ExternalLink(str(folder.parent / "secret.h5"), "/x")

    return hdf5(folder, change)


@hostile("HDF5")
def soft_link(folder):
    def change(group):
        del group["coordinates"]
        group["coordinates"] = h5py.SoftLink("/other/H2O1/coordinates")

    return hdf5(folder, change)


@hostile("HDF5")
def bytes_of_another_file(folder):
    options = {"shape": (2, 3, 3), "dtype": "f4", "external": [("/etc/passwd", 0, 72)]}
    return hdf5(folder, lambda group: replaced(group, **options))


@hostile("HDF5")
def virtual_array(folder):
    def change(group):
        layout = h5py.VirtualLayout((2, 3, 3), "f8")
        layout[:] = h5py.VirtualSource(str(folder.parent / "secret.h5"), "x", (2, 3, 3))
        del group["coordinates"]
        group.create_virtual_dataset("coordinates", layout)

    return hdf5(folder, change)


@hostile("HDF5")
def one_chunk_of_a_terabyte(folder):
    def change(group):
        replaced(group, shape=(10**10, 3, 3), chunks=(1, 3, 3), dtype="f8")
        group["coordinates"][0] = 1.0

    return hdf5(folder, change)


@hostile("HDF5")
def packed_zeros(folder):
    options = {"data": np.zeros((2**20, 3, 3)), "compression": "gzip", "compression_opts": 9}
    return hdf5(folder, lambda group: replaced(group, **options))


@hostile("HDF5")
def references_to_regions(folder):
    def change(group):
        reference = group["wb97x_dz.forces"].regionref[:1]
        replaced(group, shape=(2,), dtype=h5py.regionref_dtype)
        group["coordinates"][0] = reference

    return hdf5(folder, change)


@hostile("HDF5")
def group_within_itself(folder):
    def change(group):
        for name in list(group):
            del group[name]
        group["again"] = group
        del group.file["other"]

    return hdf5(folder, change)


# ---- files of ASE, databases, JSON


@hostile("extended xyz")
def a_trillion_atoms(folder):
    return put(folder / "a.xyz", f"{10**12}\nenergy=1\nH 0 0 0\n")


@hostile("extended xyz")
def a_billion_columns(folder):
    return put(folder / "a.xyz", "1\nProperties=species:S:1:pos:R:1000000000 energy=1\nH 0 0 0\n")


BILLION = "species:S:1:pos:R:1000000000"


@hostile("extended xyz")
def a_billion_columns_behind_sound_ones(folder):
    header = f"Properties=species:S:1:pos:R:3 Properties={BILLION}"
    return put(folder / "a.xyz", f"1\n{header}\nH 0 0 0\n")


@hostile("extended xyz")
def a_billion_columns_with_a_sign(folder):
    return put(folder / "a.xyz", "1\nProperties=species:S:1:pos:R:+1000000000 energy=1\nH 0 0 0\n")


@hostile("extended xyz")
def a_billion_columns_under_a_quoted_key(folder):
    return put(folder / "a.xyz", f'1\n"Properties"={BILLION} energy=1\nH 0 0 0\n')


@hostile("extended xyz")
def a_billion_columns_behind_another_key(folder):
    header = f"xProperties=species:S:1:pos:R:3 Properties={BILLION} energy=1"
    return put(folder / "a.xyz", f"1\n{header}\nH 0 0 0\n")


@hostile("extended xyz")
def a_billion_columns_with_an_escape(folder):
    return put(folder / "a.xyz", f"1\nProp\\erties={BILLION} energy=1\nH 0 0 0\n")


@hostile("extended xyz")
def a_billion_columns_of_no_atom(folder):
    return put(folder / "a.xyz", f"0\nProperties={BILLION} energy=1\n")


@hostile("extended xyz")
def a_million_columns(folder):
    columns = " ".join(["0"] * 2_000_001)
    return put(folder / "a.xyz", f"1\nProperties=species:S:1:pos:R:2000000 energy=1\n{columns}\n")


@hostile("extended xyz")
def a_header_of_a_million_keys(folder):
    header = " ".join(f"k{number}" for number in range(1_000_000))
    return put(folder / "a.xyz", f"1\n{header} energy=1\nH 0 0 0\n")


@hostile("extended xyz")
def two_energies(folder):
    return put(folder / "a.xyz", "1\nenergy=1 energy=2\nH 0 0 0\n")


def packed_xyz(path: Path, packer: bz2.BZ2Compressor | lzma.LZMACompressor) -> Path:
    """Write a frame of 100 MiB in some kilobytes."""
    atoms = (b"H 0.0 0.0 0." + b"0" * 2**16 + b"\n") * 160
    head = b"1000000\nenergy=1\n"
    parts = [packer.compress(head), *(packer.compress(atoms) for _ in range(10)), packer.flush()]
    return put(path, b"".join(parts))


@hostile("extended xyz")
def bzip2_of_extended_xyz(folder):
    return packed_xyz(folder / "a.xyz.bz2", bz2.BZ2Compressor(9))


@hostile("structures")
def bzip2_of_structures(folder):
    return packed_xyz(folder / "a.extxyz.bz2", bz2.BZ2Compressor(9))


@hostile("extended xyz")
def xz_of_extended_xyz(folder):
    return packed_xyz(folder / "a.xyz.xz", lzma.LZMACompressor(preset=0))


@hostile("output")
def bzip2_of_an_output(folder):
    head = b"                         GAMESS VERSION\n$coord\n$grad"
    packer = bz2.BZ2Compressor(9)
    parts = [packer.compress(head), *(packer.compress(b"\n" * 2**24) for _ in range(16)), packer.flush()]
    return put(folder / "gradient.bz2", b"".join(parts))


@hostile("extended xyz")
def a_line_without_end(folder):
    return put(folder / "a.xyz.gz", gzip.compress(b"1\n" + b"x" * 2**26))


@hostile("structures")
def xz_of_nothing(folder):
    packer = lzma.LZMACompressor(preset=0)
    zeros = b"\n" * 2**24
    return put(folder / "a.cif.xz", b"".join([*(packer.compress(zeros) for _ in range(8)), packer.flush()]))


@hostile("structures")
def input_that_includes_a_device(folder):
    return put(folder / "a.dat", "include_file /dev/zero\n%block lattice_cart\n")


@hostile("structures")
def a_pipe(folder):
    os.mkfifo(folder / "a.xyz")
    return folder / "a.xyz"


@hostile("structures")
def a_device(folder):
    (folder / "a.xyz").symlink_to("/dev/zero")
    return folder / "a.xyz"


@hostile("structures")
def a_folder_in_place_of_a_file(folder):
    (folder / "a.xyz").mkdir()
    return folder / "a.xyz"


def database(folder: Path, *statements: str) -> Path:
    samples.write_iso17(folder / "reference.db")
    connection = sqlite3.connect(folder / "reference.db")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return folder / "reference.db"


ENDLESS = """WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
SELECT x AS value, 'version' AS name FROM c"""


@hostile("ASE's databases")
def a_view_that_never_ends(folder):
    return database(folder, "DROP TABLE information", f"CREATE VIEW information AS {ENDLESS}")


@hostile("ISO17's database")
def a_column_of_gigabytes(folder):
    return database(folder, "ALTER TABLE systems ADD COLUMN more AS (zeroblob(1000000000))")


@hostile("ISO17's database")
def a_view_in_place_of_the_table(folder):
    return database(folder, "DROP TABLE systems", f"CREATE VIEW systems AS {ENDLESS}")


@hostile("pymatgen's JSON")
def classes_in_json(folder):
    entry = {"@module": "os", "@class": "system", "structure": {"@module": "os", "@class": "system"}}
    return put(folder / "list.json", json.dumps([entry]))


@hostile("pymatgen's JSON")
def one_entry_twice(folder):
    samples.write_pymatgen(folder / "list.json")
    text = (folder / "list.json").read_text()
    return put(folder / "list.json", text.replace('"outputs": {', '"outputs": {"energy": -99.0, ', 1))


@hostile("pymatgen's JSON")
def json_nested_deeply(folder):
    return put(folder / "list.json", "[" * 10**5)


# ---- recipes and the rest of a run


@hostile("recipe")
def yaml_that_calls_the_system(folder):
    return put(folder / "r.yaml", f'data: !!python/object/apply:os.mkdir ["{folder.parent}/executed"]\n')


@hostile("recipe")
def class_in_a_recipe(folder):
    return put(folder / "r.yaml", "data: {class_path: os.mkdir, init_args: {path: executed}}\n")


@hostile("recipe")
def class_in_a_file_that_a_recipe_names(folder):
    put(folder / "section.yaml", "class_path: evil_module.Evil\ninit_args: {path: x}\n")
    return put(folder / "r.yaml", f"data: {folder}/section.yaml\n")


@hostile("recipe")
def a_billion_laughs(folder):
    lines = ["data:", "  path:", "    - &a0 [q, q, q, q, q, q, q, q, q]"]
    lines += [f"    - &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return put(folder / "r.yaml", "\n".join(lines))


@hostile("recipe")
def one_option_twice(folder):
    return put(folder / "r.yaml", "data:\n  path: a.npz\n  path: b.npz\n")


@hostile("recipe")
def yaml_nested_deeply(folder):
    return put(folder / "r.yaml", "data: " + "[" * 5000 + "]" * 5000)


@hostile("ensemble")
def an_ensemble_of_a_device(folder):
    content = {"format": 1, "kind": "ensemble", "potentials": ["/dev/zero"] * 2, "sha256": ["0"] * 2}
    return put(folder / "ensemble.json", json.dumps({**content, "factors": None}))


@hostile("ensemble")
def ensemble_nested_deeply(folder):
    return put(folder / "ensemble.json", "[" * 10**5)


@hostile("split")
def pickle_in_a_split(folder):
    objects = np.empty(1, dtype=object)
    objects[0] = Canary(folder)
    np.savez(folder / "split.npz", allow_pickle=True, train=objects, val=objects, test=objects)
    return folder / "split.npz"


# ---- SMILES


@hostile("SMILES")
def a_hundred_thousand_characters(folder):
    return put(folder / "a.smi", "C" * 10**5)


@hostile("SMILES")
def a_thousand_branches(folder):
    return put(folder / "a.smi", "C(" * 900 + "C" + ")" * 900)


@hostile("SMILES")
def rings_upon_rings(folder):
    return put(folder / "a.smi", "".join(f"C%{n}" for n in range(10, 24)) * 2)


@hostile("SMILES")
def a_cage_that_does_not_exist(folder):
    return put(folder / "a.smi", "C12C3C4C1C5C2C3C45" + ".C" * 50)


@hostile("SMILES")
def ten_thousand_hydrogens(folder):
    return put(folder / "a.smi", "[UH99]" * 100)
