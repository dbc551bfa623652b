"""The picture of atoms' energies: the right colors in the right places, and a view without mirrors."""

import matplotlib.image
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from matplotlib import colormaps
from matplotlib.patches import Circle

from pyg_schnet.plots import plot_atomic_energies
from pyg_schnet.plots.atomic_energies import element_means, relative_energies
from pyg_schnet.plots.structure_view import View


def circles(axes):
    return [patch for patch in axes.patches if isinstance(patch, Circle)]


def test_energies_are_relative_to_the_mean_of_their_element():
    water, other = molecule("H2O"), molecule("H2O")
    relative = relative_energies([water, other], [np.array([-5.0, 1.0, 2.0]), np.array([-7.0, 3.0, 6.0])])
    np.testing.assert_allclose(relative, [[1, -2, -1], [-1, 0, 3]])
    assert element_means([water], [np.array([-5.0, 1.0, 2.0])]) == {8: -5.0, 1: 1.5}


def test_atoms_have_the_color_of_their_energy_and_their_place(figures):
    ethanol = molecule("CH3CH2OH")
    energies = np.linspace(-1, 1, 9)
    means = dict.fromkeys((1, 6, 8), 0.0)
    plot_atomic_energies([ethanol], [energies], "atoms.png", means)
    axes, bar = figures[0].axes
    assert bar.get_xlabel() == "energy of the atom − mean of its element (eV)"
    drawn, view = circles(axes), View.of(ethanol)
    for number, circle in enumerate(drawn):
        np.testing.assert_allclose(circle.center, view.positions[number, :2])
        np.testing.assert_allclose(circle.get_facecolor(), colormaps["RdBu_r"]((energies[number] + 1) / 2))
    labels = [text.get_text() for text in axes.texts]
    assert labels == ["C0", "C1", "O2", "H3", "H4", "H5", "H6", "H7", "H8"]


def test_labels_of_covered_atoms_are_beside_them(figures):
    column = Atoms("C3", positions=[[0, 0, 0], [0.05, 0, 1.5], [0, 3, 0]], cell=[9, 9, 9], pbc=True)
    plot_atomic_energies([column], [np.zeros(3)], "atoms.png")
    figure = figures[0]
    figure.draw_without_rendering()
    axes, view = figure.axes[0], View.of(column)
    assert sorted(text.get_text() for text in axes.texts) == ["C0", "C1", "C2"]
    for text in axes.texts:
        box = text.get_window_extent().transformed(axes.transData.inverted())
        number = int(text.get_text()[1:])
        for other, (x, y, depth) in enumerate(view.positions):
            if depth > view.positions[number, 2]:
                gap = np.hypot(max(box.x0 - x, x - box.x1, 0), max(box.y0 - y, y - box.y1, 0))
                assert gap > 0.95 * view.radii[other], f"{text.get_text()} is covered by C{other}"


def test_nearer_atoms_cover_farther_ones(figures):
    ethanol = molecule("CH3CH2OH")
    plot_atomic_energies([ethanol], [np.zeros(9)], "atoms.png")
    layers = [circle.get_zorder() for circle in circles(figures[0].axes[0])]
    depth = View.of(ethanol).positions[:, 2]
    assert np.argsort(layers).tolist() == np.argsort(depth, kind="stable").tolist()


@pytest.mark.parametrize("name", ["CH3CH2OH", "C6H6", "H2", "CO2", "CH4"])
def test_a_view_is_a_rotation(name):
    atoms = molecule(name)
    positions = View.of(atoms).positions
    turn, _, rank, _ = np.linalg.lstsq(atoms.positions - atoms.positions.mean(0), positions, rcond=None)
    distance = np.linalg.norm(atoms.positions[:, None] - atoms.positions, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(positions[:, None] - positions, axis=-1), distance, atol=1e-12)
    if rank == 3:
        assert np.linalg.det(turn) == pytest.approx(1.0)


def test_a_flat_molecule_is_seen_from_above():
    assert np.abs(View.of(molecule("C6H6")).positions[:, 2]).max() < 1e-9


def test_bonds_are_short_distances():
    view = View.of(molecule("CH3CH2OH"))
    assert sorted(map(tuple, view.bonds.tolist())) == [
        (0, 1), (0, 6), (0, 7), (0, 8), (1, 2), (1, 4), (1, 5), (2, 3),
    ]  # fmt: skip


def test_one_atom_has_a_view():
    view = View.of(Atoms("Ar", positions=[[1.0, 2.0, 3.0]]))
    np.testing.assert_array_equal(view.positions, [[0, 0, 0]])
    assert len(view.bonds) == 0


def test_a_crystal_has_its_cell_around_it():
    view = View.of(bulk("Si", cubic=True))
    assert view.cell.shape == (12, 2, 3)
    lengths = np.linalg.norm(view.cell[:, 1] - view.cell[:, 0], axis=-1)
    np.testing.assert_allclose(lengths, 5.43, atol=1e-12)
    low, high = view.box()
    assert (low <= view.cell.reshape(-1, 3)[:, :2].min(0)).all()
    assert (high >= view.cell.reshape(-1, 3)[:, :2].max(0)).all()


def test_a_wire_along_the_first_axis_has_a_view():
    wire = Atoms("C2", positions=[[0, 0, 0], [1.3, 0, 0]], cell=[2.6, 0, 0], pbc=[True, False, False])
    assert np.isfinite(View.of(wire).positions).all()


@pytest.mark.parametrize(("count", "panels"), [(1, 1), (3, 3), (5, 6)])
def test_several_structures_are_side_by_side_to_one_scale(figures, count, panels):
    structures = [molecule("H2O"), molecule("CH3CH2OH"), molecule("C6H6"), molecule("CO2"), molecule("H2")]
    structures = structures[:count]
    titles = [f"structure {number}" for number in range(count)]
    plot_atomic_energies(structures, [np.zeros(len(a)) for a in structures], "atoms.png", titles=titles)
    axes = figures[0].axes[:-1]
    assert len(axes) == panels
    assert [one.get_title() for one in axes[:count]] == titles
    assert len({round(float(np.ptp(one.get_xlim())), 9) for one in axes[:count]}) == 1


@pytest.mark.parametrize("count", [0, 13])
def test_no_structures_and_too_many_are_refused(count):
    with pytest.raises(ValueError, match=rf"^`structures`.*1.*12.*{count}"):
        plot_atomic_energies([molecule("H2O")] * count, [np.zeros(3)] * count, "atoms.png")


def test_a_picture_is_one_column_wide(tmp_path):
    plot_atomic_energies([molecule("H2O")], [np.zeros(3)], tmp_path / "atoms.png")
    assert matplotlib.image.imread(tmp_path / "atoms.png").shape[1] == 990
