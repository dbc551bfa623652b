"""The comparison of the general potential with its teacher: bounds, broken bonds, files that are kept."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.build import molecule

from benchmarks.organic import __main__ as program
from benchmarks.organic import measures, references
from pyg_schnet import Potential, SchNet, save


@pytest.mark.parametrize(
    ("bound", "value", "holds"),
    [("≤ 2", 1.9, True), ("≤ 2", np.float64(2.1), False), ("≥ 100", 99.0, False), ("", 9.0, None)],
)
def test_a_number_is_compared_with_its_bound(bound, value, holds):
    assert measures.Measured("qm9", "forces", value, "kcal/mol/Å", bound, 3).holds is holds


def test_a_bond_is_broken_when_it_is_half_as_long_again():
    water = molecule("H2O")
    moved = water.copy()
    moved.set_distance(0, 1, 1.4 * water.get_distance(0, 1), fix=0)
    assert measures.broken_bond(water, moved) is None
    moved.set_distance(0, 1, 1.6 * water.get_distance(0, 1), fix=0)
    assert measures.broken_bond(water, moved) == "OH2: the bond of atoms 0 and 1 is 1.55 Å long"


class Teacher:
    """Counts its calls, and stretches nothing."""

    def __init__(self):
        self.calls = 0

    def label(self, numbers, positions):
        self.calls += 1
        forces = np.zeros((len(numbers), 3), dtype=np.float32)
        return {"energy": np.array(-1.0), "forces": forces}


def test_what_the_teacher_computed_is_kept(tmp_path):
    teacher = Teacher()
    first = references.reference("frames", "CCO", tmp_path, teacher)
    calls = teacher.calls
    again = references.reference("frames", "CCO", tmp_path, teacher)
    assert calls == teacher.calls == len(first["energy"])
    assert first["n_atoms"].sum() == len(first["forces"])
    np.testing.assert_array_equal(first["positions"], again["positions"])
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".npz"]


def test_a_molecule_without_geometry_is_passed_over(tmp_path, monkeypatch):
    def fail(smiles, teacher):
        raise references.EmbeddingError(smiles)

    monkeypatch.setitem(references.PARTS, "speed", fail)
    assert references.reference("speed", "CCO", tmp_path, Teacher()) == {}


@pytest.fixture
def subject(tmp_path):
    """A potential whose energies are zero, and molecules."""
    torch.manual_seed(0)
    model = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, num_gaussians=8, cutoff=5.0)
    torch.nn.init.zeros_(model.lin2.weight)
    torch.nn.init.zeros_(model.lin2.bias)
    save(Potential(model, elements=[1, 6, 7, 8]), tmp_path / "model.safetensors")
    return measures.Subject(
        str(tmp_path / "model.safetensors"), {"qm9": ["CCO", "CCF"]}, tmp_path, "own", Teacher()
    )


def test_errors_are_of_molecules_whose_elements_the_potential_knows(subject):
    forces, moving, energy = measures.frames(subject)
    assert (forces.value, moving.value) == (0, 0)
    assert energy.value > 0
    assert energy.count == sum(len(f["energy"]) for f in subject.known("frames", "qm9"))
    assert len(list(subject.known("frames", "qm9"))) == 1  # fluorine is unknown


def test_dynamics_that_were_run_are_not_run_again(subject, monkeypatch):
    monkeypatch.setattr(references, "speed", None)
    monkeypatch.setitem(references.PARTS, "speed", lambda smiles, teacher: {
        "numbers": molecule("H2O").numbers, "positions": molecule("H2O").positions})  # fmt: skip
    calls = []
    monkeypatch.setattr(measures, "_run_dynamics", lambda s, group: calls.append(1) or [None, "broke"])
    assert [m.value for m in measures.dynamics(subject)] == [50.0]
    assert [m.value for m in measures.dynamics(subject)] == [50.0]
    assert calls == [1]


def test_the_table_has_units_bounds_and_verdicts(capsys):
    results = [measures.Measured("large", "forces", 1.234, "kcal/mol/Å", "≤ 2", 7)]
    program.Console(width=110).print(program.table(results))
    line = next(line for line in capsys.readouterr().out.splitlines() if "large" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == [
        "large", "forces", "1.23", "kcal/mol/Å", "≤ 2", "holds", "7"
    ]  # fmt: skip


def test_the_ledger_names_steps_seed_and_frames(tmp_path):
    (tmp_path / "config.yaml").write_text(json.dumps({"trainer": {"seed": 3, "threads": None}}))
    run = SimpleNamespace(
        config=tmp_path / "config.yaml",
        read_metrics=lambda: [{"step": 10.0, "minutes": 1.5}],
        read_split=lambda: SimpleNamespace(train=range(7)),
    )
    (entry,) = program.entries([measures.Measured("qm9", "forces", 1.2, "kcal/mol/Å", "≤ 2", 5)], run)
    assert (entry.steps, entry.seed, entry.n_train, entry.mae) == (10, 3, 7, 1.2)
    assert (entry.table, entry.row, entry.quantity) == ("organic", "qm9", "forces")


@pytest.mark.process
def test_the_program_prints_errors_of_a_molecule(subject, tmp_path, capsys, monkeypatch):
    pytest.importorskip("tblite", reason="tblite is not installed")
    monkeypatch.setattr(program, "read_tested", lambda: {"qm9": ["CCO"]})
    arguments = [subject.model, "--cache", str(tmp_path), "--parts", "frames", "torsion", "speed"]
    assert program.main(arguments) == 1  # it learned nothing
    out = capsys.readouterr().out
    for quantity in ("forces", "torsion energy", "time of the teacher"):
        assert quantity in out
