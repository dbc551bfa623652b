import numpy as np
import pytest
from ase.io import read

from pyg_schnet.simulation.structures import with_results
from pyg_schnet.simulation.trajectory import TrajectoryFile


@pytest.fixture
def frame(ethanol):
    return with_results(ethanol, energy=-1.0, forces=ethanol.positions)


@pytest.mark.parametrize("name", ["run.traj", "run.extxyz", "run.xyz"])
def test_the_file_is_complete_after_each_frame(frame, tmp_path, name):
    with TrajectoryFile(tmp_path / name) as writer:
        for number in (1, 2, 3):
            writer.write(frame.copy() if number == 2 else with_results(frame, energy=number))
            assert len(read(tmp_path / name, ":")) == number


def test_a_frame_is_written_once(frame, tmp_path):
    with TrajectoryFile(tmp_path / "run.traj") as writer:
        writer.write(frame)
        writer.write(frame)
    assert len(read(tmp_path / "run.traj", ":")) == 1


def test_without_a_path_nothing_is_written(frame):
    with TrajectoryFile(None) as writer:
        writer.write(frame)


def test_an_existing_file_is_refused(tmp_path):
    path = tmp_path / "run.traj"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"run.traj.*exists.*overwrite=True"):
        TrajectoryFile(path)
    assert path.read_text() == "precious"


def test_an_existing_file_is_replaced_by_the_first_frame_only(frame, tmp_path):
    path = tmp_path / "run.traj"
    path.write_text("old")
    with TrajectoryFile(path, overwrite=True) as writer:
        assert path.read_text() == "old"
        writer.write(frame)
    assert len(read(path, ":")) == 1


@pytest.mark.parametrize("name", ["a.foo", "a.cube", "a.gif"])
def test_a_format_without_many_frames_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="`trajectory`"):
        TrajectoryFile(tmp_path / name)


def test_a_format_that_ase_writes_whole_is_written_at_the_end(frame, tmp_path):
    path = tmp_path / "run.pdb"
    with TrajectoryFile(path) as writer:
        for number in range(3):
            writer.write(with_results(frame, energy=number))
            assert len(read(path, ":")) == 1
    frames = read(path, ":")
    assert len(frames) == 3
    assert np.abs(frames[2].positions - frame.positions).max() < 1e-3  # what PDB keeps
    assert [atoms.get_potential_energy() for atoms in read(tmp_path / "run.pdb.extxyz", ":")] == [0, 1, 2]


def test_a_file_that_grows_beside_it_is_not_replaced_either(frame, tmp_path):
    (tmp_path / "run.pdb.extxyz").write_text("precious")
    with pytest.raises(FileExistsError, match=r"run.pdb.extxyz exists"):
        TrajectoryFile(tmp_path / "run.pdb")


@pytest.mark.parametrize("name", ["run.traj", "run.extxyz", "run.pdb"])
def test_what_comes_after_a_size_is_cut_off(frame, tmp_path, name):
    path = tmp_path / name
    with TrajectoryFile(path) as writer:
        writer.write(with_results(frame, energy=0))
        writer.write(with_results(frame, energy=1))
        size = writer.size
        writer.write(with_results(frame, energy=2))
    growing = tmp_path / "run.pdb.extxyz" if name == "run.pdb" else path
    with growing.open("ab") as file:
        file.write(b"9\nhalf a fra")
    with TrajectoryFile(path, resume=size) as writer:
        assert writer.size == size
        writer.write(with_results(frame, energy=3))
    assert [atoms.get_potential_energy() for atoms in read(growing, ":")] == [0, 1, 3]
    assert len(read(path, ":")) == 3


@pytest.mark.parametrize("name", ["run.traj", "run.extxyz"])
def test_a_file_that_is_shorter_than_it_was_is_refused(frame, tmp_path, name):
    path = tmp_path / name
    with TrajectoryFile(path) as writer:
        writer.write(frame)
        size = writer.size
    with pytest.raises(ValueError, match=rf"{name}.* {size + 1}, got {size}; begin a new run"):
        TrajectoryFile(path, resume=size + 1)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no such.*resume"):
        TrajectoryFile(path, resume=size)


@pytest.mark.parametrize("kept", [0, 40, 0.6, 0.99])
def test_a_trajectory_that_was_cut_off_is_refused_by_name(frame, tmp_path, kept):
    """Its header counts all frames that were written, whether or not they are there."""
    path = tmp_path / "run.traj"
    with TrajectoryFile(path) as writer:
        for energy in range(3):
            writer.write(with_results(frame, energy=energy))
        size = writer.size
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
    with pytest.raises(ValueError, match=r"run\.traj: .*resume"):
        TrajectoryFile(path, resume=size)


@pytest.mark.parametrize("byte", [b"\0", b"x"])
def test_a_damaged_trajectory_is_refused_by_name(frame, tmp_path, byte):
    path = tmp_path / "run.traj"
    with TrajectoryFile(path) as writer:
        writer.write(frame)
        size = writer.size
    content = path.read_bytes()
    place = content.rindex(b"{") + 1
    path.write_bytes(content[:place] + byte + content[place + 1 :])
    with pytest.raises(ValueError, match=r"run\.traj: .*resume"):
        TrajectoryFile(path, resume=size)


@pytest.mark.parametrize("name", ["run.traj", "run.extxyz"])
def test_a_trajectory_of_two_names_is_not_gone_on_with(frame, tmp_path, name):
    path = tmp_path / name
    with TrajectoryFile(path) as writer:
        writer.write(frame)
        size = writer.size
    (tmp_path / "other").hardlink_to(path)
    with pytest.raises(FileExistsError, match=f"{name}: has another name"):
        TrajectoryFile(path, resume=size)


def test_a_trajectory_that_appeared_meanwhile_stays(tmp_path):
    path = tmp_path / "run.traj"
    writer = TrajectoryFile(path)
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="exists"), writer:
        pass
    assert path.read_text() == "precious"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.traj.*folder.*absent"):
        TrajectoryFile(tmp_path / "absent" / "run.traj")
