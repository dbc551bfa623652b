import pytest
from ase.io import read

from pyg_schnet.simulation.structures import with_results
from pyg_schnet.simulation.trajectory import FrameWriter


@pytest.fixture
def frame(ethanol):
    return with_results(ethanol, energy=-1.0, forces=ethanol.positions)


@pytest.mark.parametrize("name", ["run.traj", "run.extxyz", "run.xyz"])
def test_the_file_is_complete_after_each_frame(frame, tmp_path, name):
    with FrameWriter(tmp_path / name) as writer:
        for number in (1, 2, 3):
            writer.write(frame.copy() if number == 2 else with_results(frame, energy=number))
            assert len(read(tmp_path / name, ":")) == number


def test_a_frame_is_written_once(frame, tmp_path):
    with FrameWriter(tmp_path / "run.traj") as writer:
        writer.write(frame)
        writer.write(frame)
    assert len(read(tmp_path / "run.traj", ":")) == 1


def test_without_a_path_nothing_is_written(frame):
    with FrameWriter(None) as writer:
        writer.write(frame)


def test_an_existing_file_is_refused(tmp_path):
    path = tmp_path / "run.traj"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"run.traj exists; .* overwrite=True"):
        FrameWriter(path)
    assert path.read_text() == "precious"


def test_an_existing_file_is_replaced_by_the_first_frame_only(frame, tmp_path):
    path = tmp_path / "run.traj"
    path.write_text("old")
    with FrameWriter(path, overwrite=True) as writer:
        assert path.read_text() == "old"
        writer.write(frame)
    assert len(read(path, ":")) == 1


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`trajectory` must end in .*, .extxyz, .*; got 'a.cif'"):
        FrameWriter(tmp_path / "a.cif")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`trajectory` must be in a folder .*absent"):
        FrameWriter(tmp_path / "absent" / "run.traj")
