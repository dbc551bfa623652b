"""The stand-in for ISO17 is what its card says, and its script makes more of the same.

No import of the package, on purpose: these tests are the yardstick for its own reader.
"""

import gzip
import hashlib
import importlib.util
import json
import re
import sys
import tarfile
import types
from pathlib import Path

import ase.db
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT

FOLDER = Path(__file__).parents[2] / "datasets" / "iso17"
SAMPLE = FOLDER / "iso17_standin_sample.tar.gz"
FOLDS = ("reference", "reference_eq", "test_within", "test_other", "test_eq")
KNOWN = [68113, 71605, 71608, 75717, 89812, 90005, 92415, 103224, 113237, 116265]  # numbers in GDB-9
UNSEEN = [73375, 78168]
RADII = {1: 0.31, 6: 0.76, 8: 0.66}  # Å, covalent


@pytest.fixture(scope="module")
def script():
    """The script; it imports its neighbor, as if it was run."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("make_standin", FOLDER / "make_standin.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.fixture(scope="module")
def archive(script):
    """The module that writes archives."""
    return sys.modules["standin_archive"]


@pytest.fixture(scope="module")
def card():
    return (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    return unpack(SAMPLE, tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def rows(unpacked):
    """Rows of each fold, in order of their ids."""
    return {fold: read_rows(unpacked / f"{fold}.db") for fold in FOLDS}


@pytest.fixture(scope="module")
def xtb():
    """Return energy (eV) and forces (eV/Å) of atomic numbers and positions."""
    # tblite shares PyTorch's OpenMP threads, which wait for each other on a busy machine
    ase_interface = pytest.importorskip("tblite.ase", reason="tblite is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def label(numbers, positions):
        atoms = Atoms(numbers, positions)
        atoms.calc = ase_interface.TBLite(method="GFN2-xTB", accuracy=1e-3, verbosity=0)
        return atoms.get_potential_energy(), atoms.get_forces()

    yield label
    torch.set_num_threads(threads)


def unpack(path, folder):
    with tarfile.open(path) as archive:
        for member in archive:
            target = folder / Path(member.name).name
            target.write_bytes(archive.extractfile(member).read())
    return folder


def read_rows(path):
    with ase.db.connect(path) as database:
        return list(database.select(sort="id"))


def forces_of(rows):
    return np.array([row.data["atomic_forces"] for row in rows])


def bonds_of(row):
    """Pairs of atoms nearer than 1.3 times the sum of their radii, and their distances."""
    distance = np.linalg.norm(row.positions[:, None] - row.positions, axis=-1)
    radii = np.array([RADII[number] for number in row.numbers])
    pairs = np.argwhere(np.triu(distance < 1.3 * (radii[:, None] + radii), k=1))
    return {(int(i), int(j)) for i, j in pairs}


def test_the_file_has_the_size_and_hash_of_its_card(card):
    content = SAMPLE.read_bytes()
    assert len(content) <= 1_200_000
    assert f"{len(content):,} bytes" in card
    assert re.findall(r"`([0-9a-f]{64})`", card) == [hashlib.sha256(content).hexdigest()]


def test_the_members_are_those_of_iso17():
    with tarfile.open(SAMPLE) as archive:
        names = archive.getnames()
    databases = [f"iso17/{fold}.db" for fold in FOLDS]
    texts = ["iso17/README", "iso17/train_ids.txt", "iso17/validation_ids.txt"]
    assert sorted(names) == sorted([*databases, *texts])


def test_the_archive_tells_neither_time_nor_user():
    with tarfile.open(SAMPLE) as archive:
        origins = {(member.mtime, member.uid, member.uname, member.mode) for member in archive}
    assert origins == {(0, 0, "", 0o644)}
    assert SAMPLE.read_bytes()[4:8] == bytes(4)  # gzip's own time


def test_what_it_is_stands_in_the_first_line(unpacked, card):
    assert (unpacked / "README").read_text(encoding="utf-8").startswith("STAND-IN: this is not ISO17.")
    assert "stand-in" in card.split(".")[0]


@pytest.mark.parametrize(
    ("fold", "count"),
    [("reference", 640), ("reference_eq", 10), ("test_within", 160), ("test_other", 160), ("test_eq", 2)],
)
def test_a_fold_has_as_many_rows_as_its_share(rows, fold, count):
    # 80 % of 12 molecules are 10, 80 % of 80 steps are 64
    assert [row.id for row in rows[fold]] == list(range(1, count + 1))


def test_the_first_rows_have_these_values_in_ev_and_angstrom(rows):
    first = rows["reference"][0]
    assert first.total_energy == pytest.approx(-764.1726298204208, abs=1e-12)
    assert first.data["atomic_forces"][2][1] == pytest.approx(-1.9071862677641824, abs=1e-14)
    assert rows["test_other"][0].total_energy == pytest.approx(-766.2274184333288, abs=1e-12)
    assert rows["test_eq"][0].total_energy == pytest.approx(-767.6261836747224, abs=1e-12)


@pytest.mark.parametrize("fold", FOLDS)
def test_a_row_has_the_layout_of_iso17(rows, fold):
    for row in rows[fold]:
        assert sorted(row.numbers) == [1] * 10 + [6] * 7 + [8] * 2
        assert isinstance(row.data["atomic_forces"], list)
        assert np.shape(row.data["atomic_forces"]) == (19, 3)
        assert isinstance(row.total_energy, float)
        assert not row.pbc.any()


def test_molecules_of_the_reference_are_not_in_test_other(rows):
    isomers = {fold: sorted({row.isomer for row in rows[fold]}) for fold in FOLDS}
    assert isomers == {
        "reference": KNOWN,
        "reference_eq": KNOWN,
        "test_within": KNOWN,
        "test_other": UNSEEN,
        "test_eq": UNSEEN,
    }


def test_the_molecules_of_all_trajectories_have_different_bonds(rows):
    def graph(row):
        """A fingerprint of the graph that no order of atoms changes."""
        adjacency = np.zeros((19, 19))
        for i, j in bonds_of(row):
            adjacency[i, j] = adjacency[j, i] = np.sqrt(row.numbers[i] * row.numbers[j])
        return tuple(np.linalg.eigvalsh(adjacency + np.diag(row.numbers)).round(6))

    equilibria = rows["reference_eq"] + rows["test_eq"]
    assert len({graph(row) for row in equilibria}) == 12


def test_steps_of_a_known_molecule_are_in_the_reference_or_in_test_within_and_in_one_only(rows):
    for isomer in KNOWN:
        reference = [row.frame for row in rows["reference"] if row.isomer == isomer]
        within = [row.frame for row in rows["test_within"] if row.isomer == isomer]
        assert (len(reference), len(within)) == (64, 16)
        assert sorted(reference + within) == list(range(80))


def test_test_other_has_all_steps_of_its_molecules(rows):
    steps = [(row.isomer, row.frame) for row in rows["test_other"]]
    assert steps == [(isomer, frame) for isomer in UNSEEN for frame in range(80)]


def test_no_geometry_is_there_twice(rows):
    geometries = [row.positions.tobytes() for fold in FOLDS for row in rows[fold]]
    assert len(set(geometries)) == len(geometries) == 972


def test_the_id_files_share_out_the_reference(unpacked):
    train, validation = (
        list(map(int, (unpacked / f"{name}_ids.txt").read_text().split())) for name in ("train", "validation")
    )
    assert (len(train), len(validation)) == (634, 6)  # as 400,000 to 4,000
    assert sorted(train + validation) == list(range(1, 641))


def test_successive_frames_are_a_femtosecond_apart_at_500_kelvin(rows):
    frames = {(row.isomer, row.frame): row for fold in ("reference", "test_within") for row in rows[fold]}
    temperatures = []
    for isomer in KNOWN:
        positions = np.array([frames[isomer, frame].positions for frame in range(80)])
        velocities = (positions[2:] - positions[:-2]) / (2 * units.fs)
        momenta = frames[isomer, 0].toatoms().get_masses()[:, None] * velocities
        temperatures.append((momenta * velocities).sum(axis=(1, 2)) / (54 * units.kB))
    # Measured: 511 K. A trajectory forgets its kinetic energy within 50 fs, so these are some 16 independent
    # values, which spread by 500 sqrt(2 / 54) = 96 K: 24 K for their mean.
    assert np.mean(temperatures) == pytest.approx(500, abs=4 * 24)


def test_equilibrium_geometries_are_minima(rows):
    for part, trajectories in (("reference_eq", ("reference", "test_within")), ("test_eq", ("test_other",))):
        for minimum in rows[part]:
            assert np.linalg.norm(minimum.data["atomic_forces"], axis=-1).max() < 0.003  # eV/Å
            hot = [row for fold in trajectories for row in rows[fold] if row.isomer == minimum.isomer]
            assert len(hot) == 80
            # 51 vibrations at 500 K hold 51 kT / 2 = 1.1 eV; measured: 0.6 to 2.0
            assert all(0.3 < row.total_energy - minimum.total_energy < 2.5 for row in hot)


def test_all_molecules_stay_whole(rows):
    bonded = {row.isomer: bonds_of(row) for fold in ("reference_eq", "test_eq") for row in rows[fold]}
    for fold in ("reference", "test_within", "test_other"):
        for row in rows[fold]:
            assert bonds_of(row) >= bonded[row.isomer]


@pytest.mark.parametrize("fold", FOLDS)
def test_the_forces_of_each_frame_sum_to_zero(rows, fold):
    np.testing.assert_allclose(forces_of(rows[fold]).sum(axis=1), 0, atol=1e-12)  # measured: 3e-14


def test_the_forces_have_a_plausible_size(rows):
    # Measured: 0.805 eV/Å. ISO17's have 0.848: the paper's mean predictor errs by 19.56 kcal/mol/Å.
    assert 0.75 < np.abs(forces_of(rows["reference"])).mean() < 0.9


def test_the_card_shows_what_the_script_measures(archive, card):
    assert archive.describe(SAMPLE) in card


@pytest.mark.parametrize(("fold", "row"), [("reference", 0), ("test_other", 159), ("test_eq", 1)])
def test_tblite_gives_the_stored_labels_again(rows, xtb, fold, row):
    row = rows[fold][row]
    energy, forces = xtb(row.numbers, row.positions)
    assert energy == pytest.approx(row.total_energy, abs=1e-6)  # measured: 5e-10
    np.testing.assert_allclose(forces, row.data["atomic_forces"], atol=2e-4)  # measured: 2e-5


def test_stored_forces_are_minus_the_gradient_of_the_xtb_energy(rows, xtb):
    row, step = rows["test_within"][0], 1e-3  # Å
    for index in [(0, 0), (5, 1), (12, 2)]:
        energies = []
        for shift in (-step, step):
            positions = row.positions.copy()
            positions[index] += shift
            energies.append(xtb(row.numbers, positions)[0])
        gradient = (energies[1] - energies[0]) / (2 * step)
        # measured: 2e-5
        assert row.data["atomic_forces"][index[0]][index[1]] == pytest.approx(-gradient, abs=2e-4)


@pytest.mark.parametrize(("count", "known"), [(3, 2), (12, 10), (129, 103)])
def test_four_fifths_of_the_molecules_are_known(archive, count, known):
    indices = list(range(100, 100 + count))
    parts = archive.split_molecules(indices, seed=3)
    assert list(map(len, parts)) == [known, count - known]
    assert sorted(parts[0] + parts[1]) == indices
    assert all(part == sorted(part) for part in parts)


@pytest.mark.parametrize(("frames", "reference"), [(3, 2), (80, 64), (1000, 800), (5000, 4000)])
def test_four_fifths_of_the_steps_are_for_the_reference(archive, frames, reference):
    parts = archive.split_steps(frames, seed=3, index=17)
    assert list(map(len, parts)) == [reference, frames - reference]
    assert sorted(np.concatenate(parts)) == list(range(frames))


@pytest.mark.parametrize(("rows", "validation"), [(2, 1), (640, 6), (101, 1), (404_000, 4000)])
def test_one_row_of_a_hundred_and_one_validates(archive, rows, validation):
    parts = archive.split_ids(rows, seed=3)
    assert list(map(len, parts)) == [rows - validation, validation]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1, rows + 1))


def test_splits_depend_on_the_seed_and_steps_on_the_molecule(archive):
    assert archive.split_molecules(range(50), 1) == archive.split_molecules(range(50), 1)
    assert archive.split_molecules(range(50), 1) != archive.split_molecules(range(50), 2)
    steps = [
        archive.split_steps(50, seed, index)[0].tolist() for seed, index in ((1, 1), (1, 1), (1, 2), (2, 1))
    ]
    assert steps[0] == steps[1]
    assert steps[0] not in steps[2:]
    ids = [archive.split_ids(500, seed)[1].tolist() for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("seed", range(3))
def test_the_split_of_the_molecules_does_not_depend_on_their_order(archive, seed):
    assert archive.split_molecules([5, 3, 9, 1, 7], seed) == archive.split_molecules([1, 3, 5, 7, 9], seed)


METHANOL = Atoms(
    "COHHHH",
    [
        [-0.047, 0.664, 0.0],
        [-0.047, -0.758, 0.0],
        [-1.093, 0.97, 0.0],
        [0.878, -1.048, 0.0],
        [0.438, 1.072, 0.89],
        [0.438, 1.072, -0.89],
    ],
)


def test_bonds_are_pairs_near_each_other(script):
    found = script.bonds(METHANOL.numbers, METHANOL.positions)
    assert found.tolist() == [[0, 1], [0, 2], [0, 4], [0, 5], [1, 3]]


@pytest.mark.parametrize(("distance", "bonded"), [(1.85, True), (1.95, False)])
def test_carbons_are_bonded_up_to_1_9_angstrom(script, distance, bonded):
    found = script.bonds(np.array([6, 6]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]]))
    assert found.tolist() == ([[0, 1]] if bonded else [])


@pytest.mark.parametrize(
    ("atom", "shift", "force", "reason"),
    [
        (3, 0.0, 1.0, ""),
        (3, 0.4, 1.0, ""),
        (3, 0.7, 1.0, "bond 1-3 stretched to 1.67 Å"),
        (4, np.nan, 1.0, "bond 0-4 stretched to nan Å"),
        (3, 0.0, 25.0, "a force of 25 eV/Å"),
        (3, 0.0, np.nan, "a force of nan eV/Å"),
    ],
)
def test_a_frame_that_broke_is_noticed(script, atom, shift, force, reason):
    bonded = script.bonds(METHANOL.numbers, METHANOL.positions)
    relaxed = script.lengths(METHANOL.positions, bonded)
    frame = {"R": METHANOL.positions.copy(), "F": np.zeros((6, 3))}
    axis = METHANOL.positions[3] - METHANOL.positions[1]
    frame["R"][atom] += shift * axis / np.linalg.norm(axis)
    frame["F"][2, 0] = force
    assert script.defect(frame, bonded, relaxed) == reason


class Failing(EMT):
    """Fails at the third geometry."""

    geometries = 0

    def calculate(self, *args):
        self.geometries += 1
        if self.geometries == 3:
            raise CalculationFailed("no convergence")
        super().calculate(*args)


@pytest.mark.parametrize("calculator", [EMT, Failing])
def test_a_trajectory_is_sound_or_ends_with_the_reason(script, monkeypatch, calculator):
    monkeypatch.setattr(script, "EQUILIBRATION", 0)
    atoms = METHANOL.copy()  # EMT knows H, C and O well enough for some steps
    atoms.calc = calculator()
    records, problem = script.walk(atoms, 2, np.random.default_rng(0))
    expected = {EMT: (2, ""), Failing: (0, "the electrons did not converge in frame 0")}[calculator]
    assert (len(records), problem) == expected


def test_a_broken_bond_ends_the_trajectory(script, monkeypatch):
    monkeypatch.setattr(script, "EQUILIBRATION", 0)
    monkeypatch.setattr(script, "TEMPERATURE", 1e6)
    atoms = METHANOL.copy()
    atoms.calc = EMT()
    records, problem = script.walk(atoms, 50, np.random.default_rng(0))
    assert re.fullmatch(rf"(bond|a force) .* in frame {len(records) - 1}", problem)
    assert len(records) < 50


def fake_simulation(isomer, frames, seed):
    """Frames with a mark of isomer and step in each number; isomer 13 broke."""
    if isomer.index == 13:
        return {"defect": np.array("a force of 99 eV/Å")}
    mark = isomer.index + np.arange(frames) / 1000
    positions = np.arange(6.0).reshape(2, 3)
    return {
        "z": np.array([8, 1]),
        "R": positions + mark[:, None, None],
        "E": -mark,
        "F": np.zeros((frames, 2, 3)) + mark[:, None, None],
        "T": np.full(frames, 490.0),
        "relaxed_R": positions,
        "relaxed_E": np.array(-isomer.index - 0.5),
        "relaxed_F": np.zeros((2, 3)),
        "defect": np.array(""),
    }


@pytest.fixture
def simulate(script, monkeypatch, tmp_path):
    """Make a part of an isomer without xTB; ``simulate.calls`` are the isomers that were computed."""
    calls = []

    def fake(isomer, frames, seed):
        calls.append(isomer.index)
        return fake_simulation(isomer, frames, seed)

    monkeypatch.setattr(script, "simulate", fake)
    monkeypatch.setattr(script.importlib.metadata, "version", lambda name: "1.2.3")

    def make(index, frames=5, seed=1):
        isomer = script.Isomer(index, f"C{index}", [8, 1], [[0, 0, 0], [0, 0, 1]])
        return script.simulate_once((isomer, frames, seed, tmp_path))

    make.calls = calls
    return make


def test_an_isomer_that_was_simulated_is_not_simulated_again(simulate, tmp_path):
    first = simulate(7)
    assert simulate(7) == first
    assert simulate.calls == [7]
    assert [path.name for path in tmp_path.iterdir()] == ["000007.npz"]


def test_an_isomer_of_other_settings_is_simulated_again(simulate, script, monkeypatch):
    simulate(7)
    simulate(7, frames=6)
    simulate(7, frames=6, seed=2)
    monkeypatch.setattr(script, "TEMPERATURE", 300.0)
    simulate(7, frames=6, seed=2)
    assert simulate.calls == [7, 7, 7, 7]


def test_a_broken_isomer_is_remembered_as_such(simulate):
    assert simulate(13).defect == simulate(13).defect == "a force of 99 eV/Å"
    assert simulate.calls == [13]


def test_an_interrupted_simulation_leaves_nothing_that_counts(simulate, script, monkeypatch):
    def die(path, **_):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script.np, "savez", die)
        with pytest.raises(KeyboardInterrupt):
            simulate(7)
    simulate(7)
    assert simulate.calls == [7, 7]


class HerePool:
    """A pool of processes that is this process."""

    def __init__(self, processes):
        self.imap_unordered = map

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_the_next_isomer_takes_the_place_of_a_broken_one(simulate, script, monkeypatch, tmp_path):
    isomers = [script.Isomer(index, "C", [8, 1], [[0, 0, 0], [0, 0, 1]]) for index in range(11, 17)]
    monkeypatch.setattr(script, "read_isomers", lambda: isomers)
    here = types.SimpleNamespace(Pool=HerePool)
    monkeypatch.setattr(script.multiprocessing, "get_context", lambda _: here)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole, rest = script.simulate_all(3, 5, 1, tmp_path / "parts", processes=1)
    assert simulate.calls == [13, 14, 15, 11]  # the random order goes on with 16 and 12
    assert [part.isomer.index for part in whole] == [11, 14, 15]
    assert [(part.isomer.index, part.defect) for part in rest] == [(13, "a force of 99 eV/Å")]


@pytest.fixture
def written(simulate, archive, tmp_path):
    """An archive of five isomers, and the folder of its files."""
    parts = [simulate(index) for index in (3, 5, 7, 9, 11)]
    out = tmp_path / "out"
    out.mkdir()
    archive.write_archive(out / "new.tar.gz", parts, [simulate(13)], seed=1)
    assert [path.name for path in out.iterdir()] == ["new.tar.gz"]
    folder = tmp_path / "unpacked"
    folder.mkdir()
    return out / "new.tar.gz", unpack(out / "new.tar.gz", folder)


def test_an_archive_holds_what_was_simulated(written, archive):
    _, folder = written
    known, unseen = archive.split_molecules([3, 5, 7, 9, 11], seed=1)
    rows = {fold: read_rows(folder / f"{fold}.db") for fold in FOLDS}
    assert {fold: len(rows[fold]) for fold in FOLDS} == {
        "reference": 16,
        "reference_eq": 4,
        "test_within": 4,
        "test_other": 5,
        "test_eq": 1,
    }
    for fold in ("reference", "test_within", "test_other"):
        for row in rows[fold]:
            mark = row.isomer + row.frame / 1000
            assert row.total_energy == -mark
            assert row.positions[0].tolist() == pytest.approx([mark, 1 + mark, 2 + mark], abs=1e-14)
            assert row.data["atomic_forces"] == [[mark] * 3] * 2
    assert [row.isomer for row in rows["reference_eq"]] == known
    assert [(row.isomer, row.total_energy) for row in rows["test_eq"]] == [(unseen[0], -unseen[0] - 0.5)]


def test_the_readme_of_an_archive_names_the_molecules_and_what_was_left_out(written):
    text = (written[1] / "README").read_text(encoding="utf-8")
    assert text.startswith("STAND-IN: this is not ISO17.")
    assert "5 isomers of C7H10O2, drawn from QM9, 5 frames each, 1 fs apart" in text
    assert "at 500 K (measured: 490.0 K), time step 0.5 fs, friction 0.02 1/fs, after\n500 fs" in text
    assert "Seed 1, tblite 1.2.3, ase 1.2.3." in text
    assert text.count("C11\n") == 1
    assert "Left out, as they did not stay whole:\n      13  C13: a force of 99 eV/Å\n" in text


def test_the_same_parts_give_the_same_bytes(written, simulate, archive, tmp_path):
    first, _ = written
    parts = [simulate(index) for index in (3, 5, 7, 9, 11)]
    archive.write_archive(tmp_path / "again.tar.gz", parts, [simulate(13)], seed=1)
    assert gzip.decompress((tmp_path / "again.tar.gz").read_bytes()) == gzip.decompress(first.read_bytes())
    assert (tmp_path / "again.tar.gz").read_bytes() == first.read_bytes()


def test_an_interrupted_archive_keeps_the_old_one(simulate, archive, tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "old.tar.gz"
    path.write_bytes(b"old")
    monkeypatch.setattr(archive, "pack", die)
    with pytest.raises(KeyboardInterrupt):
        archive.write_archive(path, [simulate(3), simulate(5), simulate(7)], [], seed=1)
    assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [("old.tar.gz", b"old")]


def test_isomers_are_read_from_the_csv_files_of_a_package_that_is_not_imported(script, tmp_path, monkeypatch):
    data = tmp_path / "qm9pack" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise AssertionError")
    for part in (1, 2, 3):
        lines = [
            "Index,SMILES,Stoichiometry,Elements,XYZ_Ang",
            f"""{part},C,"[4,1,0,0,0]","['C','H','H','H','H']","[[0,0,0]]\"""",
            f"""{part}0,CO,"[10,7,0,2,0]","['C','O','H']","[[0.,1,2.5],[3,4,5],[6,7,8]]\"""",
        ]
        (data / f"qm9_part{part}.csv").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    isomers = script.read_isomers()
    assert [isomer.index for isomer in isomers] == [10, 20, 30]
    assert isomers[0].smiles == "CO"
    assert isomers[0].numbers == [6, 8, 1]
    assert isomers[0].positions == [[0.0, 1, 2.5], [3, 4, 5], [6, 7, 8]]


def test_a_missing_package_is_named_with_its_installation(script, monkeypatch):
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"QM9.*install.*qm9pack==1\.0\.3"):
        script.read_isomers()


@pytest.mark.nightly  # seconds
def test_qm9_has_6094_isomers_of_c7h10o2(script):
    if importlib.util.find_spec("qm9pack") is None:
        pytest.skip("qm9pack is not installed")
    isomers = script.read_isomers()
    assert len({isomer.index for isomer in isomers}) == len(isomers) == 6094
    first = isomers[0]
    assert (first.index, first.smiles) == (26093, "CC(C)(O)C1=CC=CO1")
    assert sorted(first.numbers) == [1] * 10 + [6] * 7 + [8] * 2
    assert np.shape(first.positions) == (19, 3)


@pytest.mark.parametrize("arguments", [["--isomers", "2"], ["--frames", "2"], ["--isomers", "0"]])
def test_too_few_isomers_or_frames_for_all_folds_are_refused(script, monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["make_standin.py", *arguments])
    with pytest.raises(SystemExit):
        script.main()
    assert "`--isomers` and `--frames` must be at least 3, got" in capsys.readouterr().err


def test_xtb_relaxes_an_isomer_and_keeps_its_bonds(script, xtb):
    numbers, positions = METHANOL.numbers.tolist(), (1.03 * METHANOL.positions).tolist()
    atoms, problem = script.relax(script.Isomer(1, "CO", numbers, positions))
    assert problem == ""
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.002
    assert script.lengths(atoms.positions, np.array([[1, 3]]))[0] == pytest.approx(0.96, abs=0.01)  # Å


def test_settings_are_json(script, monkeypatch):
    monkeypatch.setattr(script.importlib.metadata, "version", lambda name: "1.2.3")
    settings = json.loads(script.describe_settings(80, 17))
    assert (settings["frames"], settings["seed"], settings["interval"]) == (80, 17, 1.0)
