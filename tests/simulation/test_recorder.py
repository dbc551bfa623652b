"""Tests of the log and the statistics of a run."""

import numpy as np
import pytest

from pyg_schnet.simulation import run_md
from pyg_schnet.simulation.recorder import COLUMNS, RunLog, read_log
from pyg_schnet.simulation.statistics import Statistics, fit_drift


def test_a_row_is_in_the_file_at_once(tmp_path):
    path = tmp_path / "run.csv"
    with RunLog(path) as log:
        log.write(step=0, time_ps=0.0, total_eV=-1.5)
        assert path.read_text().splitlines() == [",".join(COLUMNS), "0,0.000000,,,-1.50000000,,,,"]


def test_rows_of_a_long_run_have_times_of_their_own(tmp_path):
    path = tmp_path / "run.csv"
    with RunLog(path) as log:
        for step in (20_000_000, 20_000_001):
            log.write(step=step, time_ps=step * 0.25 / 1000)
    times = [row.split(",")[1] for row in path.read_text().splitlines()[1:]]
    assert times == ["5000.000000", "5000.000250"]


def test_rows_after_the_step_to_go_on_from_are_dropped(tmp_path):
    path = tmp_path / "run.csv"
    with RunLog(path) as log:
        for step in (0, 10, 20):
            log.write(step=step)
    whole = path.read_text()
    path.write_text(whole + "30,1.")
    with RunLog(path, after=10) as log:
        log.write(step=20)
    assert path.read_text() == whole


def test_an_existing_log_is_refused(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"run.csv exists; .* overwrite=True"):
        RunLog(path)
    with pytest.raises(FileExistsError, match="is not a log"):
        RunLog(path, overwrite=True)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    "before", [",".join(COLUMNS) + "\n0,0.0,-1.,,,,,,\n", "step,time_ps,other\n", "step,ti", ""]
)
def test_a_log_is_replaced_by_the_first_row_only(tmp_path, before):
    path = tmp_path / "run.csv"
    path.write_text(before)
    with RunLog(path, overwrite=True) as log:
        assert path.read_text() == before
        log.write(step=0)
    assert len(path.read_text().splitlines()) == 2


ROWS = [f"{step},{step / 1000:.6f},{-1 - step / 1000:.8f},,,,,,\n" for step in (0, 10, 20, 30)]


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([*ROWS[:2], ROWS[1], ROWS[2]], "line 4 is broken"),  # of two writers
        ([ROWS[0], ROWS[1][:9] + ROWS[1], ROWS[2]], "line 3 is broken"),
        ([ROWS[0], ROWS[1].rstrip(",\n") + "\n", ROWS[2]], "line 3 is broken"),
        ([ROWS[0], "\n", ROWS[2]], "line 3 is broken"),
        ([ROWS[0], "x" + ROWS[1], ROWS[2]], "line 3 is broken"),
        ([ROWS[0], ROWS[1].replace("-1", "-x"), ROWS[2]], "line 3 is broken"),
        ([ROWS[0], ROWS[1], ROWS[3]], "line 4 is broken"),
        ([ROWS[0], ROWS[1]], "up to step 10"),
        ([ROWS[0], ROWS[1], ROWS[2][:-1]], "line 4 is broken"),
        ([], "up to step -1"),
        ([ROWS[0], ROWS[1], ROWS[2].replace("-1.02", "-1.03")], "energy.*step.*20.*-1.02"),
    ],
)
def test_a_log_that_lacks_rows_of_the_run_is_not_gone_on_with(tmp_path, rows, word):
    path = tmp_path / "run.csv"
    text = ",".join(COLUMNS) + "\n" + "".join(rows)
    path.write_text(text)
    with pytest.raises(ValueError, match=word):
        RunLog(path, after=20, energy=-1.02)
    assert path.read_text() == text


def test_of_two_runs_with_one_log_one_is_refused(tmp_path):
    path = tmp_path / "run.csv"
    with RunLog(path) as log:
        log.write(step=0)
        with pytest.raises(FileExistsError, match="another process"), RunLog(path, overwrite=True):
            pass
        log.write(step=10)
    assert len(path.read_text().splitlines()) == 3


def test_a_log_that_appeared_meanwhile_stays(tmp_path):
    path = tmp_path / "run.csv"
    log = RunLog(path)
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="exists"), log:
        pass
    assert path.read_text() == "precious"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.csv.*folder.*absent"):
        RunLog(tmp_path / "absent" / "run.csv")


def test_the_log_has_what_the_frames_have(ethanol, springs, tmp_path):
    ethanol.calc = springs(ethanol, stiffness=0.5)
    frames = []
    path = tmp_path / "run.csv"
    result = run_md(
        ethanol, duration=0.01, interval=5, log=path, on_step=lambda _, frame: frames.append(frame)
    )
    table = np.genfromtxt(path, delimiter=",", names=True)
    assert table["step"].tolist() == [0, 5, 10, 15, 20]
    assert table["time_ps"].tolist() == [0, 0.0025, 0.005, 0.0075, 0.01]
    energies = [frames[k].get_potential_energy() for k in (0, 5, 10, 15, 20)]
    assert table["potential_eV"] == pytest.approx(energies, abs=1e-8)
    assert table["total_eV"] == pytest.approx(table["potential_eV"] + table["kinetic_eV"], abs=2e-8)
    assert table["temperature_K"][0] == pytest.approx(300, abs=1e-3)
    assert np.isnan(table["pressure_GPa"]).all()
    assert np.isnan(table["drift_meV_per_atom_ps"][0])
    assert table["drift_meV_per_atom_ps"][-1] == pytest.approx(result.drift, abs=1e-5)
    assert result.log == path


def test_statistics_step_by_step_are_those_of_all_steps():
    rng = np.random.default_rng(0)
    total = -1e5 + 1e-6 * np.arange(500) + 1e-3 * rng.normal(size=500)
    temperatures = rng.normal(300, 20, size=500)
    found = Statistics()
    for step, (energy, temperature) in enumerate(zip(total, temperatures, strict=True)):
        found.add(step, energy, temperature)
    drift, fluctuation = fit_drift(total.tolist(), timestep=0.5, atoms=9)
    assert found.temperature == pytest.approx(temperatures.mean(), rel=1e-12)
    assert found.drift(0.5, 9) == pytest.approx(drift, rel=1e-6)
    assert found.fluctuation(9) == pytest.approx(fluctuation, rel=1e-6)


def test_one_step_has_no_drift():
    found = Statistics()
    found.add(0, -1.0, 300.0)
    assert found.drift(0.5, 9) is None
    assert found.fluctuation(9) is None


def test_a_log_is_read_up_to_its_last_whole_row(tmp_path):
    path = tmp_path / "log.csv"
    with RunLog(path) as log:
        log.write(step=0, time_ps=0.0, potential_eV=-1.0, total_eV=-0.5)
        log.write(step=10, time_ps=0.005, potential_eV=-1.25, total_eV=-0.5, temperature_K=300.0)
    with path.open("a") as file:
        file.write("20,0.01")  # as a run writes it at this moment
    first, second = read_log(path)
    assert (first["step"], second["potential_eV"], second["temperature_K"]) == (0, -1.25, 300.0)
    assert first["temperature_K"] != first["temperature_K"]  # an empty cell is NaN


def test_other_files_are_not_read_as_logs(tmp_path):
    path = tmp_path / "log.csv"
    with pytest.raises(FileNotFoundError, match="no such log"):
        read_log(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="must be the log"):
        read_log(path)
    path.write_text(",".join(COLUMNS) + "\n0,zero,0,0,0,0,,,\n")
    with pytest.raises(ValueError, match="line 2"):
        read_log(path)
