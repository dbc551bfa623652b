"""The summary of a data set: its numbers by hand, and every warning on a set that deserves it alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from pyg_schnet.datasets import AtomsDataset, streaming
from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.report.summary import summarize
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.io.formats.frames import Frames
from pyg_schnet.io.units import Units, kcal_per_mol

LIQUID = Path(__file__).parents[3] / "../shared/data/periodic/water"
FREE_ATOMS = -75.809398 * 27.211386  # eV; O and two H
WATER = np.array([[0.0, 0.0, 0.1], [0.0, 0.8, -0.5], [0.0, -0.8, -0.5]])


class InMemory(MoleculeDataset):
    """Frames as a data set, without a check."""

    def __init__(self, frames: Frames, units: Units | None = None, **options):
        self.frames = frames
        if units is not None:
            self.units = units
        super().__init__(None, dtype=torch.float64, **options)

    def chunks(self):
        yield Chunk.from_frames(self.frames)


def springs(pos: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy (frames,) and forces (frames, atoms, 3) of springs of 30 eV/Å² between all atoms."""
    vector = pos[:, :, None] - pos[:, None]
    distance = np.linalg.norm(vector, axis=3) + np.eye(pos.shape[1])
    stretch = distance - np.linalg.norm(rest[:, None] - rest, axis=2) - np.eye(pos.shape[1])
    forces = -30 * ((stretch / distance)[..., None] * vector).sum(2)
    return 7.5 * (stretch**2).sum((1, 2)), forces


def water(number: int = 60, seed: int = 0) -> Frames:
    """Water at work: nothing is wrong with it."""
    rng = np.random.default_rng(seed)
    pos = WATER + rng.normal(0, 0.05, (number, 3, 3))
    energy, forces = springs(pos, WATER)
    return Frames(
        numbers=np.tile(np.array([8, 1, 1], dtype=np.uint8), number),
        positions=pos.reshape(-1, 3),
        counts=np.full(number, 3),
        energy=1.005 * FREE_ATOMS + energy,
        forces=forces.reshape(-1, 3),
    )


def warnings(frames: Frames, **options) -> tuple[str, ...]:
    return summarize(InMemory(frames, **options)).warnings


def printed(frames: Frames, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summarize(InMemory(frames)))
    console.file.close()
    return console.export_text()


def rounded(frames: Frames) -> dict:
    """The summary without the last digits, which depend on the order of sums."""
    text = json.dumps(summarize(InMemory(frames)).as_dict())
    return json.loads(text, parse_float=lambda number: round(float(number), 9))


@pytest.fixture
def two() -> Frames:
    """OH and HF, by hand."""
    return Frames(
        numbers=np.array([8, 1, 9, 1], dtype=np.uint8),
        positions=np.array([[0.0, 0, 0], [0, 0, 1.0], [0, 0, 0], [3.0, 4.0, 0]]),
        counts=np.array([2, 2]),
        energy=np.array([-2.0, -4.0]),
        forces=np.array([[0.0, 0, 3], [0, 0, -1.0], [0, 0, 0], [-2.0, 1.0, 0]]),
        stress=np.array([np.eye(3), 2 * np.eye(3)]),
        cell=np.array([np.eye(3), np.eye(3)]),
        pbc=np.zeros((2, 3), dtype=bool),
    )


def test_the_numbers_are_those_by_hand(two):
    summary = summarize(InMemory(two))
    assert summary.structures == 2
    assert summary.atoms == (2, 2.0, 2)
    assert summary.elements == ("H", "O", "F")
    assert summary.compositions == 2
    assert set(summary.frequent) == {("HO", 1), ("HF", 1)}
    assert summary.periodic == 0
    energy = summary.energy
    assert (energy.min, energy.mean, energy.max) == (-4.0, -3.0, -2.0)
    assert energy.std == pytest.approx(2**0.5)
    assert energy.spread_per_atom == pytest.approx(0, abs=1e-12)  # two compositions, three elements
    assert summary.forces.rms == pytest.approx(((9 + 1 + 4 + 1) / 12) ** 0.5)
    assert (summary.forces.largest, summary.forces.largest_in) == (3.0, 0)
    assert summary.forces.net_rms == pytest.approx(((4 + 4 + 1) / 6) ** 0.5)
    assert summary.forces.net_share == pytest.approx(((4 + 4 + 1) / 2 / (9 + 1 + 4 + 1)) ** 0.5)
    assert summary.stress.rms == pytest.approx(((3 + 12) / 18) ** 0.5)
    assert summary.stress.largest == 2.0
    assert (summary.distances.shortest, summary.distances.shortest_in) == (1.0, 0)
    assert (summary.distances.solitary, summary.distances.solitary_in) == (5.0, 1)


def test_the_spread_is_what_references_leave():
    """Two of one composition, 0.6 eV apart: 0.1 eV an atom from the mean each."""
    summary = summarize(InMemory(replace(water(2), energy=np.array([-100.0, -100.6]))))
    assert summary.energy.spread_per_atom == pytest.approx(0.1)


def test_the_spread_is_the_scale_of_a_set_without_forces():
    dataset = InMemory(replace(water(), forces=None))
    assert summarize(dataset).energy.spread_per_atom == pytest.approx(dataset.scale())


def test_the_most_frequent_compositions_come_first():
    counts = np.array([1, 1, 2, 1])
    frames = Frames(
        np.array([1, 9, 1, 1, 9], np.uint8), np.eye(5, 3) + np.arange(5)[:, None], counts, np.arange(4.0)
    )
    summary = summarize(InMemory(frames))
    assert summary.frequent[0] == ("F", 2)
    assert set(summary.frequent[1:]) == {("H", 1), ("H2", 1)}


def test_in_many_parts_it_is_the_same(monkeypatch, two):
    whole = [rounded(frames) for frames in (water(), two)]
    monkeypatch.setattr(streaming, "_STRUCTURES_AT_ONCE", 7)
    assert [rounded(frames) for frames in (water(), two)] == whole
    monkeypatch.setattr(streaming, "_ATOMS_AT_ONCE", 1)
    assert [rounded(frames) for frames in (water(), two)] == whole


def test_a_subset_is_summarized_alone(two):
    summary = summarize(InMemory(two)[[1]])
    assert (summary.structures, summary.elements, summary.energy.mean) == (1, ("H", "F"), -4.0)
    assert summary.energy.std == 0


def test_structures_of_a_part_are_numbered_as_in_the_whole():
    frames = water()
    frames.energy[41] += 1e4
    frames.positions[3 * 43 + 1] = frames.positions[3 * 43] + [0.3, 0, 0]
    part = InMemory(frames)[torch.arange(59, 0, -2)]
    summary = summarize(part)
    assert summary.energy_outliers.worst == 41
    assert summary.distances.shortest_in == 43
    assert summary.forces.largest_in % 2 == 1


def test_transforms_are_left_out():
    def refuse(data):
        raise AssertionError("the transform was called")

    dataset = InMemory(water(), transform=refuse)
    assert summarize(dataset).structures == 60
    assert dataset.transform is refuse


def test_a_set_from_disk_gives_the_same(tmp_path):
    class OnDisk(InMemory):
        processed_file_names = "set.safetensors"

        def __init__(self, frames, root):
            self.frames = frames
            MoleculeDataset.__init__(self, root, dtype=torch.float64, memory_map=True)

    assert summarize(OnDisk(water(), str(tmp_path))) == summarize(InMemory(water()))


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match=r"^`dataset`.*at least.*structure.*0"):
        summarize(InMemory(water())[[]])


def test_json_holds_everything_and_kcal_beside(two):
    table = json.loads(json.dumps(summarize(InMemory(two)).as_dict(), allow_nan=False))
    assert table["energy"]["min_kcal"] == pytest.approx(-4.0 / kcal_per_mol)
    assert table["forces"]["largest_kcal"] == pytest.approx(3.0 / kcal_per_mol)
    assert table["distances"]["shortest"] == 1.0
    assert isinstance(table["warnings"], list)


def test_json_knows_no_infinity(two):
    lonely = replace(two, cell=np.array([30 * np.eye(3)] * 2), pbc=np.ones((2, 3), dtype=bool))
    lonely = replace(lonely, positions=lonely.positions * [[1], [15], [1], [1]])
    summary = summarize(InMemory(lonely))
    assert summary.distances.solitary == float("inf")
    assert json.loads(json.dumps(summary.as_dict(), allow_nan=False))["distances"]["solitary"] is None


@pytest.mark.parametrize("forces", [True, False])
def test_the_page_fits_80_columns_and_has_units_on_every_number(two, forces):
    text = printed(two if forces else replace(two, forces=None, stress=None))
    assert max(len(line) for line in text.splitlines()) <= 80
    rows = [
        line for line in text.splitlines() if line.lstrip().startswith(("energy", "net", "largest", "stress"))
    ]
    assert len(rows) == (5 if forces else 1)
    for row in rows:
        assert "eV" in row
        assert "kcal/mol" in row or "GPa" in row
    assert ("eV/Å³" in text) == forces


def test_the_page_shows_energies_in_ev_and_kcal(two):
    row = next(line for line in printed(two).splitlines() if "lowest" in line)
    assert row.split() == ["energy,", "lowest", "-4.000", "eV", "-92.242", "kcal/mol"]


def test_the_page_ends_with_the_warnings():
    text = " ".join(printed(replace(water(), energy=np.full(60, -2000.0))).split())
    assert "Warnings * All energies are -2000 eV" in text
    assert "No warnings." in printed(water())


@pytest.mark.parametrize(("energy", "side"), [(1e6, "above"), (-1e6, "below"), (100.0, "above")])
def test_an_energy_far_from_all_others_is_reported(energy, side):
    frames = water()
    frames.energy[17] += energy
    told = [text for text in warnings(frames) if text.startswith("The energy of structure 17 is")]
    assert len(told) == 1
    assert f"{energy / 3:.3g}".lstrip("-")[:4] in told[0]
    assert side in told[0]


def test_an_energy_far_from_those_of_other_compositions_is_reported():
    """Of each composition there are too few to compare."""
    rng = np.random.default_rng(0)
    counts = rng.integers(3, 12, 60)
    numbers = rng.choice(np.array([1, 6, 8], np.uint8), counts.sum())
    energy = np.array([np.array([13.6, 1035.0, 2040.0])[np.searchsorted([1, 6, 8], own)].sum()
                       for own in np.split(numbers, np.cumsum(counts)[:-1])])  # fmt: skip
    frames = Frames(numbers, 3.0 * np.arange(3 * counts.sum()).reshape(-1, 3), counts, -energy - 4.0 * counts)
    assert not [text for text in warnings(frames) if text.startswith("The energy")]
    frames.energy[31] += 1e5
    (told,) = [text for text in warnings(frames) if text.startswith("The energy")]
    assert told.startswith("The energy of structure 31 is")


def test_a_force_far_from_all_others_is_reported():
    frames = water()
    frames.forces[3 * 17 : 3 * 17 + 2] += np.array([[1000.0, 0, 0], [-1000.0, 0, 0]])
    told = [text for text in warnings(frames) if text.startswith("A force of structure 17 is")]
    assert len(told) == 1


def test_several_outliers_are_counted_and_the_farthest_is_named():
    frames = water()
    frames.energy[[3, 17, 40]] += [100, 5000, -300]
    (told,) = [text for text in warnings(frames) if text.startswith("The energy")]
    assert told.startswith("The energy of structure 17 is")
    assert "and 2 more are as far" in told


def test_curves_of_dimers_and_atoms_alone_hold_no_outliers():
    distance = np.geomspace(0.4, 6, 60)
    decay = np.exp(-1.9 * (distance - 0.74))
    pull = 2 * 4.7 * 1.9 * decay * (1 - decay)
    zero = np.zeros_like(pull)
    frames = Frames(
        numbers=np.full(130, 1, np.uint8),
        positions=np.concatenate(
            [np.stack([0 * distance, zero, zero, distance, zero, zero], 1).reshape(-1, 3), np.zeros((10, 3))]
        ),
        counts=np.array([2] * 60 + [1] * 10),
        energy=np.concatenate([4.7 * ((1 - decay) ** 2 - 1) - 27.2, np.full(10, -13.6)]),
        forces=np.concatenate(
            [np.stack([pull, zero, zero, -pull, zero, zero], 1).reshape(-1, 3), np.zeros((10, 3))]
        ),
    )
    assert not [text for text in warnings(frames) if "of structure" in text and "others" in text]


def test_charges_are_reported():
    dataset = InMemory(water())
    dataset.charged = 3
    (told,) = summarize(dataset).warnings
    assert told.startswith("3 structures of the file have a charge")


def test_a_clean_set_has_no_warning():
    assert warnings(water()) == ()


def test_a_set_without_forces_has_no_warning():
    assert warnings(replace(water(), forces=None)) == ()


def test_a_periodic_set_has_no_warning():
    frames = water()
    lattice = {"cell": np.tile(4 * np.eye(3), (60, 1, 1)), "pbc": np.ones((60, 3), dtype=bool)}
    assert warnings(replace(frames, **lattice)) == ()


def test_forces_that_do_not_sum_to_zero_are_told_with_their_number():
    frames = water()
    (told,) = warnings(replace(frames, forces=frames.forces + np.array([0.03, 0, 0])))
    net = 3 * 0.03 / 3**0.5  # three atoms, one of three components
    assert f"net force has an RMS of {net:.2g} eV/Å" in told
    assert f"{net / 3 / np.sqrt((frames.forces**2).mean()):.2%} of the forces" in told
    assert warnings(replace(frames, forces=frames.forces + np.array([3e-5, 0, 0]))) == ()


def test_the_net_force_of_a_liquid_on_a_grid_is_small_for_each_of_its_atoms():
    if not LIQUID.is_dir():
        pytest.skip("needs ../shared/data")
    summary = summarize(AtomsDataset(path=LIQUID))
    assert summary.forces.net_rms == pytest.approx(0.098, abs=0.001)  # eV/Å, of 192 atoms
    assert summary.forces.net_share == pytest.approx(6.3e-4, rel=0.05)
    assert summary.warnings == ()


def test_copies_are_counted_and_the_first_is_named():
    frames, few = water(), water().part(5, 7)
    (told,) = warnings(joined(frames, few))
    assert told.startswith("2 structures are copies of earlier ones (structure 60 of 5)")


def test_copies_with_other_energies_are_told_apart():
    few = water().part(5, 6)
    (told,) = warnings(joined(water(), replace(few, energy=few.energy + 0.25)))
    assert "A structure is a copy" in told
    assert "energies that differ by up to 0.25 eV (5.8 kcal/mol)" in told


def test_the_same_positions_of_other_atoms_are_no_copies():
    few = water().part(5, 6)
    other = replace(few, numbers=few.numbers[[1, 0, 2]])
    assert summarize(InMemory(joined(water(), other))).copies.number == 0


def test_equal_fingerprints_of_different_structures_are_no_copies(monkeypatch):
    monkeypatch.setattr(
        "pyg_schnet.datasets.report.structure_statistics.fingerprints",
        lambda batch: torch.zeros(len(batch.ptr) - 1).long(),
    )
    few = water().part(5, 6)
    other = replace(few, numbers=few.numbers[[1, 0, 2]])
    assert summarize(InMemory(joined(water(), few, other))).copies.number == 0
    assert summarize(InMemory(joined(few, other, few))).copies.number == 1


def test_forces_that_point_the_wrong_way_are_reported():
    frames = water()
    (told,) = warnings(replace(frames, forces=-frames.forces))
    assert told.startswith("Forces have the wrong sign: between 20 pairs")
    assert told.endswith("Change the sign.")


@pytest.mark.parametrize(("factor", "unit"), [(23.06, "kcal/mol/Å"), (1 / 27.21, "Hartree/Å")])
def test_forces_in_another_unit_than_the_energies_are_reported(factor, unit):
    frames = water()
    told = warnings(replace(frames, forces=frames.forces * factor))
    (apart,) = (text for text in told if text.startswith("Energies and forces are inconsistent"))
    assert apart.endswith(f'pass the units, "eV, {unit}".')


def test_turned_structures_are_compared_as_well():
    """Each structure and its forces turned by an angle of its own: a real trajectory may rotate."""
    frames = water()
    angles = np.linspace(0, 6, 60)
    turn = np.zeros((60, 3, 3))
    turn[:, 2, 2] = 1
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angles)
    turn[:, 0, 1] = np.sin(angles)
    turn[:, 1, 0] = -np.sin(angles)
    turned = {
        name: (getattr(frames, name).reshape(60, 3, 3) @ turn).reshape(-1, 3)
        for name in ("positions", "forces")
    }
    work = summarize(InMemory(replace(frames, **turned))).work
    assert work.correlation > 0.98
    assert work.factor == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("published", "factor"),
    [("Hartree", 1 / 27.211386), ("kcal/mol", 1 / 0.0433641), ("kJ/mol", 96.4853)],
)
def test_energies_that_look_like_another_unit_are_reported(published, factor):
    frames = replace(water(), forces=None)
    (told,) = warnings(replace(frames, energy=frames.energy * factor))
    assert f"Energies look like {published}, but were read as eV" in told
    assert told.endswith(f'pass the units, "{published}".')


def test_energies_of_ev_read_as_kcal_are_reported():
    frames = replace(water(), forces=None)
    (told,) = warnings(replace(frames, energy=frames.energy * kcal_per_mol), units=Units("kcal/mol"))
    assert "Energies look like eV, but were read as kcal/mol: they are 0.0436 times" in told


def test_energies_of_valence_electrons_alone_are_no_unit():
    """GFN2-xTB's ethanol: a thirteenth of the free atoms' energies."""
    frames = replace(water(), forces=None)
    assert warnings(replace(frames, energy=frames.energy * 0.0743)) == ()


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1e-4, "{:.2g} eV/Å, as in relaxed structures"),
        (23, "{:.4g} eV/Å, too much for structures near equilibrium: check the units."),
    ],
)
def test_implausible_forces_are_reported(factor, message):
    frames = water(30)  # too few to compare them with the energies
    (told,) = warnings(replace(frames, forces=frames.forces * factor))
    rms = factor * np.sqrt((frames.forces**2).mean())
    assert told.startswith("The forces' RMS is " + message.format(rms))


def test_constant_energies_are_reported():
    (told,) = warnings(replace(water(), energy=np.full(60, -2076.5)))
    assert told.startswith("All energies are -2076.5 eV: there is nothing to learn")


def test_one_structure_is_not_constant():
    assert warnings(water(1)) == ()


def test_atoms_that_are_too_close_are_reported():
    frames = replace(water(30), forces=None)
    frames.positions[3 * 17 + 1] = frames.positions[3 * 17] + [0.3, 0, 0]
    (told,) = warnings(frames)
    assert told.startswith("Two atoms of structure 17 are 0.30 Å apart: remove it")


def test_an_atom_far_from_all_others_is_reported():
    frames = replace(water(30), forces=None)
    frames.positions[3 * 17 + 1] += [10.9, 0, 0]
    (told,) = warnings(frames)
    assert told.startswith("An atom of structure 17 has no neighbor within 10 Å")


def test_a_single_atom_is_not_far_from_others():
    frames = Frames(np.array([8], np.uint8), np.zeros((1, 3)), np.array([1]), np.array([-2040.0]))
    assert warnings(frames) == ()


@pytest.mark.parametrize("number", [0, 100])
def test_an_element_that_no_model_takes_is_reported(number):
    frames = water(3)
    frames.numbers[0] = number
    summary = summarize(InMemory(frames))
    assert summary.unknown_elements == (number,)
    assert summary.warnings[0].startswith(f"Atomic number {number} occurs; models accept 1 to 99")


def joined(*parts: Frames) -> Frames:
    names = ("numbers", "positions", "counts", "energy", "forces")
    return Frames(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
