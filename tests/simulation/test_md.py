import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms
from ase.io import read

from pyg_schnet.simulation import relax, run_md
from pyg_schnet.simulation.statistics import fit_drift


@pytest.fixture
def spring_molecule(ethanol, springs):
    ethanol.calc = springs(ethanol, stiffness=0.5)  # periods of 40 fs and more
    return ethanol


@pytest.fixture
def molecule(ethanol, calculator):
    ethanol.calc = calculator
    return ethanol


def test_the_drift_is_the_slope_of_the_total_energy():
    time = 0.5e-3 * np.arange(401)  # ps
    wave = np.cos(2 * np.pi * np.arange(-200, 201) / 8)  # even, so that it does not tilt the line
    total = -1e5 + 0.003 * time + 0.002 * wave  # eV
    drift, fluctuation = fit_drift(total.tolist(), timestep=0.5, atoms=10)
    assert drift == pytest.approx(0.3, abs=1e-9)  # 3 meV/ps for ten atoms
    assert fluctuation == pytest.approx(0.2 / np.sqrt(2), rel=0.01)


def test_a_line_does_not_fluctuate():
    drift, fluctuation = fit_drift([0.0, 0.001, 0.002], timestep=1.0, atoms=1)
    assert drift == pytest.approx(1000)
    assert fluctuation == pytest.approx(0, abs=1e-12)


def test_newtons_equations_conserve_the_energy(molecule):
    result = run_md(molecule, temperature=300, timestep=0.5, duration=0.2)
    # Measured over four seeds: at most 0.005 meV/atom/ps and 0.004 meV/atom.
    assert abs(result.drift) < 0.02
    assert result.fluctuation < 0.02


@pytest.mark.process
def test_the_energy_fluctuates_with_the_square_of_the_time_step(molecule):
    start = relax(molecule, fmax=0.001).atoms
    start.calc = molecule.calc
    coarse, fine = (run_md(start, timestep=step, duration=0.1) for step in (1.0, 0.5))
    assert coarse.fluctuation / fine.fluctuation == pytest.approx(4, rel=0.1)


def test_momentum_and_angular_momentum_stay_zero(molecule):
    result = run_md(molecule, duration=0.05)
    assert np.abs(result.atoms.get_momenta().sum(axis=0)).max() < 1e-10
    assert np.abs(result.atoms.get_angular_momentum()).max() < 1e-10


def test_half_of_the_temperature_goes_into_springs_at_rest(spring_molecule):
    result = run_md(spring_molecule, temperature=300, timestep=2.0, duration=1.0)
    assert result.temperature == pytest.approx(150, rel=0.1)


def test_equilibration_keeps_the_temperature(spring_molecule):
    # The energy of a canonical start has a standard deviation of 300 K / sqrt(21) = 65 K a run.
    means = [
        run_md(
            spring_molecule,
            temperature=300,
            timestep=2.0,
            duration=0.1,
            friction=0.05,
            equilibration=0.2,
            seed=seed,
        ).temperature
        for seed in range(6)
    ]
    assert np.mean(means) == pytest.approx(300, abs=75)  # 150 without


def test_a_molecule_does_not_turn_after_equilibration(spring_molecule):
    result = run_md(spring_molecule, duration=0.01, equilibration=0.05)
    assert np.abs(result.atoms.get_angular_momentum()).max() < 1e-10


def test_a_bath_has_its_temperature(spring_molecule):
    result = run_md(
        spring_molecule,
        temperature=500,
        timestep=2.0,
        duration=3.0,
        thermostat="langevin",
        friction=0.1,
    )
    # 24 degrees of freedom, some 150 independent samples in 3 ps: standard error 2.4 %.
    assert result.temperature == pytest.approx(500, rel=0.05)
    assert result.drift is None
    assert result.fluctuation is None


def test_a_bath_holds_the_center_of_mass_and_turns_the_molecule(spring_molecule):
    center = spring_molecule.get_center_of_mass()
    result = run_md(spring_molecule, thermostat="langevin", duration=0.1)
    assert np.abs(result.atoms.get_center_of_mass() - center).max() < 1e-10
    assert np.abs(result.atoms.get_angular_momentum()).max() > 0.1
    assert result.atoms.constraints == []


def test_the_start_has_the_temperature_asked_for(spring_molecule):
    seen = []

    def look(step, frame):
        seen.append((step, 2 * frame.get_kinetic_energy() / (21 * units.kB)))

    run_md(spring_molecule, temperature=250, duration=0.01, on_step=look)
    assert [step for step, _ in seen] == list(range(21))
    assert seen[0][1] == pytest.approx(250, abs=1e-9)


@pytest.mark.parametrize("thermostat", ["nve", "langevin"])
def test_a_seed_makes_a_run(spring_molecule, thermostat):
    options = {"duration": 0.02, "thermostat": thermostat, "equilibration": 0.01}
    first, again, other = (run_md(spring_molecule, seed=seed, **options) for seed in (1, 1, 2))
    assert (first.atoms.positions == again.atoms.positions).all()
    assert np.abs(first.atoms.positions - other.atoms.positions).max() > 1e-3


@pytest.mark.parametrize("thermostat", ["nve", "langevin"])
def test_the_callers_atoms_stay(spring_molecule, thermostat):
    spring_molecule.info["source"] = "here"
    spring_molecule.set_momenta(np.ones((9, 3)))
    before, calculator = spring_molecule.copy(), spring_molecule.calc
    run_md(spring_molecule, duration=0.01, thermostat=thermostat, equilibration=0.01)
    assert spring_molecule == before
    assert (spring_molecule.get_momenta() == before.get_momenta()).all()
    assert spring_molecule.info == {"source": "here"}
    assert spring_molecule.constraints == []
    assert spring_molecule.calc is calculator


@pytest.mark.parametrize("thermostat", ["nve", "langevin"])
def test_fixed_atoms_stay(spring_molecule, thermostat):
    spring_molecule.set_constraint(FixAtoms([0, 3]))
    result = run_md(spring_molecule, duration=0.02, thermostat=thermostat, equilibration=0.01)
    moved = np.linalg.norm(result.atoms.positions - spring_molecule.positions, axis=1)
    assert (moved[[0, 3]] == 0).all()
    assert (np.delete(moved, [0, 3]) > 1e-3).all()
    assert len(result.atoms.constraints) == 1


def test_crystals_move_too(crystal, calculator):
    cell = crystal.repeat(2)
    cell.calc = calculator
    result = run_md(cell, duration=0.02)
    assert np.abs(result.atoms.get_momenta().sum(axis=0)).max() < 1e-10
    assert result.fluctuation < 0.05


def test_a_step_is_one_evaluation(molecule, evaluations, tmp_path):
    run_md(molecule, duration=0.01, trajectory=tmp_path / "run.traj", interval=1)
    assert len(evaluations) == 21


@pytest.mark.parametrize("suffix", ["traj", "extxyz"])
def test_the_trajectory_has_each_interval(molecule, tmp_path, suffix):
    path = tmp_path / f"run.{suffix}"
    result = run_md(molecule, duration=0.01, interval=5, trajectory=path)
    frames = read(path, ":")
    assert result.trajectory == path
    assert result.steps == 20
    assert result.duration == pytest.approx(0.01)
    assert [frame.info["step"] for frame in frames] == [0, 5, 10, 15, 20]
    last = result.atoms
    assert np.abs(frames[-1].positions - last.positions).max() < 1e-7
    assert np.abs(frames[-1].get_momenta() - last.get_momenta()).max() < 1e-7
    assert np.abs(frames[-1].get_forces() - last.get_forces()).max() < 1e-7
    energy = last.get_potential_energy()
    assert frames[-1].get_potential_energy() == pytest.approx(energy, rel=1e-8)


def test_an_existing_file_is_refused_before_work(molecule, evaluations, tmp_path):
    path = tmp_path / "run.traj"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"run.traj.*exists.*overwrite=True"):
        run_md(molecule, trajectory=path)
    assert len(evaluations) == 0
    assert path.read_text() == "precious"
    run_md(molecule, duration=0.005, trajectory=path, overwrite=True)
    assert len(read(path, ":")) == 2


@pytest.fixture
def breaking(ethanol, springs):
    def build(call, what):
        class Breaking(springs):
            def calculate(self, *arguments, **options):
                super().calculate(*arguments, **options)
                if self.calls < call:
                    return
                if what == "refusal":
                    raise ValueError("these positions are refused")
                self.results[what] = self.results[what] * np.nan

        ethanol.calc = Breaking(ethanol)
        return ethanol

    return build


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("energy", "returned the energy nan"),
        ("forces", r"returned the force \[nan, nan, nan\] on atom 0"),
        ("refusal", "these positions are refused"),
    ],
)
def test_an_explosion_is_told_and_the_last_good_frame_saved(breaking, tmp_path, what, message):
    atoms = breaking(8, what)
    text = f"exploded at step 7, step 6 is the last good frame: .*{message}.*; reduce `timestep`"
    with pytest.raises(RuntimeError, match=text):
        run_md(atoms, trajectory=tmp_path / "run.traj", interval=4)
    frames = read(tmp_path / "run.traj", ":")
    assert [frame.info["step"] for frame in frames] == [0, 4, 6]
    assert np.isfinite(frames[-1].get_forces()).all()


def test_an_explosion_in_the_equilibration_is_told_as_one(breaking, tmp_path):
    text = "exploded at step 2 of the equilibration, step 1 is the last good frame"
    with pytest.raises(RuntimeError, match=text):
        run_md(breaking(3, "energy"), equilibration=0.01)


def test_a_last_good_frame_that_is_there_is_not_repeated(breaking, tmp_path):
    with pytest.raises(RuntimeError, match=r"step.*4.*frame"):
        run_md(breaking(6, "energy"), trajectory=tmp_path / "run.traj", interval=4)
    assert len(read(tmp_path / "run.traj", ":")) == 2


def test_a_molecule_that_flies_apart_explodes(spring_molecule):
    spring_molecule.calc.stiffness = 500.0  # too stiff for the time step
    text = r"exploded at step \d+, .*: atom \d moved .* Å in one step"
    with pytest.raises(RuntimeError, match=text):
        run_md(spring_molecule, timestep=5.0)


def test_a_start_that_is_not_a_number_is_refused(breaking):
    with pytest.raises(ValueError, match=r"`atoms.calc`.*energy.*nan"):
        run_md(breaking(1, "energy"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "`temperature`.*positive.*-1.0"),
        ({"temperature": float("nan")}, "`temperature`.*positive.*nan"),
        ({"timestep": 0.0}, "`timestep`.*positive.*0.0"),
        ({"duration": -0.1}, "`duration`.*positive.*-0.1"),
        ({"duration": float("inf")}, "`duration`.*positive"),
        ({"friction": 0.0}, "`friction`.*positive.*1/fs.*0.0"),
        ({"equilibration": -1.0}, "`equilibration`.*positive.*-1.0"),
        ({"interval": 0}, "`interval`.*at least 1.*step.*0"),
        ({"thermostat": "nose"}, "`thermostat`.*'nose'"),
    ],
)
def test_arguments_out_of_range_are_refused(spring_molecule, options, message):
    with pytest.raises(ValueError, match=message):
        run_md(spring_molecule, **options)


def test_atoms_without_a_calculator_are_refused(ethanol):
    with pytest.raises(ValueError, match=r"`atoms.calc`"):
        run_md(ethanol)


class NoForces(Calculator):
    """Free particles."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, list(properties), list(system_changes))
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}


def test_friction_is_the_rate_at_which_the_bath_forgets_velocities():
    atoms = Atoms("Ar2000", np.random.default_rng(0).uniform(0, 100, (2000, 3)), calculator=NoForces())
    seen = []
    run_md(
        atoms,
        thermostat="langevin",
        friction=0.05,
        timestep=2.0,
        duration=0.02,
        closest=None,
        on_step=lambda _, frame: seen.append(frame.get_velocities()),
    )
    kept = (seen[0] * seen[-1]).sum() / (seen[0] ** 2).sum()
    # ⟨v(0) v(t)⟩ / ⟨v²⟩ = exp(-γ t); 6,000 components have a standard error of 0.012.
    assert kept == pytest.approx(np.exp(-0.05 * 20), abs=0.05)
