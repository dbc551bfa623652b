"""Properties of structures and atoms are read under any name from every format, and counted where known."""

import json
import re

import ase.db
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write
from torch.testing import assert_close

from pyg_schnet import cli
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets import base as datasets
from pyg_schnet.datasets.references import isolated_atoms
from pyg_schnet.datasets.report.summary import summarize
from pyg_schnet.io.formats import records
from pyg_schnet.loader import collate
from pyg_schnet.plots import plot_data_set

NAN = float("nan")
GAPS = [7.5, NAN, 6.25]
DIPOLES = [5.0, 13.0, 0.0]
CHARGES = [-0.8, 0.4, 0.4, -0.5, 0.125, 0.125, 0.125, 0.125, 0.25, -0.25]
Z = [[8, 1, 1], [6, 1, 1, 1, 1], [1, 9]]
VECTORS = [[3.0, 4.0, 0.0], [0.0, -5.0, 12.0], [0.0, 0.0, 0.0]]
NAMES = ("gap", "dipole", "charges")


def positions():
    rng = np.random.default_rng(0)
    return [2 * rng.normal(size=(len(z), 3)) for z in Z]


def of_atoms(number):
    start = sum(map(len, Z[:number]))
    return np.array(CHARGES[start : start + len(Z[number])])


def structures():
    """Make water, methane and hydrogen fluoride; methane has no gap."""
    made = []
    for number, (z, pos) in enumerate(zip(Z, positions(), strict=True)):
        atoms = Atoms(z, pos)
        results = {"energy": -1.5 - number, "dipole": np.array(VECTORS[number]), "charges": of_atoms(number)}
        atoms.calc = SinglePointCalculator(atoms, **results)
        if not np.isnan(GAPS[number]):
            atoms.info["gap"] = GAPS[number]
        made.append(atoms)
    return made


def padded(rows):
    found = np.zeros((3, 5, *np.shape(rows[0])[1:]))
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return found


@pytest.fixture
def everywhere(tmp_path, write, write_hdf5):
    """Write the three structures to a file of each format."""

    def to_file(kind):
        path = tmp_path / f"frames.{kind.split()[0]}"
        per_frame = {
            "energy": np.array([-1.5, -2.5, -3.5]),
            "gap": np.array(GAPS),
            "dipole": np.array(VECTORS),
        }
        if kind in ("extxyz", "traj"):
            ase_write(path, structures())
        elif kind in ("db", "json"):
            with ase.db.connect(path) as file:
                for atoms in structures():
                    file.write(atoms, key_value_pairs=atoms.info)
        elif kind == "db data":
            with ase.db.connect(path) as file:
                for number, atoms in enumerate(structures()):
                    values = {**atoms.info, "energy": [-1.5 - number], "dipole": np.array([VECTORS[number]])}
                    values["charges"] = of_atoms(number)[:, None]
                    file.write(Atoms(atoms.numbers, atoms.positions), data=values)
        elif kind == "npz":
            charges = padded([of_atoms(number) for number in range(3)])
            arrays = {"numbers": padded(Z).astype(int), "positions": padded(positions()), "charges": charges}
            write(arrays | per_frame, path.name)
        elif kind == "npz n_atoms":
            arrays = {"numbers": np.concatenate(Z), "positions": np.concatenate(positions())}
            write(
                arrays | per_frame | {"n_atoms": np.array([3, 5, 2]), "charges": np.array(CHARGES)}, path.name
            )
        elif kind == "h5":
            groups = {}
            for number, (z, pos) in enumerate(zip(Z, positions(), strict=True)):
                own = {name: values[number : number + 1] for name, values in per_frame.items()}
                own |= {"charges": of_atoms(number)[None, :, None]}
                if np.isnan(GAPS[number]):
                    del own["gap"]
                groups["abc"[number]] = {"atomic_numbers": np.array(z), "positions": pos[None], **own}
            write_hdf5(groups, path.name)
        elif kind == "pymatgen.json":
            entries = []
            for number, (atoms, pos) in enumerate(zip(structures(), positions(), strict=True)):
                sites = [
                    {"species": [{"element": symbol, "occu": 1}], "xyz": xyz.tolist()}
                    for symbol, xyz in zip(atoms.symbols, pos, strict=True)
                ]
                structure = {"lattice": {"matrix": np.diag([9.0, 9.0, 9.0]).tolist()}, "sites": sites}
                outputs = {"energy": -1.5 - number, "gap": None if np.isnan(GAPS[number]) else GAPS[number]}
                outputs |= {"dipole": VECTORS[number], "charges": of_atoms(number).tolist()}
                entries.append({"structure": structure, "outputs": outputs})
            path.write_text(json.dumps(entries))
        return path

    return to_file


KINDS = ("extxyz", "traj", "db", "json", "db data", "npz", "npz n_atoms", "h5", "pymatgen.json")


def make(path, *args, **options):
    units = None if path.suffix not in (".npz", ".h5") else "eV"
    return AtomsDataset(*args, path=path, units=units, properties=NAMES, **options)


@pytest.mark.parametrize("key", [None, "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_properties_are_read_from_every_format(everywhere, kind, key):
    dataset = make(everywhere(kind), energy_key=key)
    assert dataset.has_energy == ("energy" in dataset[0]) == (key is None)
    assert [dataset[0][name].shape for name in NAMES] == [(1,), (1,), (3,)]
    for name, expected in zip(NAMES, (GAPS, DIPOLES, CHARGES), strict=True):
        assert_close(
            getattr(dataset, name),
            torch.tensor(expected, dtype=torch.float64),
            equal_nan=True,
            rtol=0,
            atol=1e-8,
        )
    assert "length of the vector" in dataset.labels["dipole"]
    assert dataset.labels["gap"].startswith("'gap'")
    assert "length" not in dataset.labels["charges"]
    assert dataset.properties == NAMES


@pytest.mark.parametrize("kind", KINDS)
def test_what_could_be_a_property_is_listed(everywhere, kind):
    path = everywhere(kind)
    dataset = AtomsDataset(path=path, units="eV" if path.suffix in (".npz", ".h5") else None)
    assert dataset.available == {"gap": "structure", "dipole": "structure", "charges": "atom"}
    assert dataset.properties == ()


def test_properties_of_a_system_of_deepmd_kit(tmp_path):
    (tmp_path / "set.000").mkdir()
    (tmp_path / "set.001").mkdir()
    for name, text in (("type.raw", "0\n1\n"), ("type_map.raw", "H\nF\n"), ("nopbc", "")):
        (tmp_path / name).write_text(text)
    for number, values in enumerate(({"gap": [1.0, 2.0]}, {"charge": [[0.5, -0.5], [0.25, -0.25]]})):
        arrays = {"coord": np.array([[0, 0, 0, 0, 0, 1.0], [0, 0, 0, 0, 1.0, 0]]), **values}
        for name, array in arrays.items():
            np.save(tmp_path / f"set.{number:03d}" / f"{name}.npy", array)
    dataset = AtomsDataset(path=tmp_path, energy_key="none", properties=("gap", "charge"))
    assert_close(dataset.gap, torch.tensor([1.0, 2.0, NAN, NAN]).double(), equal_nan=True)
    assert_close(dataset.charge, torch.tensor([NAN] * 4 + [0.5, -0.5, 0.25, -0.25]).double(), equal_nan=True)


def test_processed_copies_hold_properties(everywhere, tmp_path):
    path = everywhere("extxyz")
    whole = make(path)
    for options in ({}, {"memory_map": True}):
        copy = make(path, tmp_path / "root", **options)
        assert (copy.labels, copy.available, copy.properties) == (whole.labels, {}, NAMES)
        for one, other in zip(copy, whole, strict=True):
            assert one.keys() == other.keys()
            assert_close(one.to_dict(), other.to_dict(), equal_nan=True)
        assert copy.references("charges").energy.tolist() == whole.references("charges").energy.tolist()


def test_other_properties_are_another_processed_file_and_none_are_that_of_before(everywhere, tmp_path):
    path = everywhere("extxyz")
    plain, some = AtomsDataset(tmp_path / "root", path), make(path, tmp_path / "root")
    fewer = AtomsDataset(tmp_path / "root", path, properties=("gap",))
    assert len({one.processed_file_names for one in (plain, some, fewer)}) == 3
    assert plain.recipe.keys() == {"files", "keys", "units"}
    assert plain.recipe["keys"] == [None, None, None]
    assert some.recipe == plain.recipe | {"properties": list(NAMES)}
    assert AtomsDataset(tmp_path / "root", path).available == plain.available != {}


def test_a_processed_file_is_opened_without_its_energies(everywhere, tmp_path):
    made = make(everywhere("extxyz"), tmp_path / "root")
    for options in ({}, {"memory_map": True}):
        opened = AtomsDataset(
            path=made.processed_paths[0], energy_key="none", properties=("gap", "charges"), **options
        )
        assert "energy" not in opened[0]
        assert opened.properties == NAMES  # all fields are kept
        assert opened.labels == {"gap": "'gap'", "charges": "'charges'"}
        assert opened.available == {"dipole": "structure"}
    with pytest.raises(ValueError, match=r"`properties` must name.* 'gap', 'dipole', 'charges'; got 'homo'"):
        AtomsDataset(path=made.processed_paths[0], properties=("homo",))


def test_a_subset_has_its_own_properties(everywhere):
    subset = make(everywhere("extxyz"))[[2, 0]]
    assert subset.statistics("gap").count == 2
    assert subset.compositions("charges").counts.sum(0).nonzero().flatten().tolist() == [1, 8, 9]
    assert collate(subset, [0, 1]).charges.tolist() == [0.25, -0.25, -0.8, 0.4, 0.4]


@pytest.mark.parametrize("late", [1, 4, 6])
def test_a_property_that_begins_late_is_missing_before(tmp_path, monkeypatch, late):
    """Structures are read in pieces, of which the first has no value that shows the shape."""
    monkeypatch.setattr(records, "_STRUCTURES_AT_ONCE", 2)
    frames = [Atoms("OH", [[0, 0, 0], [0, 0, 1 + 0.1 * n]], info={"energy": 1.0 * n}) for n in range(7)]
    for n in range(late, 7):
        frames[n].info["gap"] = 1.0 * n
        frames[n].arrays["spin"] = np.array([n, -n])
    ase_write(tmp_path / "a.extxyz", frames)
    dataset = AtomsDataset(tmp_path, tmp_path / "a.extxyz", properties=("gap", "spin"), memory_map=True)
    expected = torch.tensor([NAN] * late + list(range(late, 7))).double()
    assert_close(dataset.gap, expected, equal_nan=True)
    assert_close(dataset.spin.view(7, 2), torch.stack([expected, -expected], 1), equal_nan=True)
    assert dataset.statistics("spin").missing == 2 * late


def test_single_atoms_come_before_and_after_molecules(tmp_path):
    for name, symbols in (("a", "H"), ("b", "OH"), ("c", "F")):
        atoms = Atoms(symbols, np.arange(3.0 * len(symbols)).reshape(-1, 3), info={"energy": 0.0, "gap": 2.0})
        atoms.arrays["spin"] = np.full(len(symbols), 1.0)
        ase_write(tmp_path / f"{name}.extxyz", atoms)
    files = [tmp_path / f"{name}.extxyz" for name in "abc"]
    dataset = AtomsDataset(path=files, properties=("gap", "spin"))
    assert [item.spin.tolist() for item in dataset] == [[1.0], [1.0, 1.0], [1.0]]
    assert [item.gap.tolist() for item in dataset] == [[2.0]] * 3
    assert AtomsDataset(path=files[0], properties=("spin",))[0].spin.tolist() == [1.0]
    assert AtomsDataset(path=files[0]).available == {"gap": "structure", "spin": "atom"}


def test_statistics_count_known_values_only(everywhere, monkeypatch):
    monkeypatch.setattr(datasets, "_STRUCTURES_AT_ONCE", 2)
    dataset = make(everywhere("extxyz"))
    gap, charges = dataset.statistics("gap"), dataset.statistics("charges")
    assert (gap.count, gap.missing, gap.mean, gap.std, gap.min, gap.max) == (2, 1, 6.875, 0.625, 6.25, 7.5)
    assert (charges.count, charges.missing) == (10, 0)
    assert charges.mean == pytest.approx(np.mean(CHARGES), abs=1e-15)
    assert charges.std == pytest.approx(np.std(CHARGES), rel=1e-14)
    assert dataset.statistics().mean == -2.5


def test_references_are_fitted_to_structures_with_a_label(tmp_path):
    frames = []
    for formula, value in (("H2", 2.0), ("O2", 20.0), ("H2O", 14.0), ("CH4", None)):
        atoms = Atoms(formula)
        atoms.positions = np.arange(3.0 * len(atoms)).reshape(-1, 3)
        atoms.info = {"energy": 1.0} if value is None else {"energy": 1.0, "zpve": value}
        atoms.arrays["spin"] = np.where(atoms.numbers == 1, 0.5, np.where(atoms.numbers == 8, -1.0, NAN))
        frames.append(atoms)
    ase_write(tmp_path / "a.extxyz", frames)
    dataset = AtomsDataset(path=tmp_path / "a.extxyz", energy_key="none", properties=("zpve", "spin"))
    counts, values = np.array([[2, 0], [0, 2], [2, 1]]), np.array([2.0, 20.0, 14.0])
    fitted = np.linalg.lstsq(counts, values, rcond=None)[0]
    found = dataset.references("zpve")
    assert found.elements == (1, 8)  # no structure with carbon has a label
    assert_close(found.energy[[1, 8]], torch.from_numpy(fitted))
    residual = (values - counts @ fitted) / counts.sum(1)
    assert dataset.scale(name="zpve") == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-12)
    assert dataset.references("spin").energy[[1, 6, 8]].tolist() == pytest.approx([0.5, 0.0, -1.0])
    assert sorted(dataset.compositions("spin").frames.tolist()) == [3.0, 8.0]  # O and H
    assert dataset.scale(name="spin") == 1.0
    assert dataset.elements() == [1, 6, 8]


def refused(path, **options):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the tests compare the message
        AtomsDataset(path=path, **options)
    return str(caught.value)


def test_a_property_that_no_structure_has_is_refused_with_those_that_there_are(everywhere):
    path = everywhere("extxyz")
    assert refused(path, properties=("gap", "homo")) == (
        f"{path}: no structure has a property 'homo', but for a structure: 'dipole', 'gap'; for an atom: "
        "'charges'; choose another, or leave it out of `properties`"
    )


@pytest.mark.parametrize("kind", ["npz", "h5", "extxyz"])
def test_values_that_are_no_numbers_of_structures_or_atoms_are_refused(tmp_path, write, write_hdf5, kind):
    pos = np.array([[[0.0, 0, 0], [0, 0, 1]], [[0.0, 0, 0], [0, 0, 2]]])
    arrays = {
        "numbers": np.array([8, 1]),
        "positions": pos,
        "energy": np.zeros(2),
        "tensor": np.ones((2, 3, 3)),
    }
    if kind == "extxyz":
        ase_write(
            tmp_path / "frames.extxyz", Atoms("OH", pos[0], info={"energy": 0.0, "tensor": np.ones((3, 3))})
        )
        path = tmp_path / "frames.extxyz"
    else:
        path = write(arrays) if kind == "npz" else write_hdf5({"a": arrays})
    text = refused(path, properties=("tensor",), units="eV")
    assert "'tensor' must be numbers of shape (" in text
    assert "3, 3)" in text


def test_a_property_is_of_structures_or_of_atoms_in_all_files(tmp_path):
    for name, value in (("a", 1.0), ("b", np.array([1.0, 2.0]))):
        atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], info={"energy": 0.0, "spin": value})
        ase_write(tmp_path / f"{name}.extxyz", [atoms] if name == "a" else [atoms, atoms])
    one, other = tmp_path / "a.extxyz", tmp_path / "b.extxyz"
    assert "must have a value for each structure everywhere" in refused([one, other], properties=("spin",))
    both = tmp_path / "c.extxyz"
    both.write_text(one.read_text() + other.read_text())
    assert "must be numbers of shape (), got" in refused(both, properties=("spin",))


def test_infinite_values_are_refused(tmp_path):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], info={"energy": 0.0, "gap": float("inf")})
    ase_write(tmp_path / "a.extxyz", atoms)
    assert "have a finite 'gap' or NaN, got infinity in frame 0" in refused(
        tmp_path / "a.extxyz", properties=("gap",)
    )


@pytest.mark.parametrize(
    "name", ["z", "pos", "energy", "forces", "my_index", "batch", "num_nodes", "_gap", ""]
)
def test_names_of_other_fields_are_refused(everywhere, name):
    text = refused(everywhere("extxyz"), properties=("gap", name))
    assert re.match("`properties` must not have names of other fields", text)
    assert f"got '{name}'" in text


def test_a_name_is_given_once(everywhere):
    assert "got 'gap' twice" in refused(everywhere("extxyz"), properties=("gap", "gap"))


@pytest.mark.parametrize("kind", ["forces", "stress"])
def test_forces_and_stresses_are_not_read_without_energies(everywhere, kind):
    text = refused(everywhere("extxyz"), energy_key="none", **{f"{kind}_key": kind})
    assert text.startswith(f"`{kind}_key` must be left out where `energy_key` is 'none'")


@pytest.mark.parametrize(
    "method", ["compositions", "references", "scale", "atomref", "energy_std", "statistics"]
)
def test_statistics_of_energies_need_energies(everywhere, method):
    dataset = make(everywhere("extxyz"), energy_key="none")
    with pytest.raises(ValueError, match=r"`energy` must be among the labels.* `energy_key`"):
        getattr(dataset, method)()


def test_an_unknown_or_empty_label_is_refused(tmp_path):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], info={"energy": 0.0, "gap": NAN})
    ase_write(tmp_path / "a.extxyz", atoms)
    dataset = AtomsDataset(path=tmp_path / "a.extxyz", properties=("gap",))
    with pytest.raises(ValueError, match="must be a label of the data, one of 'energy', 'gap'; got 'mu'"):
        dataset.references("mu")
    with pytest.raises(ValueError, match="`gap` must be known for at least one structure"):
        dataset.references("gap")
    assert (dataset.statistics("gap").count, dataset.statistics("gap").missing) == (0, 1)


def test_a_summary_without_energies_counts_properties(everywhere):
    dataset = make(everywhere("extxyz"), energy_key="none")
    summary = summarize(dataset, ("gap",))
    assert (summary.energy, summary.forces, summary.energy_outliers, summary.read_as) == (None,) * 4
    assert (summary.structures, summary.elements, summary.copies.number) == (3, ("H", "C", "O", "F"), 0)
    assert summary.properties == {"gap": dataset.statistics("gap")}
    assert summary.available == {"dipole": "structure", "charges": "atom"}
    assert json.loads(json.dumps(summary.as_dict(), allow_nan=False))["properties"]["gap"]["missing"] == 1
    assert isolated_atoms(dataset) == {}


def test_copies_are_found_without_energies(tmp_path):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], info={"gap": 1.0})
    ase_write(tmp_path / "a.extxyz", [atoms, atoms])
    summary = summarize(
        AtomsDataset(path=tmp_path / "a.extxyz", energy_key="none", properties=("gap",)), ("gap",)
    )
    assert (summary.copies.example, summary.copies.energy_difference) == ((1, 0), 0.0)
    assert "All values of 'gap' are 1: there is nothing to learn; check the key." in summary.warnings


def test_a_picture_without_energies_shows_sizes(everywhere):
    figure = plot_data_set(make(everywhere("extxyz"), energy_key="none"))
    assert [axes.get_xlabel() for axes in figure.axes] == ["number of atoms"]


def test_the_command_shows_properties(everywhere, capsys):
    path = str(everywhere("extxyz"))
    assert cli.main(["data", path, "--energy_key", "none", "--properties", "gap, charges"]) == 0
    page = capsys.readouterr().out
    assert re.search(r"gap +2 +6\.875 +0\.6250 +6\.250 +7\.500", page)
    assert re.search(r"other values +dipole", page)
    assert "'gap' (info), in the unit of the file" in page
    assert cli.main(["data", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["summary"]
    assert found["available"] == {"gap": "structure", "dipole": "structure", "charges": "atom"}
    assert found["properties"] == {}
