"""What ASE builds on a calculator works with this one."""

import threading

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.filters import FrechetCellFilter
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.phonons import Phonons
from ase.vibrations import Vibrations

from pyg_schnet.simulation import SchNetCalculator
from pyg_schnet.simulation.velocities import draw_momenta


@pytest.fixture
def carbon(calculator):
    """Diamond at the cell where this potential has no stress."""
    atoms = bulk("C", "diamond", a=3.6)
    atoms.calc = calculator
    return atoms


def test_the_hessian_is_symmetric_and_has_six_modes_that_cost_nothing(calculator, tmp_path):
    atoms = molecule("H2O")
    atoms.calc = calculator
    assert BFGS(atoms, logfile=None).run(fmax=1e-5, steps=500)
    found = Vibrations(atoms, name=str(tmp_path / "vib"), delta=0.002, nfree=4)
    found.run()
    data = found.get_vibrations()
    hessian = data.get_hessian_2d()
    assert np.abs(hessian - hessian.T).max() < 1e-6 * np.abs(hessian).max()
    energies = np.sort(np.abs(data.get_energies()))  # eV
    # The square root of rounding: measured 1e-5, and 0.01 for what vibrates.
    assert energies[5] < 5e-4
    assert energies[6] > 10 * energies[5]


def test_phonons_have_three_acoustic_branches(carbon, tmp_path):
    phonons = Phonons(carbon, carbon.calc, supercell=(3, 3, 3), delta=0.01, name=str(tmp_path / "phonon"))
    phonons.run()
    phonons.read(acoustic=False)
    at_rest = np.sort(np.abs(phonons.band_structure([[0, 0, 0]])[0]))  # eV
    elsewhere = np.abs(phonons.band_structure([[0.5, 0.0, 0.5]])[0])
    assert at_rest[2] < 0.02 * elsewhere.max()
    assert at_rest[3] > 5 * at_rest[2]


def test_a_cell_is_relaxed_by_its_stress(carbon):
    strain = np.array([[1.02, 0.01, 0], [0.01, 0.99, 0], [0, 0, 1.01]])
    carbon.set_cell(carbon.cell.array @ strain, scale_atoms=True)
    before = carbon.get_potential_energy()
    assert BFGS(FrechetCellFilter(carbon), logfile=None).run(fmax=1e-3, steps=200)
    assert carbon.get_potential_energy() < before
    assert np.abs(carbon.get_stress()).max() < 1e-3


def test_a_barostat_moves_the_cell_and_conserves_its_energy(carbon):
    atoms = carbon.repeat((2, 2, 2))
    atoms.calc = carbon.calc
    draw_momenta(atoms, 300, np.random.default_rng(0), rotation=True)
    options = {"temperature_K": 300, "pressure_au": 0.0, "tdamp": 50 * units.fs, "pdamp": 500 * units.fs}
    dynamics = IsotropicMTKNPT(atoms, 0.5 * units.fs, **options)
    conserved, volume = [], atoms.get_volume()
    for _ in range(20):
        dynamics.run(5)
        conserved.append(dynamics.get_conserved_energy())
    assert abs(atoms.get_volume() / volume - 1) > 1e-5
    assert np.ptp(conserved) < 0.005 * len(atoms)  # eV


def test_a_band_of_images_moves_alike_with_one_calculator_and_with_many(potential):
    first, last = molecule("H2O2"), molecule("H2O2")
    last.rattle(0.2, seed=0)
    one, ends = SchNetCalculator(potential), []
    for together in (True, False):
        images = [first.copy(), *(first.copy() for _ in range(3)), last.copy()]
        for image in images:
            image.calc = one if together else SchNetCalculator(potential)
        band = NEB(images, allow_shared_calculator=together, method="improvedtangent")
        band.interpolate()
        FIRE(band, logfile=None).run(fmax=0.01, steps=10)
        ends.append(band.get_positions())
    assert np.abs(ends[1] - ends[0]).max() < 1e-9


@pytest.mark.parametrize("system", ["ethanol", "crystal"])
def test_a_socket_hands_on_the_same_numbers(potential, request, system):
    atoms = request.getfixturevalue(system)
    expected = atoms.copy()
    expected.calc = SchNetCalculator(potential)
    server = SocketIOCalculator(unixsocket=f"schnet-{system}", timeout=20)

    def serve():
        own = atoms.copy()
        own.calc = SchNetCalculator(potential)
        SocketClient(unixsocket=f"schnet-{system}", timeout=20).run(own, use_stress=system == "crystal")

    with server:
        atoms.calc = server
        thread = threading.Thread(target=serve)
        thread.start()
        assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-8)
        assert np.abs(atoms.get_forces() - expected.get_forces()).max() < 1e-8
        if system == "crystal":
            assert np.abs(atoms.get_stress() - expected.get_stress()).max() < 1e-8
    thread.join(20)
    assert not thread.is_alive()
