"""Pictures are drawn for every kind of run and data set, and are not empty."""

from dataclasses import replace

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest
import torch

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.io.formats.frames import Frames
from pyg_schnet.plots import plot_calibration, plot_data_set, plot_learning_curve, plot_parity
from pyg_schnet.potentials.calibration import Calibration
from pyg_schnet.potentials.metrics import Evaluation


def rows(number, forces=True):
    made = []
    for i in range(number):
        row = {"step": 10 * (i + 1), "val_energy_mae_eV": 0.5**i, "val_energy_rmse_eV": 1.0}
        made.append(row | ({"val_forces_mae_eV_per_A": 0.7**i} if forces else {}))
    return made


def evaluation(n, forces=True, z=(8, 1, 1)):
    generator = torch.Generator().manual_seed(0)

    def some(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Evaluation(
        n=n,
        energy_mae=0.0123,
        energy_rmse=0.0456,
        forces_mae=0.0789 if forces else None,
        forces_rmse=0.1011 if forces else None,
        energy=some(2, n) - 17638.0,
        forces=some(2, n * len(z), 3) if forces else None,
        z=torch.tensor(z).repeat(n),
    )


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to ask for their texts and lines."""
    figures, save = [], matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda self, *args, **kwargs: (figures.append(self), save(self, *args, **kwargs)),
    )
    return figures


def is_a_picture(path):
    image = matplotlib.image.imread(path)
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and min(image.shape[:2]) > 400 and image.std() > 0.02


@pytest.mark.parametrize("forces", [True, False])
@pytest.mark.parametrize("number", [1, 5])
def test_a_learning_curve_is_a_picture(tmp_path, number, forces):
    plot_learning_curve(rows(number, forces), tmp_path / "curve.png")
    assert is_a_picture(tmp_path / "curve.png")


def test_a_learning_curve_shows_the_errors_in_mev(tmp_path, drawn):
    plot_learning_curve(rows(3), tmp_path / "curve.png")
    (energy,), (forces,) = (axes.get_lines() for axes in drawn[0].axes)
    assert energy.get_xydata().tolist() == [[10, 1000], [20, 500], [30, 250]]
    np.testing.assert_allclose(forces.get_ydata(), [1000, 700, 490])
    assert [text.get_text() for axes in drawn[0].axes for text in axes.texts] == ["250", "490"]


def test_a_learning_curve_without_errors_left_is_drawn(tmp_path):
    row = {"step": 1, "val_energy_mae_eV": 0.0}
    plot_learning_curve([row | {"val_energy_mae_eV": 1.0}, row], tmp_path / "curve.png")
    assert is_a_picture(tmp_path / "curve.png")


def test_a_learning_curve_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^`rows`.*at least.*validation.*0"):
        plot_learning_curve([], tmp_path / "curve.png")


@pytest.mark.parametrize("forces", [True, False])
@pytest.mark.parametrize("n", [1, 30])
def test_a_parity_plot_is_a_picture(tmp_path, n, forces):
    plot_parity(evaluation(n, forces), tmp_path / "parity.png")
    assert is_a_picture(tmp_path / "parity.png")


def test_a_parity_plot_has_a_panel_for_forces_only_where_there_are_any(tmp_path, drawn):
    plot_parity(evaluation(9), tmp_path / "both.png", labels="GFN2-xTB")
    plot_parity(evaluation(9, forces=False), tmp_path / "energy.png")
    assert [len(figure.axes) for figure in drawn] == [4, 2]
    energy, forces, energy_errors, force_errors = drawn[0].axes
    assert [axes.get_ylabel() for axes in drawn[0].axes] == [
        "prediction (eV)",
        "prediction (eV/Å)",
        "error (meV)",
        "error (meV/Å)",
    ]
    assert energy_errors.get_xlabel() == "GFN2-xTB energy − mean (eV)"
    assert force_errors.get_xlabel() == "GFN2-xTB force component (eV/Å)"
    # 1 kcal/mol is 43.4 meV.
    assert energy.texts[0].get_text() == "MAE 12.3 meV (0.284 kcal/mol)\nRMSE 45.6 meV (1.052 kcal/mol)"
    assert (
        forces.texts[0].get_text() == "MAE 78.9 meV/Å (1.819 kcal/mol/Å)\nRMSE 101.1 meV/Å (2.331 kcal/mol/Å)"
    )


def test_a_parity_plot_has_labels_across_and_predictions_up(tmp_path, drawn):
    result = evaluation(9, z=(79, 1))
    plot_parity(result, tmp_path / "parity.png")
    energy, forces, energy_errors, force_errors = drawn[0].axes
    relative = (result.energy - result.energy[0].mean()).numpy()
    np.testing.assert_array_equal(energy.get_lines()[0].get_xydata().T, relative)
    hydrogen = next(line for line in forces.get_lines() if line.get_label() == "H")
    np.testing.assert_array_equal(hydrogen.get_xydata()[:3].T, result.forces[:, 1].numpy())
    assert {text.get_text() for text in forces.get_legend().texts} == {"H", "Au"}
    assert forces.get_xlim() == forces.get_ylim() == force_errors.get_xlim()
    np.testing.assert_allclose(
        energy_errors.get_lines()[0].get_xydata().T, [relative[0], 1e3 * (relative[1] - relative[0])]
    )


def test_errors_far_beyond_the_others_are_triangles_at_the_edge(tmp_path, drawn):
    labels, errors = torch.zeros(2000, dtype=torch.float64), 0.01 * torch.ones(2000, dtype=torch.float64)
    errors[7] = -5.0
    result = replace(evaluation(2000, forces=False), energy=torch.stack([labels, labels + errors]))
    plot_parity(result, tmp_path / "parity.png")
    below = drawn[0].axes[1]
    low, high = below.get_ylim()
    assert -low == high == pytest.approx(1.08 * 4 * 10)
    outliers = {line.get_marker(): len(line.get_xdata()) for line in below.get_lines()[:3]}
    assert outliers == {"o": 1999, "^": 0, "v": 1}


class InMemory(MoleculeDataset):
    def __init__(self, frames):
        self.frames = frames
        super().__init__(None)

    def chunks(self):
        yield Chunk.from_frames(self.frames)


def alkanes(sizes, seed=0):
    """Frames with so many carbon atoms each, twice as many hydrogen atoms, and any positions."""
    rng = np.random.default_rng(seed)
    sizes = np.asarray(sizes)
    atoms = 3 * sizes.sum()
    return Frames(
        numbers=np.concatenate([np.repeat([6, 1, 1], size) for size in sizes]).astype(np.uint8),
        positions=rng.normal(0, 3, (atoms, 3)),
        counts=3 * sizes,
        energy=-1000.0 * sizes + rng.normal(0, 0.1, len(sizes)),
        forces=rng.normal(0, 1, (atoms, 3)),
    )


@pytest.mark.parametrize("forces", [True, False])
@pytest.mark.parametrize("sizes", [[2] * 30, [1, 2, 3] * 10, list(range(1, 31)), [1], [2, 2]])
def test_a_data_set_of_any_kind_is_a_picture(tmp_path, sizes, forces):
    frames = alkanes(sizes)
    plot_data_set(InMemory(frames if forces else replace(frames, forces=None)), tmp_path / "set.png")
    assert is_a_picture(tmp_path / "set.png")


def test_a_data_set_without_spread_is_drawn(tmp_path):
    frames = alkanes([1, 1])
    same = replace(frames, energy=np.full(2, -5.0), forces=np.zeros((6, 3)))
    plot_data_set(InMemory(same), tmp_path / "set.png")
    assert is_a_picture(tmp_path / "set.png")


def test_few_compositions_have_a_line_each_with_all_their_structures(tmp_path, drawn):
    plot_data_set(InMemory(alkanes([2] * 20 + [4] * 10)), tmp_path / "set.png")
    energy, forces = drawn[0].axes
    assert [text.get_text() for text in energy.get_legend().texts] == [
        "C$_{2}$H$_{4}$: 20",
        "C$_{4}$H$_{8}$: 10",
    ]
    filled = [patch.get_data().values for patch in energy.patches if patch.get_fill()]
    assert [values.sum() for values in filled] == [20, 10]
    assert energy.get_xlabel() == "energy − mean (eV)"
    (top,) = energy.child_axes
    assert top.get_xlabel() == "energy − mean (kcal/mol)"
    drawn[0].draw_without_rendering()
    assert np.ptp(top.get_xlim()) / np.ptp(energy.get_xlim()) == pytest.approx(23.0605, rel=1e-5)
    assert [text.get_text() for text in forces.get_legend().texts] == ["H", "C"]


def test_energies_are_drawn_around_their_mean(tmp_path, drawn):
    frames = replace(alkanes([1, 1]), energy=np.array([-100.0, -98.0]))
    plot_data_set(InMemory(frames), tmp_path / "set.png")
    edges = drawn[0].axes[0].patches[0].get_data().edges
    assert edges[[0, -1]] == pytest.approx([-1, 1])


def test_many_compositions_are_stacked_by_their_heavy_atoms(tmp_path, drawn):
    plot_data_set(
        InMemory(replace(alkanes([1, 2, 3, 4, 5, 6, 7, 7, 7, 7]), forces=None)), tmp_path / "set.png"
    )
    sizes, energies = drawn[0].axes
    groups = [text.get_text() for text in sizes.get_legend().texts]
    assert len(groups) == 4
    assert groups[-1] == "7"
    assert sizes.get_legend().get_title().get_text() == "heavy atoms"
    assert sum((patch.get_data().values - patch.get_data().baseline).sum() for patch in sizes.patches) == 10
    assert sizes.get_title(loc="right") == "10 structures, 7 compositions"
    assert energies.get_xlabel() == "energy − references (eV/atom)"
    for patch in energies.patches:
        assert patch.get_data().values.sum() == pytest.approx(100)


def test_forces_are_densities_by_element(tmp_path, drawn):
    plot_data_set(InMemory(alkanes([3] * 9)), tmp_path / "set.png")
    for patch in drawn[0].axes[-1].patches:
        values, edges, _ = patch.get_data()
        assert (values * np.diff(edges)).sum() == pytest.approx(1)


def test_a_broken_structure_does_not_hide_the_forces_of_the_others(tmp_path, drawn):
    frames = alkanes([3] * 900)
    frames.forces[0, 0] = 1e5
    frames.forces[1:] *= 1e-3
    plot_data_set(InMemory(frames), tmp_path / "set.png")
    edges = drawn[0].axes[-1].patches[0].get_data().edges
    rms = np.sqrt((frames.forces**2).mean())
    assert edges[-1] == pytest.approx(8 * rms)


def test_a_data_set_without_structures_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^`dataset`.*at least.*structure.*0"):
        plot_data_set(InMemory(alkanes([1]))[[]], tmp_path / "set.png")
    assert not (tmp_path / "set.png").exists()


@pytest.mark.parametrize("forces", [True, False])
def test_a_calibration_shows_errors_before_and_after(tmp_path, drawn, forces):
    generator = torch.Generator().manual_seed(0)

    def some(components):
        deviation = torch.rand(400, generator=generator, dtype=torch.float64) + 0.1
        noise = torch.randn(400, components, generator=generator, dtype=torch.float64)
        return Calibration(deviation, 1.5 * deviation[:, None] * noise / components**0.5, 1000)

    found = {"energy": some(1)} | ({"forces": some(3)} if forces else {})
    plot_calibration(found, tmp_path / "calibration.png")
    assert is_a_picture(tmp_path / "calibration.png")
    *panels, reliability = drawn[0].axes
    labels = [axes.get_xlabel() for axes in panels]
    assert labels == ["energy deviation (meV/atom)", "force deviation (meV/Å)"][: len(found)]
    for axes, one in zip(panels, found.values(), strict=True):
        raw, scaled = (container.lines[0].get_xdata() for container in axes.containers)
        np.testing.assert_allclose(raw, 1e3 * one.bins()[0])
        np.testing.assert_allclose(scaled, one.factor * raw)
        assert axes.get_xlim() == axes.get_ylim()
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        assert texts == ["raw", f"scaled by {one.factor:.2f}"]
    assert reliability.get_xlabel() == "errors expected inside (%)"
    texts = [text.get_text() for text in reliability.get_legend().get_texts()]
    assert texts == ["energy", "force", "raw"] if forces else ["energy", "raw"]
