import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes

from pyg_schnet import Potential, SchNet
from pyg_schnet.simulation import SchNetCalculator


class Springs(Calculator):
    """Harmonic springs between all pairs of atoms, at rest in the structure given."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, rest: Atoms, stiffness: float = 5.0):
        super().__init__()
        self.rest = np.linalg.norm(rest.positions[:, None] - rest.positions, axis=2)
        self.stiffness = stiffness  # eV/Å²
        self.calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, list(properties), list(system_changes))
        self.calls += 1
        vector = self.atoms.positions[:, None] - self.atoms.positions  # (atoms, atoms, 3)
        distance = np.linalg.norm(vector, axis=2)
        stretch = distance - self.rest
        np.fill_diagonal(distance, 1.0)
        pull = self.stiffness * stretch / distance
        self.results = {
            "energy": 0.25 * self.stiffness * (stretch**2).sum(),
            "forces": -(pull[:, :, None] * vector).sum(axis=1),
        }


@pytest.fixture
def springs():
    return Springs


@pytest.fixture(scope="session")
def potential():
    """A small random potential in float64, for H, C, N and O; forces are some tenths of eV/Å."""
    torch.manual_seed(0)
    model = SchNet(
        hidden_channels=8,
        num_filters=8,
        num_interactions=2,
        num_gaussians=12,
        cutoff=4.0,
        envelope="polynomial",
    )
    atomref = torch.zeros(100)
    atomref[[1, 6, 7, 8]] = torch.tensor([-13.6, -1029.0, -1485.0, -2042.0])
    return Potential(model.double(), scale=0.5, atomref=atomref, elements=[1, 6, 7, 8]).eval()


@pytest.fixture
def overflowing():
    """A potential whose weights are finite and whose energies are not, except for a single atom."""
    torch.manual_seed(0)
    sizes = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 8}
    model = SchNet(**sizes, cutoff=4.0, zero_output=False)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(1e30 if "filter_network" in name else 1.0)
    return Potential(model).eval()


@pytest.fixture
def calculator(potential):
    return SchNetCalculator(potential)


@pytest.fixture
def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def crystal():
    atoms = bulk("C", "diamond", a=3.6)
    atoms.rattle(0.05, seed=2)
    return atoms


@pytest.fixture
def evaluations(calculator):
    """The molecules that the calculator's model evaluates, one entry a call."""
    calls = []
    calculator.potential.model.register_forward_hook(lambda *arguments: calls.append(arguments))
    return calls


@pytest.fixture
def no_gradient(monkeypatch):
    def fail(*arguments, **options):
        pytest.fail("a gradient was computed")

    monkeypatch.setattr(torch.autograd, "grad", fail)
