"""The picture of elements shows their embeddings, and no others."""

import matplotlib.image
import numpy as np
import pytest
import torch

from pyg_schnet import SchNet
from pyg_schnet.plots import plot_elements
from pyg_schnet.plots.embeddings import embedding_distance, embedding_map, embedding_similarity


@pytest.fixture
def known(default):
    """A model whose embeddings of H, C and O are along axes, that of N beside C."""
    with torch.no_grad():
        default.embedding.weight.zero_()
        for z, place in {1: 0, 6: 1, 8: 2}.items():
            default.embedding.weight[z, place] = 2.0
        default.embedding.weight[7] = torch.tensor([0.0, 2.0, 2.0, 0, 0, 0, 0, 0])
    return default


def test_similarity_is_the_cosine_of_the_angle(known):
    expected = torch.tensor([[1, 0, 0], [0, 1, 0.5**0.5], [0, 0.5**0.5, 1]]).double()
    torch.testing.assert_close(embedding_similarity(known, [1, 6, 7]), expected, atol=1e-7, rtol=0)


def test_distance_is_euclidean(known):
    distance = embedding_distance(known, [1, 6, 7])
    assert distance[0, 1] == pytest.approx(8**0.5)
    assert distance[1, 2] == pytest.approx(2.0)


def test_the_map_keeps_all_variance_of_elements_in_a_plane(known):
    coordinates, share = embedding_map(known, [1, 6, 8])
    torch.testing.assert_close(torch.cdist(coordinates, coordinates), embedding_distance(known, [1, 6, 8]))
    assert float(share.sum()) == pytest.approx(1.0)
    assert share[0] >= share[1]


def test_the_map_does_not_depend_on_signs(default, monkeypatch):
    before, _ = embedding_map(default, [1, 6, 7, 8])
    svd = torch.linalg.svd

    def flipped(*args, **kwargs):
        left, values, right = svd(*args, **kwargs)
        return -left, values, -right

    monkeypatch.setattr(torch.linalg, "svd", flipped)
    torch.testing.assert_close(embedding_map(default, [1, 6, 7, 8])[0], before)


def test_few_elements_have_a_matrix_of_distances(known, figures):
    plot_elements(known, [8, 1, 6], "elements.png")
    similarity, distance, *bars = figures[0].axes
    assert [label.get_text() for label in similarity.get_xticklabels()] == ["H", "C", "O"]
    np.testing.assert_allclose(distance.get_images()[0].get_array(), embedding_distance(known, [1, 6, 8]))
    assert similarity.get_images()[0].get_clim() == (-1, 1)
    labels = [bar.get_ylabel() for bar in bars]
    assert labels == ["cosine similarity (no unit)", "distance (no unit)"]
    assert "1.00" in [text.get_text() for text in similarity.texts]


def test_more_elements_have_a_map(known, figures):
    plot_elements(known, [1, 6, 7, 8], "elements.png")
    _, chart, _ = figures[0].axes
    coordinates, share = embedding_map(known, [1, 6, 7, 8])
    assert [text.get_text() for text in chart.texts] == ["H", "C", "N", "O"]
    drawn = np.concatenate([line.get_xydata() for line in chart.get_lines()])
    np.testing.assert_allclose(drawn, coordinates)
    assert chart.get_xlabel() == f"component 1 (no unit; {100 * share[0]:.0f} % of variance)"


def test_one_element_and_none_that_exists_are_refused(default):
    with pytest.raises(ValueError, match=r"^`elements`.*1"):
        plot_elements(default, [14], "elements.png")
    with pytest.raises(ValueError, match=r"`elements` contains 119"):
        plot_elements(default, [1, 119], "elements.png")


@pytest.mark.parametrize("elements", [(1, 8), range(1, 60)])
def test_few_and_many_elements_are_a_picture(tmp_path, elements):
    plot_elements(SchNet(8, 8, 1), elements, tmp_path / "elements.png")
    assert matplotlib.image.imread(tmp_path / "elements.png").shape[:2] == (900, 2100)
