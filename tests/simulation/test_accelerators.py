"""Simulations on accelerators: the steps of CPUs, with few launches and without waiting."""

import copy
from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read

from pyg_schnet import Ensemble, Potential, SchNet
from pyg_schnet.graph.verlet_graph import VerletGraph
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.simulation import SchNetCalculator, batched_integrator, run_md_batched
from pyg_schnet.simulation.batched_integrator import BatchedIntegrator
from pyg_schnet.simulation.limits import BatchedLimits
from pyg_schnet.simulation.trajectory import TrajectoryFile
from pyg_schnet.transforms.ase_atoms import from_ase
from tests.gpu_like import LaunchCounter, gpu_like


@pytest.fixture
def several(crystal):
    """Molecules and a crystal, with random displacements."""
    structures = [molecule(name) for name in ("CH3CH2OH", "H2O", "CO")]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=seed)
    return [*structures, crystal]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Dynamics whose steps are checked in windows, and the number of steps that were repeated."""

    def run(potential, structures, steps_per_check, **options):
        integrators, make = [], BatchedIntegrator.__init__
        path = tmp_path / f"{steps_per_check}.traj"
        with monkeypatch.context() as patch, gpu_like():
            patch.setattr(batched_integrator, "STEPS_PER_CHECK", steps_per_check)
            patch.setattr(
                BatchedIntegrator, "__init__", lambda self, *a: integrators.append(self) or make(self, *a)
            )
            result = run_md_batched(potential, structures, trajectory=path, overwrite=True, **options)
        return result, read(path, ":"), sum(integrator.repeated for integrator in integrators)

    return run


def assert_same(one, other):
    (result, frames, _), (expected, expected_frames, _) = one, other
    assert result.stopped == expected.stopped
    assert result.temperature == expected.temperature
    assert result.potential_energy == expected.potential_energy
    assert (result.drift, result.fluctuation) == (expected.drift, expected.fluctuation)
    assert len(frames) == len(expected_frames)
    for frame, own in zip([*frames, *result.atoms], [*expected_frames, *expected.atoms], strict=True):
        assert frame.info == own.info
        assert frame.positions.tobytes() == own.positions.tobytes()
        assert frame.get_velocities().tobytes() == own.get_velocities().tobytes()
        assert frame.get_potential_energy() == own.get_potential_energy()
        assert frame.get_forces().tobytes() == own.get_forces().tobytes()


@pytest.mark.parametrize("thermostat", ["nve", "langevin"])
def test_checks_after_many_steps_change_no_bit(potential, several, run, thermostat):
    # At 3000 K, lists last for some twenty steps of 0.5 fs. Neither 70 nor 25 is a multiple of 16.
    options = {"duration": 0.035, "thermostat": thermostat, "temperature": 3000, "seed": 2, "interval": 25}
    together = run(potential, several, 16, **options)
    assert together[2] > 0
    assert_same(together, run(potential, several, 1, **options))


def test_dynamics_is_that_of_cpus(potential, several, run):
    options = {"duration": 0.02, "seed": 3}
    result, _, _ = run(potential, several, 16, **options)
    expected = run_md_batched(potential, several, **options)
    for one, other in zip(result.atoms, expected.atoms, strict=True):
        assert np.abs(one.positions - other.positions).max() < 1e-9
        assert np.abs(one.get_forces() - other.get_forces()).max() < 1e-8
    assert result.temperature == pytest.approx(expected.temperature, rel=1e-9)
    assert result.drift == pytest.approx(expected.drift, abs=1e-6)  # meV per atom and ps
    assert result.fluctuation == pytest.approx(expected.fluctuation, abs=1e-9)


@pytest.mark.parametrize("thermostat", ["nve", "langevin"])
def test_what_explodes_stops_alone_at_its_step(potential, several, run, thermostat):
    hot = molecule("H2O")
    hot.set_masses([2e-4] * 3)  # u; such atoms move 1.1 Å in a step of 1 fs
    structures = [several[0], hot, several[3]]
    options = {"duration": 0.03, "timestep": 1.0, "interval": 20, "seed": 5, "thermostat": thermostat}
    together = run(potential, structures, 16, max_force=None, **options)
    assert "exploded" in together[0].stopped[1]
    assert together[0].stopped[::2] == [None, None]
    assert_same(together, run(potential, structures, 1, max_force=None, **options))


def test_what_leaves_the_training_set_stops_with_the_message_of_its_step(potential, run):
    known = copy.deepcopy(potential)
    # Å; water's bonds begin at 0.97 Å and vibrate
    known.domain = TrainingDomain({(1, 8): 0.94 / 0.9, (1, 1): 1.0, (8, 8): 1.0}, largest_force=30.0)
    structures = [molecule("H2O"), Atoms("O2", [[0, 0, 0], [0, 0, 3.0]]), molecule("H2O")]
    options = {"temperature": 2000, "duration": 0.04, "closest": 0.9, "seed": 1}
    together = run(known, structures, 16, **options)
    stopped = together[0].stopped
    assert "atoms 0 and" in stopped[0]
    assert stopped[1] is None
    assert stopped[2] != stopped[0]
    assert_same(together, run(known, structures, 1, **options))
    assert stopped == run_md_batched(known, structures, **options).stopped


SYSTEMS = pytest.mark.parametrize(
    ("kind", "cutoff"), [("ethanol", None), ("ethanol", 5.0), ("silicon", 5.0)], ids=str
)


@cache
def system(kind, cutoff):
    """Nine or 64 atoms, and a potential of the paper's size, with the domain of some training."""
    atoms = molecule("CH3CH2OH") if kind == "ethanol" else bulk("Si", cubic=True) * 2
    atoms.rattle(0.02, seed=0)
    torch.manual_seed(0)
    model = SchNet.paper(cutoff=cutoff, zero_output=False, filters="spline")
    potential = Potential(model).eval().requires_grad_(False)
    shortest = {(1, 1): 1.2, (1, 6): 0.9, (1, 8): 0.9, (6, 6): 1.2, (6, 8): 1.2, (14, 14): 2.0}
    potential.domain = TrainingDomain(shortest, 100.0)
    return atoms, potential


@pytest.mark.parametrize("friction", [None, 0.01])
@SYSTEMS
def test_a_step_launches_little_and_waits_for_nothing(kind, cutoff, friction):
    atoms, potential = system(kind, cutoff)
    one, two = (_counted_run(potential, atoms, steps, friction) for steps in (15, 16))
    assert two.launches - one.launches <= 120, two.report()  # 119 in the bath and the crystal
    assert two.synchronizations == one.synchronizations, two.report()


def _counted_run(potential, atoms, steps, friction):
    """Dynamics of one window, from the second step of the potential on."""
    limits = BatchedLimits(potential.domain, 0.9, "auto")
    with gpu_like():
        integrator = BatchedIntegrator(potential, [atoms], [0], limits, 100.0, 0.5, friction, 0)
        with LaunchCounter() as counter:
            integrator.run(steps, TrajectoryFile(None), 100)
    assert integrator.repeated == 0
    return counter


@pytest.mark.parametrize(
    "beyond", ["nothing", "distance", "force", "displacement", "neighbors", "limits", "NaN"]
)
def test_a_step_beyond_any_limit_must_be_checked(beyond):
    limits = BatchedLimits(TrainingDomain({(1, 8): 1.0, (1, 1): 1.0}), 0.9, max_force=5.0)
    data = from_ase(Atoms("OH2", [[0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]]))
    data.batch = torch.zeros(3, dtype=torch.long)
    with gpu_like():
        assert not limits.violations(data, torch.zeros(3, 3))
    pos, forces, displacement, moved = data.pos.clone(), *torch.zeros(3, 3, 3).double()
    match beyond:
        case "distance":
            pos[1, 0] -= 0.11
        case "force":
            forces[2] = 3.0
        case "displacement":
            displacement[0, 0] = 1.01
        case "neighbors":
            moved[0, 0] = 0.41
        case "limits":
            pos += 0.6  # of all atoms: other pairs may now be near
        case "NaN":
            forces[1, 1] = torch.nan
    flags = limits.are_kept(pos, forces, displacement, moved, margin=0.8)
    assert all(map(bool, flags)) == (beyond == "nothing")


def calculated(atoms, calculator, stress):
    """Energy, forces and stress, as ASE asks for them."""
    atoms = atoms.copy()
    atoms.calc = calculator
    out = {"forces": atoms.get_forces(), "energy": atoms.get_potential_energy()}
    return out | ({"stress": atoms.get_stress()} if stress else {})


# float64; sums in another order. Measured: 2e-14 eV/Å.
@pytest.mark.parametrize("models", [1, 2])
def test_the_calculator_returns_what_it_does_on_cpus(potential, several, models):
    if models == 2:
        other = copy.deepcopy(potential)
        other.model.embedding.weight.data.mul_(1.1)
        potential = Ensemble([potential, other])
    rng = np.random.default_rng(0)
    here, there = (SchNetCalculator(potential, compile=False) for _ in range(2))
    for atoms in [*several, several[0]]:
        stress = bool(atoms.pbc.any())
        for _ in range(6):
            expected = calculated(atoms, here, stress)
            with gpu_like():
                found = calculated(atoms, there, stress)
            assert there.results.keys() == here.results.keys()
            for name, value in expected.items():
                assert np.abs(found[name] - value).max() < 1e-10, name
            atoms.positions += rng.normal(0, 0.04, atoms.positions.shape)
            if stress:
                atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 2e-3, (3, 3))), scale_atoms=True)


def test_pairs_of_the_calculator_stay_until_an_atom_may_have_a_new_neighbor(potential, ethanol, monkeypatch):
    calculator = SchNetCalculator(potential, compile=False)
    searches, search = [], VerletGraph.search
    monkeypatch.setattr(VerletGraph, "search", lambda self, f: searches.append(f) or search(self, f))
    with gpu_like():
        for moved in (0.0, 0.2, 0.17, 0.01):  # the skin is 0.75 Å
            ethanol.positions[0, 0] += moved
            calculated(ethanol, calculator, stress=False)
    assert len(searches) == 2


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda atoms: atoms.positions.__setitem__(0, np.nan), "`pos` must be finite"),
        (lambda atoms: atoms.positions.__setitem__(0, atoms.positions[1]), "two atoms at one point"),
        (lambda atoms: atoms.numbers.__setitem__(0, 30), "30, which was absent from training"),
        (lambda atoms: atoms.set_cell(np.zeros((3, 3))), "lattice vector for each periodic direction"),
    ],
    ids=["NaN", "coincident", "element", "cell"],
)
def test_the_calculator_rejects_what_it_does_on_cpus(potential, crystal, spoil, text):
    for context in (nullcontext, gpu_like):
        atoms, calculator = crystal.copy(), SchNetCalculator(potential, compile=False)
        with context():
            calculated(atoms, calculator, stress=True)
            spoil(atoms)
            with pytest.raises(ValueError, match=text):
                calculated(atoms, calculator, stress=True)


@pytest.mark.parametrize(
    ("kind", "cutoff", "stress"),
    [("ethanol", None, False), ("ethanol", 5.0, False), ("silicon", 5.0, False), ("silicon", 5.0, True)],
)
def test_an_evaluation_of_the_calculator_waits_for_its_results_alone(kind, cutoff, stress):
    atoms, potential = system(kind, cutoff)
    atoms = atoms.copy()
    atoms.calc = SchNetCalculator(potential, compile=False)
    with gpu_like():
        for _ in range(2):
            atoms.rattle(0.01, seed=1)
            with LaunchCounter() as counter:
                atoms.get_stress() if stress else atoms.get_forces()
                atoms.get_forces()
                atoms.get_potential_energy()
    assert counter.launches <= 120, counter.report()  # 101 of the crystal with stress
    copies = [name.split(" < ")[0] for name in counter.synchronizations.elements()]
    assert copies == ["torch.Tensor.cpu", "torch.Tensor.numpy"], counter.report()  # of one tensor


# Another order of sums than that of programs for CPUs.
@pytest.mark.nightly  # it compiles twice
def test_compiled_dynamics_is_that_of_cpus(several, run, caplog):
    torch.manual_seed(0)
    model = SchNet(16, 16, 2, 12, cutoff=4.0, filters="spline").double()
    potential = Potential(model, elements=[1, 6, 8]).eval()
    compiled = copy.deepcopy(potential).compile(backend="python")
    options = {"duration": 0.02, "seed": 3}
    result, _, _ = run(compiled, several, 16, **options)
    expected = run_md_batched(potential, several, **options)
    assert "eager" not in caplog.text
    for one, other in zip(result.atoms, expected.atoms, strict=True):
        assert np.abs(one.positions - other.positions).max() < 1e-10
        assert np.abs(one.get_forces() - other.get_forces()).max() < 1e-9
