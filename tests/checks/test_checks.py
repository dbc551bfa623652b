"""Each check detects the defect that it is made for, and no other: a correct model with one defect each."""

from __future__ import annotations

import math
from importlib.util import find_spec

import pytest
import torch
import torch_geometric
from ase import Atoms
from ase.build import bulk, molecule
from torch import nn
from torch_geometric.data import Batch

from pyg_schnet import Ensemble, Potential, SchNet
from pyg_schnet.checks import CHECKS, CheckResult, Report, check
from pyg_schnet.nn import filter_table as spline
from pyg_schnet.transforms.ase_atoms import from_ase

REACH = 4.0  # Å
WELL = {1: 0.6, 6: 1.1, 8: 1.0}  # of Morse's potential: half the length of a bond, roughly
FAST = {"duration": 0.1, "number": 2}


def morse(z, pos, batch, strength=lambda source, target: 1.0, envelope=None):
    """Pairs of atoms bound by Morse's potential within 4 Å, smoothly; energies in eV."""
    if any(number not in WELL for number in z.tolist()):
        raise ValueError("`z` contains an element that this potential does not know")
    distance = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
    near = (batch[:, None] == batch) & (distance < REACH) & ~torch.eye(len(pos), dtype=torch.bool)
    source, target = near.nonzero().T
    r = (pos[source] - pos[target]).norm(dim=1)
    radius = torch.tensor([WELL.get(number, 1.0) for number in range(10)], dtype=pos.dtype)
    bond = radius[z[source]] + radius[z[target]]
    fade = (1 - (r / REACH) ** 2).clamp(min=0) ** 3 if envelope is None else envelope(r)
    pair = 1.5 * ((1 - torch.exp(-1.2 * (r - bond))) ** 2 - 1) * fade * strength(source, target)
    molecules = int(batch[-1]) + 1
    return torch.zeros(molecules, dtype=pair.dtype).index_add(0, batch[target], pair / 2)


def add(term):
    """Add a term of each atom to Morse's potential."""

    def model(z, pos, batch):
        energy = morse(z, pos, batch)
        return energy.index_add(0, batch, term(z, pos, batch))

    return model


def with_forces(change):
    """Give forces beside energies, changed."""

    def model(z, pos, batch):
        pos = pos.detach().requires_grad_()
        energy = morse(z, pos, batch)
        (gradient,) = torch.autograd.grad(energy.sum(), pos)
        return {"energy": energy, "forces": change(-gradient, pos)}

    return model


def handedness(z, pos, batch):
    """The volume of the tetrahedron of the first four atoms, which mirrors change the sign of."""
    first = torch.cat([torch.ones(1, dtype=torch.bool), batch.diff() > 0]).nonzero().flatten()
    sizes = torch.bincount(batch)
    volume = torch.zeros_like(pos[:, 0])
    for start, size in zip(first.tolist(), sizes.tolist(), strict=True):
        if size > 3:
            a, b, c = (pos[start + k] - pos[start] for k in (1, 2, 3))
            volume = volume.index_add(
                0, torch.tensor([start]), torch.linalg.det(torch.stack([a, b, c]))[None]
            )
    return 0.01 * volume


def moving_away(z, pos, batch):
    energy = morse(z, pos, batch)
    pos.data.add_(1e-3)
    return energy


def kink(r):
    """Goes to zero at 4 Å, with a slope: forces jump."""
    return (1 - r / REACH).clamp(min=0)


NOISE = torch.Generator().manual_seed(0)
BROKEN = {
    "rotation": (add(lambda z, pos, batch: 0.01 * pos[:, 0] ** 2), "rotation, energy"),
    "reflection": (add(handedness), "reflection, energy"),
    "translation": (add(lambda z, pos, batch: 0.01 * pos.norm(dim=1)), "translation, forces"),
    "permutation": (
        lambda z, pos, batch: morse(z, pos, batch, lambda i, j: 1 + 0.001 * (i % 3) * (j % 3)),
        "permutation, energy",
    ),
    "batching": (add(lambda z, pos, batch: 0.01 * torch.ones(len(z)) * len(z)), "batching, energy"),
    "noise": (
        add(lambda z, pos, batch: 1e-6 * torch.randn(len(z), generator=NOISE).double()),
        "repetition, energy",
    ),
    "changes its input": (moving_away, "repetition, positions"),
    "drifting": (with_forces(lambda forces, pos: forces + 0.01), "balance, forces"),
    "turning": (
        with_forces(lambda forces, pos: forces + 0.01 * torch.linalg.cross(pos, torch.ones_like(pos))),
        "balance, torques",
    ),
    "too strong": (with_forces(lambda forces, pos: 1.01 * forces), "forces, finite differences"),
    "with a curl": (
        with_forces(lambda forces, pos: forces + 0.05 * pos.roll(1, 0).flip(1)),
        "loop, work",
    ),
    "cut": (
        lambda z, pos, batch: morse(z, pos, batch, envelope=torch.ones_like),
        "smoothness, energy",
    ),
    "with a kink": (lambda z, pos, batch: morse(z, pos, batch, envelope=kink), "smoothness, forces"),
    "heating": (
        with_forces(lambda forces, pos: forces + 2 * torch.linalg.cross(pos, torch.ones_like(pos))),
        "drift, energy",
    ),
    "seeing all": (
        add(lambda z, pos, batch: 0.01 * torch.bincount(batch)[batch].double()),
        "extensivity, energy",
    ),
    "constant beyond 50 atoms": (
        lambda z, pos, batch: torch.where(torch.bincount(batch) > 50, -100.0, morse(z, pos, batch)),
        "extensivity, energy",
    ),
    "without walls": (lambda z, pos, batch: -morse(z, pos, batch), "bonds, barrier"),
}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """The models of these tests compute all pairs of atoms in a batch."""
    monkeypatch.setattr("pyg_schnet.checks.model_adapter._BATCH_ATOMS", 200)


@pytest.fixture(scope="module")
def molecules():
    found = [molecule("CH3CH2OH"), molecule("CH3OH")]
    for one in found:
        one.rattle(0.03, seed=0)  # out of the plane that mirrors them
    return found


def verdicts(report: Report) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in report.findings}


def test_a_correct_model_fails_no_check(molecules):
    report = check(morse, molecules, **FAST)
    report.assert_passed()
    assert report.precision == "float64"
    skipped = {finding.check for finding in report.findings if finding.verdict == "skip"}
    assert skipped == {"stress", "float32", "mixed", "compiled", "splines"}  # of potentials and modules alone
    assert {f.check for f in report.findings} == {"evaluation", *CHECKS}


@pytest.mark.parametrize(("model", "finding"), BROKEN.values(), ids=BROKEN)
def test_each_defect_is_detected_by_its_check(model, finding, molecules):
    name = finding.split(",")[0]
    report = check(model, molecules, [name], **FAST)
    assert report[finding].verdict == "fail"
    assert report[finding].note


def test_an_untrained_potential_passes_with_a_limit_for_its_bonds(molecules):
    torch.manual_seed(0)
    model = SchNet(hidden_channels=8, num_filters=8, num_interactions=2, cutoff=4.0, envelope="polynomial")
    report = check(Potential(model, 0.01, elements=[1, 6, 8]), molecules, **FAST)
    report.assert_passed()
    assert report["bonds, barrier"].verdict == "limit"
    assert "not trained" in report["bonds, barrier"].note
    assert report["compiled, energy"].value < 1e-2
    assert report["elements, foreign"].value == 0
    assert report["padding"].verdict == "pass"


@pytest.mark.process
def test_stresses_of_crystals_are_checked():
    torch.manual_seed(0)
    model = SchNet(hidden_channels=8, num_filters=8, num_interactions=2, cutoff=4.0, envelope="polynomial")
    crystal = bulk("Si", cubic=True)
    crystal.rattle(0.05, seed=0)
    report = check(Potential(model, 0.01, elements=[14]), [crystal, bulk("Si")], **FAST)
    report.assert_passed()
    assert report["stress, finite differences"].value < 1e-8
    assert report["bonds"].verdict == "skip"


class _CellBlind(SchNet):
    """Has no gradient by the cell in edges across the boundary."""

    def forward(self, z, pos, batch=None, edge_index=None, shift=None, cell=None, pbc=None, **kwargs):
        return super().forward(z, pos, batch, edge_index, shift, cell.detach(), pbc, **kwargs)


def test_a_stress_without_the_gradient_by_the_cell_fails():
    torch.manual_seed(0)
    model = _CellBlind(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=4.0)
    report = check(Potential(model), bulk("Si", cubic=True), ["stress"])
    assert report["stress, finite differences"].verdict == "fail"


def test_without_a_cutoff_extensivity_is_a_limit_and_no_failure(molecules, randomize):
    model = randomize(SchNet.paper(hidden_channels=8, num_filters=8, num_interactions=1))
    report = check(Potential(model), molecules, ["extensivity"])
    assert report["extensivity, energy"].verdict == "limit"
    assert report["extensivity, energy"].value > 1e-3
    assert report.passed


def test_a_mean_over_atoms_is_not_extensive(molecules):
    model = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=4.0, readout="mean")
    report = check(Potential(model), molecules, ["extensivity"])
    assert report["extensivity, energy"].verdict == "fail"


def test_splines_that_change_the_filters_fail(molecules, monkeypatch):
    torch.manual_seed(0)
    model = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=4.0)
    assert check(Potential(model), molecules, ["splines"]).passed
    monkeypatch.setattr("pyg_schnet.nn.filter_table.convolve", lambda *args: 1.01 * spline.convolve(*args))
    assert not check(Potential(model), molecules, ["splines"]).passed


def test_knots_that_are_too_far_apart_for_the_filters_are_not_used(molecules, monkeypatch):
    torch.manual_seed(0)
    model = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=4.0)
    monkeypatch.setattr("pyg_schnet.nn.knots.knot_spacing", lambda _: 0.5)
    assert check(Potential(model), molecules, ["splines"]).passed


def test_a_compiled_program_that_differs_fails(molecules, monkeypatch):
    monkeypatch.setattr("pyg_schnet.compile.compiled.difference", lambda *_: "energies differ by 1 eV")
    model = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=4.0, filters="spline")
    report = check(Potential(model), molecules, ["compiled"])
    assert "energies differ by 1 eV" in report["compiled"].note
    assert not report.passed


class _Large(nn.Module):
    """Total energies, of which float32 has steps of 1 meV."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(2.0e4))

    def forward(self, z, pos, batch):
        return morse(z, pos, batch) + self.offset


def test_large_energies_in_float32_fail(molecules):
    report = check(_Large(), molecules, ["float32"])
    assert report["float32, energy"].verdict == "fail"


def test_an_ensemble_and_a_checkpoint_are_checked_like_a_potential(molecules, tmp_path):
    from pyg_schnet.potentials.checkpoint import save

    members = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        members.append(Potential(SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=4.0)))
    only = ["rotation", "forces", "drift"]
    assert check(Ensemble(members), molecules, only, **FAST).passed
    save(members[0], tmp_path / "model.safetensors")
    assert check(tmp_path / "model.safetensors", molecules, only, **FAST).passed


def pyg_graph(radius, most):
    """PyG's graph: within a radius, the first neighbors only; its own needs pyg-lib."""

    def graph(pos, batch):
        distance = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
        near = (distance < radius) & (batch[:, None] == batch) & ~torch.eye(len(pos), dtype=torch.bool)
        target, source = (near & (near.cumsum(1) <= most)).nonzero().T
        return torch.stack([source, target]), (pos[source] - pos[target]).norm(dim=1)

    return graph


def pyg_schnet(randomize, graph=None):
    model = torch_geometric.nn.SchNet(
        hidden_channels=8, num_filters=8, num_interactions=2, num_gaussians=20, cutoff=5.0,
        interaction_graph=graph,
    )  # fmt: skip
    return randomize(model)


@pytest.mark.process
def test_pygs_schnet_passes_with_all_neighbors_within_its_cutoff(randomize, molecules):
    model = pyg_schnet(randomize, pyg_graph(5.0, 10_000))
    report = check(model, molecules, [name for name in CHECKS if name != "drift"], **FAST)
    report.assert_passed()
    limits = [finding.name for finding in report.findings if finding.verdict == "limit"]
    assert limits == ["bonds, barrier", "elements, foreign", "padding, energy"]


@pytest.mark.process
def test_pygs_schnet_with_32_neighbors_depends_on_the_order_of_atoms_and_jumps(randomize, molecules):
    report = check(pyg_schnet(randomize, pyg_graph(5.0, 32)), molecules, ["permutation", "smoothness"])
    assert report["permutation, energy"].verdict == "fail"
    assert report["smoothness, energy"].verdict == "fail"


@pytest.mark.process
def test_pygs_envelope_rises_again_on_a_wider_graph(randomize):
    report = check(pyg_schnet(randomize, pyg_graph(7.0, 10_000)), molecule("CO"), ["smoothness"])
    assert report["smoothness, energy"].verdict == "fail"


def test_pygs_schnet_does_not_run_without_pyg_lib(randomize, molecules):
    if find_spec("torch_cluster") or find_spec("pyg_lib"):
        pytest.skip("pyg-lib or torch-cluster is installed")
    report = check(pyg_schnet(randomize), molecules)
    assert [finding.name for finding in report.findings] == ["evaluation"]
    assert "pyg-lib" in report["evaluation"].note or "torch-cluster" in report["evaluation"].note  # PyG 2.6


def test_assert_passed_raises_with_the_failed_checks(molecules):
    report = check(BROKEN["too strong"][0], molecules, ["forces"])
    with pytest.raises(AssertionError, match=r"model fails:\nfail +forces, finite differences: .* eV/Å"):
        report.assert_passed()


def test_nan_fails():
    assert CheckResult.measured("x", "", math.nan, 1.0, "eV").verdict == "fail"
    assert CheckResult.measured("x", "", math.nan, 1.0, "eV", at_least=True).verdict == "fail"


def test_an_error_of_the_model_is_a_failure(molecules):
    def model(z, pos, batch):
        if len(batch.unique()) > 1:
            raise RuntimeError("no batches\nhere")
        return morse(z, pos, batch)

    report = check(model, molecules, ["batching"])
    assert report["evaluation, not finite"].verdict == "pass"
    assert report["batching"].note == "it raised RuntimeError: no batches here"


def pairs(term):
    """Add a term of each pair of a carbon and an oxygen atom to Morse's potential."""

    def model(z, pos, batch):
        distance = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
        near = (batch[:, None] == batch) & (z[:, None] == 6) & (z[None, :] == 8) & (distance < 10)
        source, target = near.nonzero().T
        own = term((pos[source] - pos[target]).norm(dim=1))
        return morse(z, pos, batch).index_add(0, batch[target], own)

    return model


@pytest.mark.parametrize(("place", "size"), [(1.9, 1e-3), (3.3, -1e-3), (6.3, 1e-3)])
def test_a_small_jump_of_forces_is_found_beside_steep_walls(place, size):
    model = pairs(lambda r: size * (r - place).clamp(max=0))
    found = check(model, molecule("CO"), "smoothness")["smoothness, forces"]
    assert found.value == pytest.approx(1e-3, rel=1e-3)
    assert found.verdict == "fail"


def test_a_jump_between_the_last_of_many_elements_is_found():
    def model(z, pos, batch):
        near = (z[:, None] == 8) & (z[None, :] == 9) & (batch[:, None] == batch)
        pair = 1e-4 * (torch.cdist(pos, pos) < 3.0).double() * near
        return torch.zeros(int(batch[-1]) + 1).double().index_add(0, batch, pair.sum(1) + 0 * pos.sum(1))

    report = check(model, [molecule("CF4"), molecule("CH3CONH2")], "smoothness")
    assert report["smoothness, energy"].value == pytest.approx(1e-4)


def nitrogen(z, pos, batch):
    """N2's bond of 9.9 eV: the stiffest there is but CO's."""
    r = (pos[::2] - pos[1::2]).norm(dim=1)
    return 9.9 * ((1 - torch.exp(-2.69 * (r - 1.098))) ** 2 - 1)


def test_the_stiffest_bond_has_right_forces():
    check(nitrogen, molecule("N2"), "forces").assert_passed()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_rounds_inside_to_float32_is_no_failure(dtype, molecules):
    only = ["rotation", "permutation", "balance", "forces", "smoothness"]
    report = check(lambda z, pos, batch: morse(z, pos.float(), batch).to(dtype), molecules, only)
    report.assert_passed()
    assert report.precision == "float32"
    only = check(lambda z, pos, batch: morse(z, pos.float(), batch).to(dtype), molecules, "float32")
    assert "float32" in only["float32"].note


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_need_not_be_on_outside(mode, molecules):
    with mode():
        check(morse, molecules, ["forces"]).assert_passed()


def test_a_single_atom_may_have_a_constant_energy(molecules):
    def model(z, pos, batch):
        return morse(z, pos, batch) if len(z) > 1 else torch.zeros(1).double()

    check(model, molecules, ["batching"]).assert_passed()


def test_energies_that_are_not_finite_fail(molecules):
    def model(z, pos, batch):
        far = torch.cdist(pos, pos).max() > 8.0
        return morse(z, pos, batch) * (math.nan if far else 1.0)

    report = check(model, molecules, ["extensivity"])
    assert "not finite" in report["extensivity"].note


def test_an_error_of_a_check_itself_is_raised(molecules, monkeypatch):
    monkeypatch.setattr("pyg_schnet.checks.symmetry._split", None)
    with pytest.raises(TypeError, match="NoneType"):
        check(morse, molecules, ["rotation"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda energy: {"energies": energy},
            "it returned a dictionary without 'energy', with keys 'energies'",
        ),
        (lambda energy: (energy, torch.zeros(9, 16)), "its forces must have the shape of positions, (9, 3)"),
        (lambda energy: energy.sum(), "it returned 1 energies for 3 molecules"),
        (lambda energy: 3.0, "it returned float, expected a tensor"),
    ],
)
def test_output_of_a_wrong_kind_is_described(change, message, molecules):
    report = check(lambda z, pos, batch: change(morse(z, pos, batch)), molecules, ["rotation"], **FAST)
    assert message in str(report)


def test_a_batch_is_checked_molecule_by_molecule(molecules):
    batch = Batch.from_data_list([from_ase(one) for one in molecules])
    assert check(morse, batch, ["rotation"])["evaluation, not finite"].unit == "of 2"


def test_a_potential_that_accepts_any_element_fails(molecules):
    model = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=4.0)
    assert check(Potential(model), molecules, "elements")["elements, foreign"].verdict == "fail"


def proton(z, pos, batch):
    """A proton between two oxygen atoms, at either of which it may be."""
    distance = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
    near = (batch[:, None] == batch) & ~torch.eye(len(pos), dtype=torch.bool)
    source, target = (near & ((z[:, None] == 1) != (z == 1))).nonzero().T
    r = distance[source, target]
    pair = 4.0 * ((1 - torch.exp(-3.6 * (r - 0.97))) ** 2 - 1)
    return torch.zeros(int(batch[-1]) + 1).double().index_add(0, batch[target], pair / 2)


def test_a_proton_that_moves_to_another_atom_is_no_unphysical_minimum():
    shared = Atoms("OHO", [[0, 0, 0], [0.98, 0, 0], [2.5, 0, 0]])
    assert check(proton, shared, "bonds").passed
    lonely = check(lambda z, pos, batch: -proton(z, pos, batch), shared, "bonds")
    assert not lonely.passed


def test_evaluation_can_be_the_only_check(molecules):
    report = check(morse, molecules, ["evaluation"])
    assert [finding.name for finding in report.findings] == ["evaluation, not finite"]


def test_bonds_that_break_without_a_minimum_are_described():
    report = check(lambda z, pos, batch: 0.01 * nitrogen(z, pos, batch), molecule("N2"), "bonds")
    assert "costs no more energy" in report["bonds, barrier"].note


def test_an_ensemble_is_compared_with_its_programs_and_without_splines(molecules):
    members = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        members.append(Potential(SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=4.0)))
    report = check(Ensemble(members), molecules, ["splines", "compiled"])
    assert report["splines, forces"].verdict == report["compiled, forces"].verdict == "pass"


def test_another_model_in_a_potential_is_examined_as_it_is_used(randomize, molecules):
    model = Potential(pyg_schnet(randomize, pyg_graph(5.0, 10_000)), 0.01, elements=[1, 6, 8])
    check(model, molecules, ["rotation", "float32", "drift"], **FAST).assert_passed()


def test_checks_end_if_energies_are_nan(molecules):
    report = check(lambda z, pos, batch: morse(z, pos, batch) * math.nan, molecules)
    assert report["evaluation, not finite"].value == 2
    assert len(report.findings) == 1


def test_a_model_that_computes_in_float32_is_checked_in_float32(molecules):
    weights = nn.Linear(1, 1)

    def model(z, pos, batch):
        return morse(z, pos, batch) + 0 * weights(pos[:1, :1]).sum()  # which float64 cannot enter

    report = check(model, molecules, ["rotation", "forces"])
    assert report.precision == "float32"
    report.assert_passed()


def test_the_model_is_not_modified(molecules):
    potential = Potential(SchNet(hidden_channels=8, num_filters=8, num_interactions=1)).train()
    check(potential, molecules, ["rotation"])
    assert potential.training
    assert potential.compiled is None
    assert next(potential.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((morse, []), ValueError, "`structures` must hold at least one structure, got none"),
        ((morse, 3), TypeError, "`structures` must be a file, or structures of ASE or PyG, got int"),
        ((morse, [3]), TypeError, "`structures` must hold ase.Atoms, or Data with `z` and `pos`, got int"),
        ((3, molecule("H2O")), TypeError, r"`model` must be a Potential or callable"),
        ((morse, molecule("H2O"), ["rotatoin"]), ValueError, "Did you mean 'rotation'"),
        ((morse, "none.xyz"), FileNotFoundError, "none.xyz: no such file"),
        ((morse, bulk("Si")), ValueError, "`structures` must not be periodic for a model called with"),
    ],
)
def test_wrong_arguments_are_rejected(arguments, kind, message):
    with pytest.raises(kind, match=message):
        check(*arguments)
