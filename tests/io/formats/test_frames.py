"""Frames are refused where no model can be trained on them, and are cut and joined without a change."""

import numpy as np
import pytest

from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.io.formats.frames import Frames, atomic_numbers, concatenate, merge_labels, scaled
from pyg_schnet.io.units import Units

ARRAYS = ("numbers", "positions", "counts", "energy", "forces", "stress", "cell", "pbc")


def make(counts=(2, 1, 3), seed=0, **changes):
    rng = np.random.default_rng(seed)
    counts = np.array(counts)
    atoms, frames = int(counts.sum()), len(counts)
    arrays = {
        "numbers": rng.integers(1, 9, atoms),
        "positions": rng.normal(size=(atoms, 3)),
        "counts": counts,
        "energy": rng.normal(size=frames),
        "forces": rng.normal(size=(atoms, 3)),
    }
    return Frames(**{**arrays, **changes})


def same(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ARRAYS)


def with_value(array, row, value):
    array = array.copy()
    array[row] = value
    return array


def test_atomic_numbers_are_bytes_once_they_are_checked():
    checked = make().check("a")
    assert checked.numbers.dtype == np.uint8
    assert same(checked, make())


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (make(counts=()), "hold at least one structure, got none"),
        (make(counts=(2, 0, 3)), "hold at least one atom, got none in frame 1; remove the frame"),
        (
            make(numbers=np.array([1, 1, 0, 1, 1, 1])),
            "hold atomic numbers 1 to 99, got 0 in frame 1; remove the frame",
        ),
        (
            make(numbers=np.array([1, 1, 1, 257, 1, 1])),
            "hold atomic numbers 1 to 99, got 257 in frame 2; remove the frame",
        ),
        (
            make(numbers=np.array([1, 1.5, 1, 1, 1, 1])),
            "hold atomic numbers 1 to 99, got 1.5 in frame 0; remove the frame",
        ),
        (
            make(positions=with_value(make().positions, 4, np.inf)),
            "have finite positions, got NaN or infinity in frame 2; remove the frame",
        ),
        (
            make(energy=np.array([0, np.nan, 0])),
            "have finite energy, got NaN or infinity in frame 1; remove the frame",
        ),
        (
            make(forces=with_value(make().forces, 2, np.nan), labels={"forces": "'F'"}),
            "have finite forces ('F'), got NaN or infinity in frame 1; remove the frame",
        ),
        (
            make(stress=np.full((3, 3, 3), np.nan)),
            "have finite stress, got NaN or infinity in frame 0; remove the frame",
        ),
        (
            make(
                cell=np.ones((3, 3, 3)),
                pbc=np.array([[False] * 3, [True, False, False], [True, True, False]]),
            ),
            "have a lattice vector for each periodic direction, got [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], "
            "[1.0, 1.0, 1.0]] in frame 2; remove the frame",
        ),
        (
            make(positions=with_value(make().positions, 5, make().positions[3])),
            "not place two atoms at one point, got atoms 0 and 2 there in frame 2; remove the frame",
        ),
    ],
)
def test_bad_frames_are_refused(frames, reason):
    with pytest.raises(ValueError, match=r"^a: must ") as caught:
        frames.check("a")
    assert str(caught.value) == f"a: must {reason}"


def test_frames_are_counted_from_where_the_reader_is():
    with pytest.raises(ValueError, match="in frame 101; remove"):
        make(energy=np.array([0, np.nan, 0])).check("a", first=100)


def test_atoms_may_share_coordinates_but_not_all_three():
    square = np.array([[0.0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]])
    make(counts=(4,), positions=square, forces=None).check("a")
    with pytest.raises(ValueError, match=r"atoms.*1.*3.*frame.*0"):
        make(counts=(4,), positions=with_value(square, 3, square[1]), forces=None).check("a")


def test_atoms_at_one_point_are_found_behind_others_of_the_same_x():
    positions = np.array([[0.0, 1, 0], [0, 0, 0], [0, 1, 0]])
    with pytest.raises(ValueError, match="atoms 0 and 2 there"):
        make(counts=(3,), positions=positions, forces=None).check("a")


def test_zero_and_minus_zero_are_one_point():
    with pytest.raises(ValueError, match="atoms 0 and 1 there"):
        make(counts=(2,), positions=np.array([[0.0, 1, 1], [-0.0, 1, 1]]), forces=None).check("a")


def test_equal_atoms_of_two_frames_do_not_coincide():
    make(counts=(1, 1, 1), positions=np.zeros((3, 3)), forces=None).check("a")


def test_sums_beyond_the_largest_number_are_not_taken_for_infinity():
    make(energy=np.full(3, 1e308)).check("a")


def test_a_part_shares_its_arrays():
    frames = make()
    assert np.shares_memory(frames.part(1, 3).positions, frames.positions)
    assert frames.part(1, 3).counts.tolist() == [1, 3]


def test_joining_gives_all_a_lattice_if_one_has_it():
    cell, pbc = np.stack([np.eye(3)] * 3), np.ones((3, 3), dtype=bool)
    whole = concatenate([make(), make(cell=cell, pbc=pbc)])
    assert whole.cell.tolist() == np.concatenate([np.zeros((3, 3, 3)), cell]).tolist()
    assert whole.pbc.tolist() == [[False] * 3] * 3 + [[True] * 3] * 3
    assert concatenate([make(), make()]).cell is None


def test_labels_that_differ_are_all_told_once():
    first, second = {"energy": "'E'"}, {"energy": "'U0'", "forces": "'F'"}
    assert merge_labels([first, second, first, second]) == {"energy": "'E' or 'U0'", "forces": "'F'"}


def test_a_chunk_has_the_fields_that_are_there():
    frames = make(units=Units("eV")).check("a")
    chunk = Chunk.from_frames(frames)
    assert len(chunk) == 3
    assert set(chunk.fields) == {"z", "pos", "energy", "forces"}
    assert chunk.counts["forces"].tolist() == [2, 1, 3]


@pytest.mark.parametrize(
    "values",
    [np.array([8, 1]), np.array([8.0, 1.0]), np.array(["O", "H"]), np.array([b"O", b"H"], dtype=object)],
)
def test_atomic_numbers_have_many_spellings(values):
    numbers = atomic_numbers(values, "'z'")
    assert (numbers.tolist(), numbers.dtype) == ([8, 1], np.uint8)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([True]), "'z' must hold atomic numbers, got bool"),
        (np.array([100]), "'z' must hold atomic numbers 1 to 99, got 100"),
        (np.array(["X"]), "'z' must hold atomic numbers 1 to 99, got 0"),  # ASE's dummy
        (np.array([""]), "'z' must hold symbols of elements, got ''"),
    ],
)
def test_what_is_no_atomic_number_is_refused(values, reason):
    with pytest.raises(ValueError, match="'z' must hold") as caught:
        atomic_numbers(values, "'z'")
    assert str(caught.value) == reason


def test_scaling_takes_no_memory_for_float64():
    values = np.array([1.0, 2.0])
    assert scaled(values, 2.0) is values
    assert values.tolist() == [2.0, 4.0]
    single = np.array([1.0], dtype=np.float32)
    assert scaled(single, 2.0).dtype == np.float64
    assert single[0] == 1.0
