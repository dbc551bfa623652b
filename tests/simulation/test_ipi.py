"""i-PI receives the energies, forces and virials of ASE's calculator, of one structure or all beads."""

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.io import write

from pyg_schnet import Potential, SchNet, save
from pyg_schnet.simulation import IpiDriver, SchNetCalculator
from pyg_schnet.simulation.engines import ipi_driver
from pyg_schnet.simulation.statistics import fit_drift

LENGTH, ENERGY = units.Bohr, units.Hartree
INPUT = """
<simulation verbosity='quiet'>
  <output prefix='run'>
    <properties filename='out'> [ conserved{{electronvolt}}, potential{{electronvolt}} ] </properties>
  </output>
  <total_steps> 40 </total_steps>
  <prng> <seed> 1 </seed> </prng>
  <ffsocket name='schnet' mode='unix' pbc='false'>
    <address> {address} </address> <batch_size> {batch} </batch_size> <timeout> 20 </timeout>
  </ffsocket>
  <system>
    <initialize nbeads='8'>
      <file mode='ase'> start.xyz </file> <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces> <force forcefield='schnet'/> </forces>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nve'> <timestep units='femtosecond'> 0.25 </timestep> </dynamics>
    </motion>
  </system>
</simulation>
"""


def moved(atoms, seed):
    """A bead: the atoms elsewhere, in a cell that is strained a little."""
    bead = atoms.copy()
    bead.set_cell(atoms.cell.array @ [[1 + 0.01 * seed, 0, 0], [0.02, 1, 0], [0, 0.01, 1]], scale_atoms=True)
    bead.rattle(0.05, seed=seed)
    return bead


def as_ipi_sends(beads):
    """Lattice vectors in columns, and positions."""
    cells = [np.array(bead.cell.array.T / LENGTH) for bead in beads]
    return cells, [bead.positions / LENGTH for bead in beads]


# Measured 1e-15; 1e-5 is the bound of all engines.
@pytest.mark.parametrize("name", ["ethanol", "crystal"])
def test_beads_have_ases_energies_forces_and_virials(potential, name, request):
    atoms = request.getfixturevalue(name)
    driver = IpiDriver(potential, atoms)
    beads = [moved(atoms, seed) for seed in range(3)]
    cells, positions = as_ipi_sends(beads)
    together = driver(cells, positions)
    for bead, cell, pos, results in zip(beads, cells, positions, together, strict=True):
        bead.calc = SchNetCalculator(potential)
        for energy, forces, virial, extra in (results, driver(cell, pos)):
            assert energy * ENERGY == pytest.approx(bead.get_potential_energy(), abs=1e-8)
            np.testing.assert_allclose(forces * ENERGY / LENGTH, bead.get_forces(), atol=1e-9)
            expected = 0 * virial
            if name == "crystal":
                expected = -bead.get_stress(voigt=False) * bead.get_volume()
                assert np.abs(expected).max() > 1e-3
            np.testing.assert_allclose(virial * ENERGY, expected, atol=1e-9)
            assert extra == ""


def test_a_template_may_be_a_file_and_a_model_a_checkpoint(potential, ethanol, tmp_path):
    save(potential, tmp_path / "model.safetensors")
    write(tmp_path / "start.xyz", ethanol)
    driver = IpiDriver(str(tmp_path / "model.safetensors"), str(tmp_path / "start.xyz"))
    ethanol.calc = SchNetCalculator(potential)
    energy, *_ = driver(np.eye(3), ethanol.positions / LENGTH)
    assert energy * ENERGY == pytest.approx(ethanol.get_potential_energy(), abs=1e-5)  # digits of the file


def test_wrong_templates_are_refused(potential, ethanol, crystal):
    with pytest.raises(ValueError, match=r"`template` must have the 8 atoms of i-PI's simulation, got 9"):
        IpiDriver(potential, ethanol)(np.eye(3), ethanol.positions[:8])
    with pytest.raises(ValueError, match=r"`atoms\.pbc`.*for i-PI, got \[True, True, False\]"):
        IpiDriver(potential, Atoms("H", cell=[3, 3, 9], pbc=[True, True, False]))
    with pytest.raises(ValueError, match="`z` contains 9, which was absent from training"):
        IpiDriver(potential, Atoms("F"))(np.eye(3), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="`pbc` must be false for a SchNet without cutoff"):
        IpiDriver(Potential(SchNet.paper()), crystal)(crystal.cell.array.T, crystal.positions)


def test_ipi_loads_the_driver_from_its_file(potential, ethanol):
    pes = pytest.importorskip("ipi.pes", reason="needs i-PI: pip install 'pyg-schnet[ipi]'")
    driver = pes.load_pes("custom", ipi_driver.__file__)(model=potential, template=ethanol, verbosity=0)
    assert len(driver(np.eye(3), ethanol.positions / LENGTH)) == 4


# A ring polymer of 8 beads: i-PI's conserved energy is that of springs, momenta and our potential together.
@pytest.mark.process
@pytest.mark.parametrize("batch", [1, 8])
def test_path_integrals_through_a_socket_conserve_energy(ethanol, tmp_path, batch):
    pytest.importorskip("ipi", reason="needs i-PI: pip install 'pyg-schnet[ipi]'")
    torch.manual_seed(0)
    potential = Potential(SchNet(8, 8, 2, 12, 4.0, envelope="polynomial").double(), scale=0.5).eval()
    save(potential, tmp_path / "model.safetensors")
    ethanol.center(vacuum=5.0)
    write(tmp_path / "start.xyz", Atoms(ethanol.numbers, ethanol.positions, cell=ethanol.cell))
    address = f"pyg-schnet-{uuid4().hex}"
    (tmp_path / "input.xml").write_text(INPUT.format(address=address, batch=batch), encoding="utf-8")
    programs = Path(sys.executable).parent
    server = subprocess.Popen(
        [programs / "i-pi", "input.xml"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    client = [programs / "i-pi-py_driver", "-m", "custom", "-P", ipi_driver.__file__, "-u", "-a", address]
    try:
        while not Path(f"/tmp/ipi_{address}").exists():
            assert server.poll() is None, server.communicate()
        subprocess.run(
            [*client, "-o", "model=model.safetensors,template=start.xyz"],
            cwd=tmp_path,
            check=True,
            timeout=90,
        )
        assert server.wait(timeout=30) == 0
    finally:
        server.kill()
        server.communicate()
    conserved, energies = np.loadtxt(tmp_path / "run.out").T
    ethanol.calc = SchNetCalculator(potential)
    assert energies[0] == pytest.approx(ethanol.get_potential_energy(), abs=1e-5)
    assert np.ptp(energies) > 0.01
    drift, fluctuation = fit_drift(conserved, 0.25, 8 * len(ethanol))
    assert abs(drift) < 0.2
    assert fluctuation < 1.0
