"""The pictures of filters show what the convolution multiplies by."""

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from pyg_schnet import SchNet
from pyg_schnet.plots import pair_distances, plot_filter_profiles, plot_filters
from pyg_schnet.plots.filters import (
    NO_DATA_COLOR,
    DistanceRange,
    filter_cuts,
    filter_values,
    strongest_filters,
)

PIXELS = 97


@pytest.fixture
def distances(molecules):
    return pair_distances(Batch.from_data_list(molecules))


def convolved(model, interaction, distance):
    """What the layer itself gives for a neighbor at a distance, with features of one."""
    pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, distance]], dtype=torch.float64)
    model.filters = "exact"
    edges, features, envelope, pair = model.edge_features(model.build_pairs(torch.ones(2).long(), pos))
    ones = torch.ones(2, model.config.num_filters, dtype=torch.float64)
    if edges.numel() == 0:
        return torch.zeros(model.config.num_filters, dtype=torch.float64)
    with torch.no_grad():
        return model.interactions[interaction].cfconv(ones, edges, features, edge_weight=envelope, pair=pair)[
            0
        ]


@pytest.mark.parametrize("distance", [0.9, 2.5, 3.99, 4.5])
def test_filter_values_are_what_the_convolution_multiplies_by(model, distance):
    values = filter_values(model, torch.tensor([distance], dtype=torch.float64))
    for interaction in range(model.config.num_interactions):
        torch.testing.assert_close(
            values[interaction, 0], convolved(model, interaction, distance), atol=1e-12, rtol=0
        )


def test_filter_values_are_zero_at_the_cutoff_without_an_envelope_too(randomize):
    model = randomize(SchNet(8, 8, 1, 8, 4.0, envelope=None).double())
    inside, at, beyond = filter_values(model, torch.tensor([3.9, 4.0, 5.0]).double())[0]
    assert inside.abs().max() > 0.01
    assert at.eq(0).all()
    assert beyond.eq(0).all()


def test_filters_are_evaluated_in_the_precision_and_on_the_device_of_the_model(default):
    values = filter_values(default.float(), torch.tensor([1.0, 2.0]).double())
    assert values.dtype == torch.float64


def test_a_cut_has_at_each_place_the_value_at_its_distance_from_the_atom(default):
    cuts = filter_cuts(default, 3.0)
    assert cuts.shape == (2, 8, PIXELS, PIXELS)
    place = torch.linspace(-3, 3, PIXELS).double()
    for row, column in ((48, 48), (0, 0), (10, 70)):
        value = filter_values(default, torch.hypot(place[row], place[column])[None])[:, 0]
        torch.testing.assert_close(cuts[:, :, row, column], value, atol=1e-7, rtol=0)


def test_strongest_filters_vary_most(default):
    distance_range = DistanceRange.of(default, torch.tensor([1.0, 3.0]))
    chosen = strongest_filters(default, 3, distance_range)
    variance = filter_values(default, distance_range.grid()).var(dim=1)
    for numbers, own in zip(chosen, variance, strict=True):
        assert own[numbers].tolist() == sorted(own.tolist(), reverse=True)[:3]


@pytest.mark.parametrize(
    ("cutoff", "seen", "expected"),
    [
        (None, [0.9, 4.2], (0.9, 4.2, 5.0)),
        (4.0, [0.9, 4.2], (0.9, 4.0, 4.0)),
        (10.0, [0.9, 4.2], (0.9, 4.2, 5.0)),
        (None, None, (0.7, 5.0, 5.0)),
        (3.0, None, (0.7, 3.0, 3.0)),
    ],
)
def test_what_is_drawn_ends_with_the_data_or_at_the_cutoff(cutoff, seen, expected):
    model = SchNet(8, 8, 1, 8, cutoff, last_center=10.0)
    distances = None if seen is None else torch.tensor(seen, dtype=torch.float64)
    distance_range = DistanceRange.of(model, distances, 0.7)
    assert (distance_range.shortest, distance_range.longest, distance_range.reach) == pytest.approx(expected)


def test_the_mosaic_has_all_filters_in_the_order_of_their_numbers(paper, distances, figures):
    plot_filters(paper, "filters.png", distances)
    mosaics = [axes for axes in figures[0].axes if axes.get_title()]
    assert [axes.get_title() for axes in mosaics] == ["interaction 1, 8 filters", "interaction 2, 8 filters"]
    reach = DistanceRange.of(paper, distances).reach
    cuts = filter_cuts(paper, reach)
    for axes, own in zip(mosaics, cuts, strict=True):
        (image,) = axes.get_images()
        tiles = (
            image.get_array().reshape(3, PIXELS, 3, PIXELS).transpose(0, 2, 1, 3).reshape(9, PIXELS, PIXELS)
        )
        seen = DistanceRange.of(paper, distances).mask(own)
        np.testing.assert_array_equal(tiles[:8].mask, seen.mask)
        np.testing.assert_array_equal(tiles[:8].compressed(), seen.compressed())
        assert tiles[8].mask.all()
        assert image.norm.vmin == -image.norm.vmax
        assert f"{2 * reach:g} Å; gray: not in the data" in [text.get_text() for text in axes.texts]
        assert len(axes.patches) == 1  # covers the ninth square


@pytest.mark.parametrize("draw", [plot_filters, plot_filter_profiles])
def test_distances_without_data_are_gray(default, figures, draw):
    draw(default, "filters.png", torch.tensor([1.0, 2.5]))  # squares end at 3 Å
    image = next(axes.get_images()[0] for axes in figures[0].axes if axes.get_title())
    corner = image.get_array()[:PIXELS, :PIXELS]
    place = np.linspace(-3, 3, PIXELS)
    distance = np.hypot(place[:, None], place)
    np.testing.assert_array_equal(corner.mask, (distance < 1.0) | (distance > 2.5))
    np.testing.assert_allclose(image.cmap.get_bad(), matplotlib.colors.to_rgba(NO_DATA_COLOR))


def test_of_many_filters_the_mosaic_has_those_that_vary_most(figures, randomize):
    model = randomize(SchNet(8, 70, 1, 8, 3.0).double())
    plot_filters(model, "filters.png")
    (axes,) = (axes for axes in figures[0].axes if axes.get_title())
    assert axes.get_title() == "interaction 1, 64 of 70 filters"
    chosen = strongest_filters(model, 64, DistanceRange.of(model, None))[0].sort().values
    corner = axes.get_images()[0].get_array()[:PIXELS, :PIXELS]
    np.testing.assert_array_equal(corner, filter_cuts(model, 3.0)[0, chosen[0]].numpy())


def test_profiles_are_the_values_over_the_distance(default, distances, figures):
    plot_filter_profiles(default, "profiles.png", distances)
    grid = [axes for axes in figures[0].axes if axes.get_ylabel().startswith("interaction")]
    assert [axes.get_ylabel() for axes in grid] == [
        "interaction 1\nfilter (no unit)",
        "interaction 2\nfilter (no unit)",
    ]
    assert grid[-1].get_xlabel() == "distance (Å)"
    for interaction, axes in enumerate(grid):
        lines = [line for line in axes.get_lines() if line.get_label().startswith("filter")]
        assert len(lines) == 4
        for line in lines:
            number = int(line.get_label().removeprefix("filter "))
            distance = torch.from_numpy(line.get_xdata())
            assert float(distance[0]) == pytest.approx(float(distances.min()))
            expected = filter_values(default, distance)[interaction, :, number]
            np.testing.assert_allclose(line.get_ydata(), expected.numpy(), atol=1e-12)
        assert "cutoff" in [text.get_text() for text in axes.texts]


def test_cuts_beside_the_profiles_are_of_the_same_filters(default, figures):
    plot_filter_profiles(default, "profiles.png")
    cuts = filter_cuts(default, 4.0)
    panels = [axes for axes in figures[0].axes if axes.get_title().startswith("filter")]
    chosen = strongest_filters(default, 4, DistanceRange.of(default, None)).flatten().tolist()
    assert [int(axes.get_title().removeprefix("filter ")) for axes in panels] == chosen
    for place, axes in enumerate(panels):
        (image,) = axes.get_images()
        np.testing.assert_array_equal(image.get_array(), cuts[place // 4, chosen[place]].numpy())
        assert image.get_extent() == [-4, 4, -4, 4]
    assert {axes.get_xlabel() for axes in panels[4:]} == {"x (Å)"}


def test_a_model_without_cutoff_has_no_line_for_it(paper, figures):
    plot_filter_profiles(paper, "profiles.png")
    assert "cutoff" not in [text.get_text() for axes in figures[0].axes for text in axes.texts]


@pytest.mark.parametrize("draw", [plot_filters, plot_filter_profiles])
def test_a_picture_is_written_as_wide_as_a_page(default, tmp_path, draw):
    draw(default, tmp_path / "picture.png", torch.tensor([0.8, 2.0]))
    height, width, _ = matplotlib.image.imread(tmp_path / "picture.png").shape
    assert width == (2100 if draw is plot_filter_profiles else 1400)  # of three interactions, two
    assert height > 400


def test_distances_of_molecules_are_all_within_them(water, ethanol):
    lengths = pair_distances(Batch.from_data_list([water, ethanol]))
    assert len(lengths) == 3 * 2 + 9 * 8
    assert float(lengths.min()) == pytest.approx(float(torch.pdist(water.pos).min()), rel=1e-12)
    assert len(pair_distances(ethanol, 1.6)) == 2 * int((torch.pdist(ethanol.pos) < 1.6).sum())


def test_distances_of_a_crystal_count_images(water):
    water.cell, water.pbc = 3.0 * torch.eye(3).double()[None], torch.tensor([[True, True, True]])
    lengths = pair_distances(water, 3.2)
    assert int(lengths.sub(3.0).abs().lt(1e-12).sum()) == 3 * 6  # each atom and itself in six directions
