"""Atomic references are the shortest least-squares solution, and say for what they hold."""

import re
from itertools import permutations

import numpy as np
import pytest
import torch
from ase.formula import Formula
from torch.testing import assert_close

from pyg_schnet.datasets.references import Compositions, References, formula

H, C, N, O = 1, 6, 7, 8  # noqa: E741
PLANTED = {H: -13.6, C: -1035.25, N: -1488.5, O: -2042.125}


def compositions(formulas, energies=None):
    """Count formulas; the energies are the planted ones of the atoms if none are given."""
    counts = [Formula(text).count() for text in formulas]
    numbers = {"H": H, "C": C, "N": N, "O": O}
    z = [[numbers[symbol] for symbol, n in count.items() for _ in range(n)] for count in counts]
    molecule = torch.arange(len(z)).repeat_interleave(torch.tensor([len(own) for own in z]))
    if energies is None:
        energies = [sum(PLANTED[number] for number in own) for own in z]
    return Compositions.of(
        torch.tensor([number for own in z for number in own]),
        molecule,
        torch.tensor(energies, dtype=torch.float64),
    )


def design(formulas):
    """The full matrix, a row for each molecule."""
    rows = np.zeros((len(formulas), 100))
    for row, text in zip(rows, formulas, strict=True):
        for symbol, n in Formula(text).count().items():
            row[{"H": H, "C": C, "N": N, "O": O}[symbol]] = n
    return rows


def refused(references, formulas):
    with pytest.raises(ValueError, match=r"^test\.xyz: holds") as caught:
        references.check(compositions(formulas), "test.xyz")
    return str(caught.value)


def test_compositions_are_counted_once_with_their_mean_energy():
    found = compositions(["H2O", "CO2", "H2O", "OH2"], [-1.0, -5.0, -2.0, -6.0])
    assert found.counts.sum(1).tolist() == [3, 3]
    by_name = {formula(row): i for i, row in enumerate(found.counts)}
    assert set(by_name) == {"H2O", "CO2"}
    assert found.frames[by_name["H2O"]] == 3
    assert found.frames[by_name["CO2"]] == 1
    assert found.energy[by_name["H2O"]] == pytest.approx(-3, abs=1e-14)
    assert found.energy[by_name["CO2"]] == -5
    assert found.mean_energy() == pytest.approx(-14 / 4, abs=1e-14)
    assert found.elements() == [H, C, O]
    assert {value.dtype for value in (found.counts, found.frames, found.energy)} == {torch.float64}


def test_energies_may_be_of_single_precision():
    found = Compositions.of(torch.tensor([1, 1, 8]), torch.tensor([0, 0, 1]), torch.tensor([-1.0, -2.0]))
    assert {value.dtype for value in (found.counts, found.frames, found.energy)} == {torch.float64}


def test_a_molecule_without_atoms_is_a_composition():
    found = Compositions.of(torch.tensor([1]), torch.tensor([1]), torch.tensor([0.0, -1.0, 0.5]).double())
    assert found.frames.tolist() == [2, 1]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_sets_are_joined_in_any_order(order):
    parts = [
        compositions(["H2O", "CO2"], [-1.0, 7.0]),
        compositions(["CO2"] * 3, [0.1, 0.2, 0.3]),
        compositions(["NH3"]),
        compositions(["H2O", "NH3", "NH3"], [1e6, 1e-6, 3.0]),
    ]
    merged = parts[order[0]]
    for number in order[1:]:
        merged = merged.merged(parts[number])
    energies = [-1.0, 7.0, 0.1, 0.2, 0.3, sum(PLANTED[z] for z in (N, H, H, H)), 1e6, 1e-6, 3.0]
    whole = compositions(["H2O", "CO2", "CO2", "CO2", "CO2", "NH3", "H2O", "NH3", "NH3"], energies)
    assert merged.counts.equal(whole.counts)
    assert merged.frames.equal(whole.frames)
    assert_close(merged.energy, whole.energy, atol=0, rtol=1e-14)


@pytest.mark.parametrize("formulas", [
    ["H2", "O2", "H2O"],
    ["CH4", "C2H6O", "CO2", "H2O", "CH4", "CH4"],
    ["CH4", "NH3", "H2O", "HCN", "C2H6O", "N2"],
])  # fmt: skip
def test_enough_compositions_give_back_the_planted_references(formulas):
    found = References.fit(compositions(formulas))
    for z in found.elements:
        assert found.energy[z] == pytest.approx(PLANTED[z], rel=1e-12)
    assert found.span is None
    assert found.rank == len(found.elements)


@pytest.mark.parametrize("formulas", [
    ["C2H6O"],
    ["C2H6O", "C4H12O2", "C2H6O"],
    ["CH4", "CO2", "CH4", "CO2", "CH4"],
    ["CH4", "C2H6O", "CO2", "H2O", "CH4", "CH4", "NH3"],
    ["H"],
    ["C7H10O2"] * 7,
])  # fmt: skip
@pytest.mark.parametrize("seed", range(3))
def test_the_references_are_the_shortest_that_leave_the_least_squares(formulas, seed):
    """NumPy's solution for the full matrix, a row for each molecule, is of minimum norm too."""
    energies = np.random.default_rng(seed).normal(-1000, 300, len(formulas))
    found = References.fit(compositions(formulas, energies.tolist()))
    expected, _, rank, _ = np.linalg.lstsq(design(formulas), energies, rcond=None)
    np.testing.assert_allclose(found.energy.numpy(), expected, rtol=0, atol=1e-9)
    assert found.rank == rank


def test_a_molecule_alone_shares_its_energy_in_proportion_to_its_atoms():
    """Of a · n = E, the shortest a is E n / n²: for water, n = (2, 1) and n² = 5."""
    found = References.fit(compositions(["H2O", "H2O"], [-10.0, -20.0]))
    assert found.energy[H] == pytest.approx(-6, abs=1e-12)
    assert found.energy[O] == pytest.approx(-3, abs=1e-12)


def test_a_composition_counts_as_often_as_it_occurs():
    """The mean of the energies an atom, weighted with the square of the atoms: (1·1·3 + 2·2·1) / (3 + 4)."""
    found = References.fit(compositions(["H", "H", "H", "H2"], [1.0, 1.0, 1.0, 2 * 3.0]))
    assert found.energy[H] == pytest.approx((3 * 1.0 + 2 * 6.0) / (3 + 4), abs=1e-12)


def test_absent_elements_have_exactly_zero():
    found = References.fit(compositions(["CO2", "CH4"], [-3.3, -7.7]))
    assert found.elements == (H, C, O)
    assert found.energy.nonzero().flatten().tolist() == [H, C, O]
    assert (found.energy.shape, found.energy.dtype) == ((100,), torch.float64)


def test_large_energies_keep_their_digits():
    """A thousandth of a kcal/mol, 4e-5 eV, of ten thousand eV."""
    formulas = ["C9H8O4", "C7H6O3", "C2H4O2", "H2O"] * 50
    noise = np.random.default_rng(0).normal(0, 0.1, len(formulas))
    energies = design(formulas)[:, [H, C, O]] @ [PLANTED[z] for z in (H, C, O)] + noise
    found = References.fit(compositions(formulas, energies.tolist()))
    expected = np.linalg.lstsq(design(formulas), energies, rcond=None)[0]
    np.testing.assert_allclose(found.energy.numpy(), expected, rtol=0, atol=1e-8)


def test_the_report_names_references_and_says_how_far_they_go():
    one = References.fit(compositions(["H2O"], [-10.0]))
    two = References.fit(compositions(["H2O", "CH4", "C2H8"], [-10.0, -20.0, -40.0]))
    full = References.fit(compositions(["H2", "H2O"], [-4.0, -10.0]))
    assert one.report() == (
        "Atomic references (eV): H -4.0000, O -2.0000; shares, not energies of atoms: 1 independent "
        "composition for 2 elements"
    )
    assert two.report().endswith("; shares, not energies of atoms: 2 independent compositions for 3 elements")
    assert full.report() == "Atomic references (eV): H -2.0000, O -6.0000"
    assert (one.rank, two.rank, full.rank) == (1, 2, 2)


@pytest.mark.parametrize("trained", [["CH4", "CO2", "H2O"], ["CH4"]])
def test_foreign_elements_are_refused(trained):
    assert refused(References.fit(compositions(trained)), ["CH4", "NH3"]) == (
        "test.xyz: holds N, for which there is no atomic reference; the training structures hold "
        f"{'H, C, O' if len(trained) > 1 else 'H, C'}"
    )


def test_compositions_that_do_not_follow_are_refused():
    references = References.fit(compositions(["C2H6O", "C4H12O2"]))
    assert refused(references, ["C2H6O", "CH4O"]) == (
        "test.xyz: holds CH4O, whose energy does not follow from the 1 independent composition of the "
        "training structures, fewer than their 3 elements; train on more compositions, or pass atomic "
        "references"
    )


@pytest.mark.parametrize(
    ("trained", "tested"),
    [
        (["C2H6O"], ["C2H6O", "C4H12O2", "C20H60O10"]),
        (["C4H12O2"], ["C2H6O"]),
        (["CH4", "C2H6"], ["C7H16", "H2", "C60"]),
        (["CH4", "CO2", "H2O"], ["C7H10O2", "O3"]),
        (["CH4", "CO2"], ["C2H4O2", "C3H8O2"]),
    ],
)
def test_compositions_that_follow_are_accepted(trained, tested):
    References.fit(compositions(trained)).check(compositions(tested), "test.xyz")


def test_two_compositions_of_three_elements_reach_no_third():
    references = References.fit(compositions(["CH4", "CO2"]))
    assert "holds CH2O," not in refused(references, ["H2O"])
    assert refused(references, ["H2O"]).startswith(
        "test.xyz: holds H2O, whose energy does not follow from the 2"
    )


def test_energies_that_follow_are_those_of_the_combination():
    trained = compositions(["CH4", "CO2"], [-10.0, -30.0])
    references = References.fit(trained)
    twice = design(["C3H8O2"])[0] @ references.energy.numpy()  # 2 CH4 + CO2
    assert twice == pytest.approx(2 * -10 - 30, abs=1e-10)


def test_references_that_are_given_hold_for_all_compositions_of_their_elements():
    given = References.given({O: -2042.0, H: -13.6})
    assert given.elements == (H, O)
    assert given.energy[[H, O]].tolist() == [-13.6, -2042.0]
    assert given.energy.count_nonzero() == 2
    assert (given.span, given.rank) == (None, 2)
    given.check(compositions(["H2O", "H2O2", "O3"]), "test.xyz")
    assert given.report() == "Atomic references (eV): H -13.6000, O -2042.0000"
    assert "holds C, for which there is no atomic reference" in refused(given, ["CO"])


def test_the_mean_residual_is_the_same_for_each_atom():
    """Of water, bound by 9 eV, and methane, by 17: the least squares of 3 s - 9, twice, and 5 s - 17."""
    bound = [-9.0, -9.0, -17.0]
    energies = [
        sum(PLANTED[z] for z in own) + e
        for own, e in zip([(H, H, O)] * 2 + [(C, *[H] * 4)], bound, strict=True)
    ]
    given = References.given({number: PLANTED[number] for number in (H, C, O)})
    shifted = given.with_mean_residual(compositions(["H2O", "H2O", "CH4"], energies))
    shift = (2 * 3 * -9 + 5 * -17) / (2 * 3**2 + 5**2)
    assert shifted.shift == pytest.approx(shift, abs=1e-9)
    for number in (H, C, O):
        assert shifted.energy[number] == pytest.approx(PLANTED[number] + shift, abs=1e-9)
    assert shifted.energy.count_nonzero() == 3
    assert shifted.report().startswith("Atomic references (eV): H -13.6000, C -1035.2500, O -2042.1250")
    assert f"mean residual, {shift:.4f}" in shifted.report()
    assert given.shift == 0


@pytest.mark.parametrize("number", [0, 100, -1])
def test_references_of_no_element_are_refused(number):
    reason = f"atomic references must be for atomic numbers 1 to 99, got {number}"
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        References.given({H: -13.6, number: 0.0})


@pytest.mark.parametrize(
    ("text", "hill"), [("OH2", "H2O"), ("OH6C2", "C2H6O"), ("H", "H"), ("O2C", "CO2"), ("HNC", "CHN")]
)
def test_formulas_are_written_in_hills_order(text, hill):
    assert formula(compositions([text]).counts[0]) == hill
