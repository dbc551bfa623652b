"""Files of all kinds, folders and lists are read as one."""

import json
import re

import ase.db
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write

from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.io.formats import registry
from pyg_schnet.io.formats.frames import concatenate
from pyg_schnet.io.formats.registry import SUFFIXES, list_files, read_frames
from pyg_schnet.io.units import Units


@pytest.fixture
def everywhere(labelled, tmp_path, write, write_hdf5):
    """Write the same two structures of one molecule to a file of each kind."""

    def to_files():
        structures = labelled(count=4)[::3]
        results = structures[1].calc.results
        structures[1].numbers = structures[0].numbers
        structures[1].calc = SinglePointCalculator(structures[1], **results)
        numbers, positions = structures[0].numbers, np.array([atoms.positions for atoms in structures])
        energy = np.array([atoms.get_potential_energy() for atoms in structures])
        forces = np.array([atoms.get_forces() for atoms in structures])
        arrays = {"atomic_numbers": numbers, "positions": positions, "energy": energy, "forces": forces}
        paths = [
            write(arrays, "f.npz"),
            write_hdf5({"a": arrays}, "f.h5"),
            write_hdf5({"a": arrays}, "f.hdf5"),
        ]
        for name in ("f.xyz", "f.extxyz", "f.traj"):
            ase_write(tmp_path / name, structures, format="extxyz" if "xyz" in name else None)
            paths.append(tmp_path / name)
        for name in ("f.db", "f.json"):
            with ase.db.connect(tmp_path / name) as file:
                for atoms in structures:
                    file.write(atoms)
            paths.append(tmp_path / name)
        return paths

    return to_files


def read(path, *keys, units=None):
    return concatenate(list(read_frames(path, *keys, units=units)))


def same(first, second, atol=0.0):
    names = ("numbers", "counts", "positions", "energy", "forces")
    return all(np.allclose(getattr(first, x), getattr(second, x), rtol=0, atol=atol) for x in names)


@pytest.mark.parametrize("path", [molecule("H2O"), [molecule("H2O"), molecule("CH4")], 3])
def test_what_names_no_file_is_refused_with_how_to_write_one(path):
    with pytest.raises(TypeError, match=r"`path`.*(Atoms|int).*ase\.io\.write"):
        list_files(path)


def test_each_kind_of_file_gives_the_same(everywhere):
    """To the last bit, but for the eight decimals that ASE writes into extended xyz."""
    paths = everywhere()
    assert {path.suffix for path in paths} == set(SUFFIXES)
    first = read(paths[0], units=Units("eV"))
    for path in paths:
        frames = read(path, units=Units("eV"))
        assert same(frames, first, atol=5.001e-9 if "xyz" in path.suffix else 0.0), path
        assert frames.numbers.dtype == np.uint8


RUNNER = """begin
energy -75.5
comment the order of lines is free
atom 0.0 0.0 0.0 O 0.0 0.0 0.0 0.0 0.5
atom 0.0 0.0 2.0 H 0.0 0.0 0.0 0.0 -0.5
charge 0.0
end
"""


@pytest.mark.parametrize("name", ["input.data", "input.data.train", "input.data.1", "water.data"])
@pytest.mark.parametrize("folder", [True, False])
def test_names_of_n2p2_are_recognized(tmp_path, name, folder):
    """In Hartree and Bohr, its own units."""
    (tmp_path / name).write_text(RUNNER)
    (tmp_path / "lammps.data").write_text("LAMMPS data file\n\n2 atoms\n")
    frames = read(tmp_path if folder else tmp_path / name)
    assert frames.energy[0] == pytest.approx(-75.5 * 27.211386245988, rel=1e-9)
    assert frames.positions[1, 2] == pytest.approx(2 * 0.529177210903, rel=1e-9)
    assert frames.forces[0, 2] == pytest.approx(0.5 * 27.211386245988 / 0.529177210903, rel=1e-9)
    ((number, atoms),) = StructureFile(str(tmp_path / name))
    assert (number, atoms.numbers.tolist()) == (0, [8, 1])
    assert atoms.positions[1, 2] == pytest.approx(2 * 0.529177210903, rel=1e-6)


def test_a_list_may_mix_kinds(everywhere):
    paths = everywhere()
    frames = read(paths, units=Units("eV"))
    assert len(frames) == 2 * len(paths)
    assert {"'energy' (eV)", "'energy' (calculator, eV)"} <= {*frames.labels["energy"].split(" or ")}


def test_a_folder_is_read_in_the_order_of_names(write, md17, tmp_path):
    for number, name in enumerate(["b.npz", "a.npz", "c.npz"]):
        write({**md17, "E": md17["E"] + 10 * number}, name)
    (tmp_path / "c.npz").rename(tmp_path / "c.NPZ")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "old.traj").mkdir()
    (tmp_path / "._a.npz").write_bytes(b"what a Mac leaves")
    write(md17, "deeper/d.npz")
    assert [file.name for file in list_files(tmp_path)] == ["a.npz", "b.npz", "c.NPZ"]
    energy = read(tmp_path).energy / 0.0433641042418009
    np.testing.assert_allclose(energy, [-90, -89, -100, -99, -80, -79])


def test_a_list_keeps_its_order(write, md17):
    paths = [write({**md17, "E": md17["E"] + number}, f"{number}.npz") for number in range(2)]
    assert read(paths[::-1]).energy[0] == pytest.approx(-99 * 0.0433641042418009)


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda folder: folder / "no.npz", FileNotFoundError, "no.npz: no such file; a file of structures"),
        (lambda folder: [folder / "no.npz"], FileNotFoundError, "no.npz: no such file; a file of structures"),
        (lambda folder: [], ValueError, "`path` must name at least one file, got an empty list"),
        (
            lambda folder: folder,
            ValueError,
            f"must be a folder with files of {', '.join(SUFFIXES)}, or with systems of DeePMD-kit",
        ),
    ],
)
def test_nothing_to_read_is_told(tmp_path, make, error, reason):
    with pytest.raises(error, match=re.escape(reason)):
        read(make(tmp_path))


def test_files_must_agree_on_forces(write, md17):
    first = write(md17, "first.npz")
    del md17["F"]
    second = write(md17, "second.npz")
    reason = f"{second}: must have forces exactly if {first} has; leave one of them out, or set `forces_key`"
    with pytest.raises(ValueError, match=re.escape(reason)):
        read([first, second])
    assert read([first, second], None, "none").forces is None


def test_a_processed_file_is_none_of_many(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"processed.*AtomsDataset\(path='"):
        read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("text", ['[\n{"structure"', "  [1]"])
def test_a_json_list_is_pymatgens(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"pymatgen|is damaged"):
        read(tmp_path / "a.json")


def test_another_json_is_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"frame.*0"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize("kind", ["xyz", "npz", "h5"])
@pytest.mark.parametrize("periodic", [(), (0,), (4,)])
def test_pieces_have_a_lattice_if_any_structure_has_one(
    labelled, tmp_path, write_hdf5, write, monkeypatch, kind, periodic
):
    """Also where the first piece does not know of it."""
    monkeypatch.setattr(registry, "_ATOMS_AT_ONCE", 5)
    paths = []
    for number, atoms in enumerate(labelled(periodic=periodic)):
        arrays = {"numbers": atoms.numbers, "positions": atoms.positions, "energy": np.array(0.0)}
        arrays |= {"cell": atoms.cell.array, "pbc": atoms.pbc} if atoms.pbc.any() else {}
        if kind == "npz":
            paths.append(write(arrays, f"{number}.npz"))
        elif kind == "h5":
            paths.append(write_hdf5({"a": arrays}, f"{number}.h5"))
    if kind == "xyz":
        paths = tmp_path / "a.xyz"
        ase_write(paths, labelled(periodic=periodic))
    pieces = list(read_frames(paths, None, "none", units=Units("eV")))
    assert [len(piece) for piece in pieces] == ([5] if kind == "xyz" else [2, 1, 2])
    assert {piece.pbc is not None for piece in pieces} == {bool(periodic)}
    if periodic:
        assert np.flatnonzero(concatenate(pieces).pbc.any(axis=1)).tolist() == list(periodic)


def test_small_files_become_one_piece(write, md17):
    paths = [write(md17, f"{number}.npz") for number in range(5)]
    assert [len(piece) for piece in read_frames(paths)] == [10]


def test_large_files_become_many(write, md17, monkeypatch):
    monkeypatch.setattr(registry, "_ATOMS_AT_ONCE", 3)
    pieces = list(read_frames([write(md17, "a.npz"), write(md17, "b.npz")]))
    assert [len(piece) for piece in pieces] == [2, 2]
    assert same(concatenate(pieces), concatenate([read(write(md17))] * 2))


def test_files_of_two_levels_of_theory_are_not_one_set(tmp_path):
    frame = "1\nProperties=species:S:1:pos:R:3 {}_energy=-1.0\nO 0 0 0\n"
    paths = [tmp_path / "a.xyz", tmp_path / "b.xyz"]
    for path, level in zip(paths, ("REF", "DFT"), strict=True):
        path.write_text(frame.format(level))
    message = f"{paths[1]}: must have energies of the same level of theory as {paths[0]}, got 'DFT_energy'"
    with pytest.raises(ValueError, match=re.escape(message)):
        list(read_frames(paths))
    paths[1].write_text(frame.format("REF"))
    assert sum(map(len, read_frames(paths))) == 2
