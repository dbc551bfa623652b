"""OpenMM-ML computes whole systems, or molecules in a force field's water, with the forces of ASE."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.data import chemical_symbols

from pyg_schnet import Potential, SchNet
from pyg_schnet.simulation import SchNetCalculator
from pyg_schnet.simulation.statistics import fit_drift

openmm = pytest.importorskip("openmm", reason="needs OpenMM-ML: pip install 'pyg-schnet[openmmml]'")
openmmml = pytest.importorskip("openmmml", reason="needs OpenMM-ML: pip install 'pyg-schnet[openmmml]'")
app = pytest.importorskip("openmm.app")

kJ_per_mol = units.kJ / units.mol
FORCE_FIELD = Path(__file__).parents[2] / "examples" / "ethanol_opls.xml"


@pytest.fixture(autouse=True)
def registered():
    """The entry point, which a source tree on the path has not."""
    from pyg_schnet.simulation.engines.openmm_ml import SchNetFactory

    openmmml.MLPotential.registerImplFactory("schnet", SchNetFactory())


def topology_of(atoms):
    topology = app.Topology()
    residue = topology.addResidue("ETH", topology.addChain())
    for number, z in enumerate(atoms.numbers):
        topology.addAtom(f"{chemical_symbols[z]}{number}", app.Element.getByAtomicNumber(int(z)), residue)
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors([openmm.Vec3(*map(float, row)) for row in atoms.cell.array / 10])
    return topology


def context_of(system, positions, timestep=0.0005):
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(timestep), platform)
    context.setPositions(positions)
    return context


def energy_and_forces(context, **options):
    state = context.getState(energy=True, forces=True, **options)
    return (
        state.getPotentialEnergy()._value * kJ_per_mol,
        state.getForces(asNumpy=True)._value * kJ_per_mol / 10,
    )


@pytest.fixture
def solution(ethanol):
    """Ethanol in water: its topology, positions in nm, force field and system of that."""
    topology = topology_of(ethanol)
    atoms = list(topology.atoms())
    for first, second in ((0, 1), (1, 2), (2, 3), (1, 4), (1, 5), (0, 6), (0, 7), (0, 8)):
        topology.addBond(atoms[first], atoms[second])
    field = app.ForceField(str(FORCE_FIELD), "tip3p.xml")
    modeller = app.Modeller(topology, ethanol.positions / 10 * openmm.unit.nanometer)
    modeller.addSolvent(field, model="tip3p", boxSize=openmm.Vec3(1.9, 1.9, 1.9) * openmm.unit.nanometer)
    options = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.9 * openmm.unit.nanometer}
    system = field.createSystem(modeller.topology, **options)
    positions = np.array(modeller.positions.value_in_unit(openmm.unit.nanometer))
    return modeller.topology, positions, system


# Measured 1e-15; 1e-5 is the bound of all engines.
@pytest.mark.parametrize("name", ["molecule", "crystal"])
def test_systems_of_a_potential_alone_have_ases_energies_and_forces(potential, ethanol, name):
    atoms = ethanol if name == "molecule" else bulk("C", "diamond", a=3.6, cubic=True).repeat((2, 1, 1))
    atoms.rattle(0.05, seed=1)
    system = openmmml.MLPotential("schnet", model=potential).createSystem(topology_of(atoms))
    energy, forces = energy_and_forces(context_of(system, atoms.positions / 10))
    atoms.calc = SchNetCalculator(potential)
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    assert np.abs(forces - atoms.get_forces()).max() < 1e-9


@pytest.mark.parametrize("cutoff", [4.0, None])
def test_a_molecule_in_water_has_ases_forces_and_the_force_fields(potential, ethanol, solution, cutoff):
    if cutoff is None:
        potential = Potential(
            SchNet.paper(hidden_channels=8, num_filters=8, num_interactions=1, zero_output=False).double()
        )
    topology, positions, mm = solution
    assert len(positions) > 500
    own = list(range(9))
    mixed = openmmml.MLPotential("schnet", model=potential).createMixedSystem(topology, mm, own, forceGroup=1)
    split = positions.copy()
    split[3:6] += [1.9, 0, -1.9]  # images of three of its atoms
    ethanol.calc = SchNetCalculator(potential)
    for pos in (positions, split):
        context = context_of(mixed, pos)
        energy, forces = energy_and_forces(context, groups={1})
        assert energy == pytest.approx(ethanol.get_potential_energy(), abs=1e-6)
        assert np.abs(forces[:9] - ethanol.get_forces()).max() < 1e-6  # positions of Modeller are rounded
        assert np.abs(forces[9:]).max() == 0
    _, others = energy_and_forces(context, groups={0})
    _, before = energy_and_forces(context_of(mm, positions))
    assert np.abs(others[:9]).max() > 0.01  # of water on ethanol
    assert np.abs(others[9:] - before[9:]).max() < 1e-6


def test_a_scale_leads_from_the_force_field_to_the_potential(potential, ethanol, solution):
    topology, positions, mm = solution
    mixed = openmmml.MLPotential("schnet", model=potential).createMixedSystem(
        topology, mm, range(9), interpolate=True
    )
    context = context_of(mixed, positions)
    context.setParameter("lambda_interpolate", 0.0)
    classical, _ = energy_and_forces(context)
    assert classical == pytest.approx(energy_and_forces(context_of(mm, positions))[0], abs=1e-3)
    context.setParameter("lambda_interpolate", 1.0)
    assert energy_and_forces(context)[0] < classical - 4000  # ethanol's energy from its atomic references


@pytest.mark.process
def test_the_energy_of_a_molecule_in_water_is_conserved(potential, solution):
    topology, positions, mm = solution
    for index in range(mm.getNumForces()):
        if isinstance(mm.getForce(index), openmm.CMMotionRemover):
            mm.removeForce(index)
            break
    mixed = openmmml.MLPotential("schnet", model=potential).createMixedSystem(topology, mm, range(9))
    integrator = openmm.VerletIntegrator(0.0002)
    integrator.setConstraintTolerance(1e-8)
    context = openmm.Context(mixed, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=20)
    total = []
    for _ in range(20):
        integrator.step(5)
        state = context.getState(energy=True)
        total.append((state.getPotentialEnergy() + state.getKineticEnergy())._value * kJ_per_mol)
    drift, fluctuation = fit_drift(total, 1.0, len(positions))
    assert abs(drift) < 1.0
    assert fluctuation < 0.1


def test_wrong_input_is_refused(potential, ethanol):
    with pytest.raises(TypeError, match=r"MLPotential\('schnet'\) needs `model`"):
        openmmml.MLPotential("schnet")
    with pytest.raises(TypeError, match="steps"):
        openmmml.MLPotential("schnet", model=potential, steps=3).createSystem(topology_of(ethanol))
    topology = topology_of(ethanol)
    topology.addAtom("M", None, next(topology.residues()))
    with pytest.raises(ValueError, match="`topology` must hold the elements"):
        openmmml.MLPotential("schnet", model=potential).createSystem(topology)
    system = openmmml.MLPotential("schnet", model=potential).createSystem(topology_of(molecule("CH3Cl")))
    with pytest.raises(openmm.OpenMMException, match="`z` contains 17, which was absent from training"):
        energy_and_forces(context_of(system, molecule("CH3Cl").positions / 10))
    crystal = Atoms("C", cell=[3, 3, 3], pbc=True)
    whole = openmmml.MLPotential("schnet", model=Potential(SchNet.paper())).createSystem(topology_of(crystal))
    with pytest.raises(openmm.OpenMMException, match="`pbc` must be false for a SchNet without cutoff"):
        energy_and_forces(context_of(whole, crystal.positions))


def test_the_entry_point_imports_no_torch():
    code = "import sys, openmmml, pyg_schnet.simulation.engines.openmm_ml; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
