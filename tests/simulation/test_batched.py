"""Tests that structures in a batch move as each does alone."""

import copy
import re

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.constraints import FixAtoms, FixBondLength
from ase.io import read
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from pyg_schnet import Ensemble, Potential
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.simulation import SchNetCalculator, relax, relax_batched, relax_stream, run_md_batched
from pyg_schnet.simulation.batched_system import BatchedSystem, group_by_pairs
from pyg_schnet.simulation.statistics import fit_drift
from pyg_schnet.simulation.velocities import draw_momenta
from pyg_schnet.transforms.ase_atoms import from_ase


@pytest.fixture
def several(crystal):
    """Molecules of several sizes and a crystal, with random displacements."""
    names = ("CH3CH2OH", "H2O", "CH4", "C6H6", "CO")
    structures = [molecule(name) for name in names]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=seed)
    return [*structures[:3], crystal, *structures[3:]]


# 1e-9 Å after 40 steps: the same sums in another order; measured 1e-14.
def test_dynamics_is_ases_one_by_one(potential, several):
    result = run_md_batched(potential, several, duration=0.02, timestep=0.5, seed=3)
    assert result.steps == 40
    for number, atoms in enumerate(several):
        alone = atoms.copy()
        rng = np.random.default_rng([3, number])
        draw_momenta(alone, 300.0, rng, rotation=bool(atoms.pbc.any()))
        alone.calc = SchNetCalculator(potential, compile=False)
        VelocityVerlet(alone, 0.5 * units.fs).run(40)
        moved = result.atoms[number]
        assert np.abs(moved.positions - alone.positions).max() < 1e-9
        assert np.abs(moved.get_velocities() - alone.get_velocities()).max() < 1e-9
        assert moved.get_potential_energy() == pytest.approx(alone.get_potential_energy(), abs=1e-8)
        assert np.abs(moved.get_forces() - alone.get_forces()).max() < 1e-8


@pytest.mark.parametrize("thermostat", ["nve", "langevin"])
@pytest.mark.parametrize("max_pairs", [1, 50, 100_000])
def test_the_company_and_its_size_change_nothing(potential, several, thermostat, max_pairs):
    options = {"duration": 0.02, "thermostat": thermostat, "seed": 1}
    together = run_md_batched(potential, several, **options)
    apart = run_md_batched(potential, several, **options, max_pairs=max_pairs)
    for one, other in zip(together.atoms, apart.atoms, strict=True):
        assert np.abs(one.positions - other.positions).max() < 1e-9
    assert together.temperature == pytest.approx(apart.temperature, rel=1e-6)


def test_energy_is_conserved_in_each_the_better_the_shorter_the_step(potential, several):
    coarse, fine = (run_md_batched(potential, several, duration=0.05, timestep=dt) for dt in (0.5, 0.125))
    assert max(map(abs, fine.drift)) < 0.1  # meV/atom/ps; measured 0.01
    assert max(map(abs, fine.drift)) < 0.3 * max(map(abs, coarse.drift))


def test_the_bath_has_its_temperature(potential, ethanol):
    result = run_md_batched(
        potential,
        [ethanol] * 16,
        timestep=1.0,
        duration=0.4,
        thermostat="langevin",
        friction=0.05,
        temperature=400,
    )
    assert result.drift is None
    # Mean of 16: the deviation is 400 K sqrt(2 / 27 / 16 / 8 independent times), 10 K.
    assert np.mean(result.temperature) == pytest.approx(400, abs=25)
    assert len(set(result.temperature)) == 16


class FreeParticles(torch.nn.Module):
    """A model whose energy is zero at all positions."""

    def forward(self, z, pos, batch):
        return pos.new_zeros(int(batch.max()) + 1) + 0 * pos.sum()


def test_friction_is_the_rate_at_which_the_bath_forgets_velocities(tmp_path):
    path = tmp_path / "free.extxyz"
    atoms = Atoms("Ar500", np.random.default_rng(0).uniform(0, 100, (500, 3)))
    run_md_batched(
        Potential(FreeParticles()).eval(),
        [atoms] * 4,
        thermostat="langevin",
        friction=0.05,
        timestep=2.0,
        duration=0.02,
        interval=10,
        closest=None,
        trajectory=path,
    )
    frames = sorted(read(path, ":"), key=lambda frame: (frame.info["step"], frame.info["system"]))
    first, last = np.split(np.array([frame.get_velocities() for frame in frames]), 2)
    kept = (first * last).sum() / (first**2).sum()
    # ⟨v(0) v(t)⟩ / ⟨v²⟩ = exp(-γ t); 6,000 components have a standard error of 0.012.
    assert kept == pytest.approx(np.exp(-0.05 * 20), abs=0.05)


def test_frames_are_written_with_their_numbers(potential, several, tmp_path):
    path = tmp_path / "all.extxyz"
    result = run_md_batched(potential, several, duration=0.02, interval=20, trajectory=path)
    frames = read(path, ":")
    assert [(f.info["system"], f.info["step"]) for f in frames] == [
        (k, s) for s in (0, 20, 40) for k in range(len(several))
    ]
    for last, frame in zip(result.atoms, frames[-len(several) :], strict=True):
        assert np.abs(last.positions - frame.positions).max() < 1e-7
        assert last.get_potential_energy() == pytest.approx(frame.get_potential_energy(), abs=1e-6)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        run_md_batched(potential, several, trajectory=path)


def test_what_explodes_stops_alone_with_its_last_good_frame(potential, several, tmp_path):
    path, hot = tmp_path / "all.traj", molecule("H2O")
    hot.set_masses([2e-4] * 3)  # u; at 300 K such atoms move 1.1 Å in a step of 1 fs
    options = {"duration": 0.02, "timestep": 1.0, "interval": 4, "seed": 5}
    result = run_md_batched(potential, [*several, hot], trajectory=path, max_force=None, **options)
    assert result.stopped[:-1] == [None] * len(several)
    assert "exploded" in result.stopped[-1]
    assert np.isfinite(result.atoms[-1].positions).all()
    undisturbed = run_md_batched(potential, several, **options)
    for one, other in zip(result.atoms, undisturbed.atoms, strict=False):
        assert np.abs(one.positions - other.positions).max() < 1e-9
    last = [frame for frame in read(path, ":") if frame.info["system"] == len(several)][-1]
    assert last.info["step"] == result.atoms[-1].info["step"] < result.steps
    assert np.abs(last.positions - result.atoms[-1].positions).max() < 1e-7


def test_what_leaves_the_training_set_stops_alone(potential, several):
    known = copy.deepcopy(potential)
    lengths = {(1, 8): 0.94 / 0.9, (1, 1): 1.0, (8, 8): 1.0}  # Å; water's bonds begin at 0.97 Å and vibrate
    water, oxygen = molecule("H2O"), Atoms("O2", [[0, 0, 0], [0, 0, 3.0]])
    known.domain = TrainingDomain(lengths)
    result = run_md_batched(known, [water, oxygen], temperature=2000, duration=0.1, closest=0.9)
    assert re.search(r"at step \d+ atoms 0 and [12] \(atomic numbers 8 and 1\) are 0\.9", result.stopped[0])
    assert result.stopped[1] is None
    assert run_md_batched(known, [water], temperature=2000, duration=0.1, closest=None).stopped == [None]


@pytest.mark.parametrize("seed", range(3))
def test_the_last_frame_of_what_left_the_training_set_is_within_it(potential, seed):
    known = copy.deepcopy(potential)
    known.domain = TrainingDomain({(1, 8): 1.0, (1, 1): 1.5})
    waters = 4 * [molecule("H2O")]
    result = run_md_batched(known, waters, temperature=1500, duration=0.03, timestep=0.7, seed=seed)
    assert any(result.stopped)
    for frame in result.atoms:
        known.domain.check(from_ase(frame))
    assert np.isfinite(result.temperature).all()
    assert np.isfinite(result.potential_energy).all()


def test_means_are_those_of_the_steps(potential, several, tmp_path):
    path = tmp_path / "all.traj"
    result = run_md_batched(potential, several, duration=0.02, trajectory=path, interval=1)
    frames = [frame for frame in read(path, ":") if frame.info["system"] == 1]
    assert len(frames) == 41
    energies = [frame.get_potential_energy() for frame in frames]
    assert result.potential_energy[1] == pytest.approx(np.mean(energies), abs=1e-7)
    slope, _ = fit_drift([frame.get_total_energy() for frame in frames], 0.5, 3)
    assert result.drift[1] == pytest.approx(slope, rel=1e-4)


def test_a_force_beyond_the_limit_stops_a_structure_and_is_refused_at_the_start(potential, several):
    largest = max(np.linalg.norm(a.get_forces(), axis=1).max() for a in labelled(potential, several))
    with pytest.raises(ValueError, match=r"structure.*\d.*force.*atom.*\d+.*`closest`"):
        run_md_batched(potential, several, duration=0.01, max_force=0.9 * largest)
    result = run_md_batched(potential, several, duration=0.1, temperature=3000, max_force=1.01 * largest)
    assert any(reason and "the force on atom" in reason for reason in result.stopped)


def labelled(potential, structures):
    return run_md_batched(potential, structures, temperature=0, duration=0.0005).atoms


def test_the_callers_structures_stay_as_they_are(potential, several):
    before = [atoms.positions.copy() for atoms in several]
    run_md_batched(potential, several, duration=0.01)
    relax_batched(potential, several, steps=3)
    assert all((a.positions == b).all() and a.calc is None for a, b in zip(several, before, strict=True))


def test_relaxation_is_ases_fire_one_by_one(potential, several):
    results = relax_batched(potential, several, fmax=0.05, steps=150)
    for atoms, result in zip(several, results, strict=True):
        alone = atoms.copy()
        alone.calc = SchNetCalculator(potential, compile=False)
        search = FIRE(alone, logfile=None)
        assert search.run(fmax=0.05, steps=150) == result.converged
        assert search.nsteps == result.steps
        assert np.abs(alone.positions - result.atoms.positions).max() < 1e-7
        assert result.energy == pytest.approx(alone.get_potential_energy(), abs=1e-7)
        assert result.fmax == pytest.approx(np.linalg.norm(alone.get_forces(), axis=1).max(), abs=1e-6)
    assert len({result.steps for result in results}) > 2  # some are done earlier, and left the batch


def test_what_does_not_converge_says_so(potential, several):
    results = relax_batched(potential, several, fmax=1e-9, steps=5)
    assert [(result.converged, result.steps) for result in results] == [(False, 5)] * len(several)


@pytest.mark.parametrize("max_pairs", [1, 40, 10**6])
def test_who_enters_and_leaves_the_batch_changes_no_path(potential, several, max_pairs):
    several = [*several, Atoms("O"), *several[:2]]
    apart = [relax_batched(potential, [atoms], fmax=0.1, steps=60)[0] for atoms in several]
    stream = relax_stream(potential, iter(several), fmax=0.1, steps=60, max_pairs=max_pairs)
    for one, other in zip(stream, apart, strict=True):
        assert (one.converged, one.steps) == (other.converged, other.steps)
        assert np.abs(one.atoms.positions - other.atoms.positions).max() < 1e-9
    assert apart[len(several) - 3].steps == 0  # an atom alone is at rest


def test_structures_are_read_when_there_is_place_for_them(potential, ethanol):
    taken = []
    stream = relax_stream(
        potential, (taken.append(k) or ethanol for k in range(100)), max_pairs=100, fmax=10.0
    )
    next(stream)
    assert len(taken) < 5
    assert len(list(stream)) == 99


def test_fixed_atoms_stay_side_by_side(potential, several):
    several[0].set_constraint(FixAtoms([0, 3, 5]))
    several[2].set_constraint(FixAtoms([-1]))  # counts from the end
    fixed, free, last = relax_batched(potential, several[:3], fmax=0.05)
    still = (last.atoms.positions == several[2].positions).all(axis=1)
    assert still.tolist() == [False] * 4 + [True]
    assert (fixed.atoms.positions[[0, 3, 5]] == several[0].positions[[0, 3, 5]]).all()
    several[0].calc = SchNetCalculator(potential, compile=False)
    alone = relax(several[0], fmax=0.05, optimizer="FIRE")
    assert (fixed.steps, fixed.converged) == (alone.steps, alone.converged)
    assert np.abs(fixed.atoms.positions - alone.atoms.positions).max() < 1e-7
    assert fixed.fmax == pytest.approx(alone.fmax, abs=1e-6)
    assert free.converged


class Spoiled(Potential):
    """A potential with invalid results for methane that moved too far."""

    def __init__(self, of, spoil, start, limit):
        super().__init__(of.model, of.scale.item(), of.atomref, of.elements)
        self.spoil, self.start, self.limit = spoil, torch.from_numpy(start.positions), limit

    def forward(self, data, forces=True, stress=False):
        out = super().forward(data, forces, stress)
        for k in range(len(out["energy"])):
            atoms = torch.zeros_like(data.z) if getattr(data, "batch", None) is None else data.batch
            mine = (atoms == k).nonzero().flatten()
            is_methane = data.z[mine].tolist() == [6, 1, 1, 1, 1]
            if is_methane and float((data.pos[mine] - self.start).norm()) > self.limit:
                self.spoil(out, k, mine)
        return out


def nan_force(out, k, mine):
    out["forces"][mine[2]] = torch.nan


def hole(out, k, mine):
    out["energy"][k] -= 1000


def refusal(out, k, mine):
    raise ValueError("`pos` must not place two atoms at one point")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nan_force, r"energy and forces must be finite, got .* a force of nan eV/Å"),
        (hole, r"energy fell by 200 eV"),
        (refusal, r"`pos` must not place two atoms at one point"),
    ],
)
def test_what_fails_stops_alone_with_its_last_good_frame(potential, several, spoil, reason):
    fine = relax_batched(potential, several, fmax=0.05, steps=60)
    good = relax_batched(potential, several[2:3], fmax=0.05, steps=3)[0]
    limit = np.linalg.norm(good.atoms.positions - several[2].positions) + 1e-6
    spoiled = relax_batched(Spoiled(potential, spoil, several[2], limit).eval(), several, fmax=0.05, steps=60)
    for number, (one, other) in enumerate(zip(spoiled, fine, strict=True)):
        if number != 2:
            assert one.stopped is None
            assert (one.converged, one.steps) == (other.converged, other.steps)
            assert np.abs(one.atoms.positions - other.atoms.positions).max() < 1e-9
    methane = spoiled[2]
    assert not methane.converged
    assert re.search(reason, methane.stopped)
    assert methane.steps == 3
    assert np.abs(methane.atoms.positions - good.atoms.positions).max() < 1e-9
    assert methane.energy == pytest.approx(good.energy, abs=1e-9)
    assert np.abs(methane.atoms.get_forces() - good.atoms.get_forces()).max() < 1e-9


def test_a_refused_start_is_left_out_if_asked_for(potential, several):
    several[1] = molecule("SiH4")
    several[4] = Atoms("H2", positions=np.zeros((2, 3)))
    refused = []
    found = list(relax_stream(potential, several, fmax=1.0, on_refused=refused.append))
    assert len(found) == len(several) - 2
    assert {error.number for error in refused} == {1, 4}
    assert "was absent from training" in next(e for e in refused if e.number == 1).reason


@pytest.mark.parametrize("function", [run_md_batched, relax_batched])
def test_a_start_whose_energy_is_not_finite_is_refused_by_its_number(overflowing, function):
    with pytest.raises(ValueError, match=r"structure.*0.*`energy`.*finite"):
        function(overflowing, [molecule("H2O"), molecule("CH4")])


@pytest.mark.parametrize("function", [run_md_batched, relax_batched])
@pytest.mark.parametrize("bad", [molecule("SiH4"), Atoms("H2", np.zeros((2, 3))), Atoms("CO", pbc=True)])
def test_nothing_is_computed_before_all_structures_are_known_to_be_sound(
    potential, several, function, bad, monkeypatch
):
    calls = []
    monkeypatch.setattr(BatchedSystem, "evaluate", lambda self: calls.append(len(self)))
    with pytest.raises(ValueError, match="structure 6: "):
        function(potential, [*several, bad], max_pairs=1)
    assert calls == []


def test_many_refused_structures_cost_one_batch(potential, several, monkeypatch):
    made, make = [], BatchedSystem.__init__
    monkeypatch.setattr(BatchedSystem, "__init__", lambda self, *args: made.append(1) or make(self, *args))
    near = Atoms("H2", positions=np.zeros((2, 3)))  # which only the potential refuses
    refused = []
    found = relax_stream(
        potential, [*several, *5 * [molecule("SiH4")], near, near], on_refused=refused.append
    )
    assert len(list(found)) == len(several)
    assert len(refused) == 7
    assert len(made) <= 2 + len(several)  # with those that the potential refuses, without, and as others end


def test_groups_hold_no_more_pairs_than_asked_for(potential, several):
    groups = list(group_by_pairs(potential, several, 60))
    assert [k for group in groups for k in group] == list(range(len(several)))
    assert len(groups) > 2
    assert list(group_by_pairs(potential, several, 10**9)) == [list(range(len(several)))]


@pytest.mark.parametrize("max_pairs", [1, 10**6])
@pytest.mark.parametrize("function", [run_md_batched, relax_batched])
def test_the_structure_that_is_refused_is_named(potential, several, function, max_pairs):
    several[4].positions[1] = several[4].positions[0]
    with pytest.raises(ValueError, match=r"structure.*4.*`pos`.*atoms.*point"):
        function(potential, several, max_pairs=max_pairs)


BOUND = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.8]], constraint=FixBondLength(0, 1))


@pytest.mark.parametrize("function", [run_md_batched, relax_batched])
@pytest.mark.parametrize(
    ("structures", "error", "message"),
    [
        (Atoms("H"), TypeError, r"ase\.Atoms.*Atoms.*\[atoms\]"),
        ([], ValueError, "at least.*ase.Atoms"),
        ([Atoms("H"), "H2"], TypeError, "ase.Atoms.*index 1"),
        ([Atoms()], ValueError, "must have atoms, got none"),
        ([BOUND], ValueError, "constraint.*Fix"),
        ([molecule("SiH4")], ValueError, "structure.*0.*number.*14.*absent.*1.*6"),
    ],
)
def test_wrong_structures_are_refused(potential, function, structures, error, message):
    with pytest.raises(error, match=message):
        function(potential, structures)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timestep": 0}, "`timestep`.*positive.*0"),
        ({"thermostat": "nose"}, "`thermostat`.*'nose'"),
        ({"interval": 0}, "`interval`.*at least 1.*step.*0"),
        ({"max_pairs": 0}, "`max_pairs`.*at least 1.*0"),
    ],
)
def test_wrong_settings_are_refused(potential, ethanol, options, message):
    with pytest.raises(ValueError, match=message):
        run_md_batched(potential, [ethanol], **options)


def test_a_float32_network_moves_atoms_in_float64(potential, ethanol):
    single = SchNetCalculator(potential, dtype=torch.float32).potential
    result = run_md_batched(single, [ethanol] * 4, duration=0.05)
    assert result.atoms[0].positions.dtype == np.float64
    assert max(map(abs, result.drift)) < 10


@pytest.mark.parametrize(("name", "freedom"), [("CO2", 4), ("H2O", 3)])
def test_temperatures_count_the_degrees_of_the_start(potential, name, freedom):
    atoms = molecule(name)
    result = run_md_batched(potential, [atoms], duration=0.0005, temperature=300, seed=1)
    bath = run_md_batched(potential, [atoms], duration=0.0005, temperature=300, seed=1, thermostat="langevin")
    moving = atoms.copy()
    draw_momenta(moving, 300, np.random.default_rng([1, 0]), rotation=False)
    assert 2 * moving.get_kinetic_energy() / (300 * units.kB) == pytest.approx(freedom, rel=1e-9)
    assert result.temperature[0] == pytest.approx(300, rel=0.1)
    assert bath.temperature[0] == pytest.approx(300, rel=0.1)  # all 3N


def test_an_ensemble_moves_many_too(potential, several):
    ensemble = Ensemble([potential, potential])
    result = run_md_batched(ensemble, several, duration=0.01)
    expected = run_md_batched(potential, several, duration=0.01)
    for one, other in zip(result.atoms, expected.atoms, strict=True):
        assert np.abs(one.positions - other.positions).max() < 1e-9
    assert len(relax_batched(ensemble, several, steps=2)) == len(several)
