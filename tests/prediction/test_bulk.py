"""Files larger than the memory: split among processes and jobs, killed, resumed, each structure once."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from contextlib import closing
from itertools import chain, takewhile
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from pyg_schnet import Potential, SchNet, cli
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.potentials.checkpoint import save
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.prediction.results import ResultFile
from pyg_schnet.prediction.shards import ShardSpec

ROOT = Path(__file__).parents[2]
LINUX = sys.platform == "linux"
MANY = 201


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models, ``in.xyz`` with molecules and crystals, and ``straight.extxyz``, by one process."""
    here = tmp_path_factory.mktemp("bulk")
    domain = TrainingDomain(
        {(1, 8): 2.0, (1, 6): 0.5, (6, 6): 0.5, (1, 1): 0.5, (6, 8): 0.5}
    )  # Å: O-H is closer
    for name, filters in {"m.safetensors": "exact", "compiled.safetensors": "auto"}.items():
        torch.manual_seed(0)
        sizes = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 8}
        potential = Potential(SchNet(**sizes, cutoff=4.0, filters=filters), scale=0.3, elements=[1, 6, 8])
        potential.domain = domain
        save(potential, here / name)
    kinds = [molecule(name) for name in ("CH3CH2OH", "H2O", "CH4", "C6H6", "CO", "O")]
    kinds.append(bulk("C", "diamond", a=3.6))
    frames = [kinds[number % len(kinds)].copy() for number in range(MANY)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.03, seed=seed)
    ase.io.write(here / "in.xyz", frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert predict("straight.extxyz") == 0
    return here


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    for name in ("m.safetensors", "in.xyz"):
        shutil.copy(folder / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def straight(folder):
    return (folder / "straight.extxyz").read_bytes()


def predict(*arguments: str, source: str = "in.xyz", model: str = "m.safetensors") -> int:
    return cli.main(["predict", model, source, *arguments, "--batch_size", "4", "--quiet"])


def started(*arguments: str) -> subprocess.Popen:
    """Begin in a group of its own, as a shell does."""
    command = [sys.executable, "-m", "pyg_schnet.cli", "predict", "m.safetensors", "in.xyz", *arguments]
    return subprocess.Popen(
        [*command, "--batch_size", "4"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stored(name: str) -> bytes:
    """The bytes of a database; of its write-ahead log, too."""
    return b"".join(
        Path(f"{name}{end}").read_bytes() for end in ("", "-wal") if Path(f"{name}{end}").exists()
    )


def wait_for_frames(process: subprocess.Popen, partial: str, count: int) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        if stored(partial).count(b"Properties") >= count:
            return
        time.sleep(0.002)
    raise AssertionError(f"never came to {count} frames: {process.poll()}")


def rows(database: str) -> list[int]:
    with closing(sqlite3.connect(database)) as opened:
        return [number for (number,) in opened.execute("SELECT number FROM frames ORDER BY number")]


def workers_of(process: subprocess.Popen) -> list[int]:
    """Find the processes that compute, among which multiprocessing's own tracker is none."""
    found = []
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def vanish(pids: list[int]) -> bool:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if not any(Path(f"/proc/{pid}").exists() and not _is_zombie(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 4, 32])
@pytest.mark.parametrize("begin", [0, 1, 63, 64])
def test_shards_have_each_place_once_however_they_are_split(count, size, begin):
    total = 150
    shards = [ShardSpec(k, count, size).split(j, 3) for k in range(count) for j in range(3)]
    places = [list(takewhile(lambda place: place < total, shard.places(begin))) for shard in shards]
    assert sorted(chain.from_iterable(places)) == list(range(begin // size * size, total))
    for k in range(count):
        shard = ShardSpec(k, count, size)
        whole = list(takewhile(lambda place: place < total, shard.places()))
        assert shard.count(total) == len(whole)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", ""])
def test_a_shard_that_is_none_is_rejected(text, here, capsys):
    assert predict("out.extxyz", f"--shard={text}") == 2
    assert "`--shard` must be K/N" in capsys.readouterr().err


@pytest.mark.process
def test_several_processes_write_the_bytes_of_one(here, folder):
    """The first eight batches are computed by another program than the rest."""
    options = {"source": str(folder / "in.xyz"), "model": str(folder / "compiled.safetensors")}
    assert predict("out.extxyz", "--index", "::2", "--processes", "2", **options) == 0
    assert [path.name for path in here.glob("out*")] == ["out.extxyz"]
    assert predict("one.extxyz", "--index", "::2", **options) == 0
    assert Path("out.extxyz").read_bytes() == Path("one.extxyz").read_bytes()


@pytest.mark.process
def test_what_several_processes_refuse_is_reported_in_the_order_of_the_file(here, capsys):
    frames = ase.io.read("in.xyz", ":40")
    frames[9], frames[30] = molecule("SiH4"), molecule("SiH4")
    ase.io.write("bad.xyz", frames)
    assert predict("out.traj", "--processes", "2", source="bad.xyz") == 2
    message = capsys.readouterr().err
    assert "bad.xyz: frame 9, counted from 0: `z` contains 14" in message
    assert "9 structures are done, in out.traj.partial; --resume" in message
    again = ["out.traj", "--resume", "--skip", "--json", "--batch_size", "4"]
    assert cli.main(["predict", "m.safetensors", "bad.xyz", *again]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["earlier"], told["structures"]) == (9, 38)
    assert [row["frame"] for row in told["refused"]] == [9, 30]
    water = [number for number in range(9, 40) if number % 7 == 1]
    assert {row["frame"] for row in told["outside"]} >= set(water) - {9, 30}
    assert predict("one.traj", "--skip", source="bad.xyz") == 0
    found, expected = (ase.io.read(name, ":") for name in ("out.traj", "one.traj"))
    assert [frame.info["input_frame"] for frame in found] == [k for k in range(40) if k not in (9, 30)]
    for one, other in zip(found, expected, strict=True):
        assert one.get_potential_energy() == other.get_potential_energy()
        assert np.array_equal(one.get_forces(), other.get_forces())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_a_resumed_file_has_the_bytes_of_a_straight_one_wherever_it_was_cut(suffix, seed, here, straight):
    assert predict("straight.traj", "--index", ":30") == 0
    stop = random.Random(seed).randrange(1, 30)
    with pytest.MonkeyPatch.context() as patch:
        add = ResultFile.add

        def interrupted(self, results):
            add(self, results[: max(0, stop - self.written)])
            if self.written == stop:
                raise KeyboardInterrupt

        patch.setattr(ResultFile, "add", interrupted)
        assert predict(f"out.{suffix}", "--index", ":30") == 130
    assert rows(f"out.{suffix}.partial") == list(range(stop))
    assert predict(f"out.{suffix}", "--index", ":30", "--resume") == 0
    expected = ase.io.read("straight.traj", ":")
    found = ase.io.read(f"out.{suffix}", ":")
    assert [frame.info["input_frame"] for frame in found] == list(range(30))
    for one, other in zip(found, expected, strict=True):
        rounding = 0 if suffix == "traj" else 1e-8  # digits of extended xyz
        assert abs(one.get_potential_energy() - other.get_potential_energy()) <= rounding
        assert np.abs(one.get_forces() - other.get_forces()).max() <= rounding


@pytest.mark.process
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_after_the_kill_of_a_run_no_process_is_left_and_any_number_goes_on(seed, here, straight):
    if not LINUX:
        pytest.skip("reads /proc")
    process = started("out.extxyz", "--processes", "2")
    try:
        wait_for_frames(process, "out.extxyz.partial", random.Random(seed).randrange(1, 100))
        workers = workers_of(process)
        assert len(workers) == 2
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not Path("out.extxyz").exists()
    assert vanish(workers)
    assert predict("out.extxyz", "--resume") == 0
    assert Path("out.extxyz").read_bytes() == straight


@pytest.mark.process
def test_a_killed_worker_ends_the_run_and_nothing_is_lost(here, straight):
    if not LINUX:
        pytest.skip("reads /proc")
    process = started("out.extxyz", "--processes", "2")
    try:
        wait_for_frames(process, "out.extxyz.partial", 8)
        one, other = workers_of(process)
        os.kill(one, signal.SIGKILL)
        _, message = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "of 2 was killed, perhaps for lack of memory; use fewer `--processes`" in message
    assert "structures are done, in out.extxyz.partial; --resume" in message
    assert vanish([other])
    assert predict("out.extxyz", "--resume") == 0
    assert Path("out.extxyz").read_bytes() == straight


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "code"), [("SIGTERM", 143), pytest.param("SIGINT", 130, marks=pytest.mark.nightly)]
)
def test_a_signal_to_all_processes_keeps_what_is_done(name, code, here, straight):
    if not LINUX:
        pytest.skip("reads /proc")
    process = started("out.extxyz", "--processes", "2")
    try:
        wait_for_frames(process, "out.extxyz.partial", 8)
        workers = workers_of(process)
        os.killpg(process.pid, signal.Signals[name])
        _, message = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert "structures are done, in out.extxyz.partial; --resume" in message
    assert {"SIGTERM": "terminated", "SIGINT": "interrupted"}[name] in message
    assert "Traceback" not in message
    assert vanish(workers)
    assert predict("out.extxyz", "--resume") == 0
    assert Path("out.extxyz").read_bytes() == straight


@pytest.mark.parametrize("count", [1, 3, 9])
def test_joined_shards_are_the_bytes_of_one_run(count, here, capsys):
    """The ninth of eight batches is an empty shard."""
    index = ["--index", ":30"]
    for number in random.Random(count).sample(range(1, count + 1), count):
        assert predict("out.extxyz", "--shard", f"{number}/{count}", *index) == 0
    assert (rows(f"out.extxyz.shard-{count}-of-{count}") == []) == (count == 9)
    assert predict("out.extxyz", "--shard", f"{count}/{count}", *index, "--resume") == 0  # comes twice
    assert predict("out.extxyz", "--join", *index) == 0
    assert [path.name for path in here.glob("out*")] == ["out.extxyz"]
    assert predict("straight.extxyz", *index) == 0
    assert Path("out.extxyz").read_bytes() == Path("straight.extxyz").read_bytes()
    assert predict("out.extxyz", "--join", *index, "--resume") == 0
    assert predict("out.extxyz", "--shard", f"1/{count}", *index, "--resume") == 0
    capsys.readouterr()
    assert predict("out.extxyz", "--shard", f"1/{count}", *index) == 2
    assert "out.extxyz: exists; use another name" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["out.traj", "out.db", "out.xyz.gz"])
def test_shards_of_other_formats_are_joined_too(out, here):
    for number in (1, 2, 3):
        assert predict(out, "--shard", f"{number}/3", "--index", ":9") == 0
    assert predict(out, "--join", "--index", ":9") == 0
    assert predict(f"straight-{out}", "--index", ":9") == 0
    found, expected = ase.io.read(out, ":"), ase.io.read(f"straight-{out}", ":")
    assert len(found) == 9
    for one, other in zip(found, expected, strict=True):
        assert one.info == other.info
        assert one.get_potential_energy() == other.get_potential_energy()


@pytest.fixture
def shards(here):
    for number in (1, 2, 3):
        assert predict("out.extxyz", "--shard", f"{number}/3", "--index", ":30") == 0
    return [Path(f"out.extxyz.shard-{number}-of-3") for number in (1, 2, 3)]


def fails_to_join(capsys, *options: str) -> str:
    assert predict("out.extxyz", "--join", "--overwrite", *(options or ("--index", ":30"))) == 2
    assert not Path("out.extxyz").exists()
    return capsys.readouterr().err


def test_a_join_names_the_shards_that_are_missing(shards, capsys):
    shards[1].unlink()
    assert "1 of 3 shards are missing or not complete: out.extxyz.shard-2-of-3" in fails_to_join(capsys)
    for path in (shards[0], shards[2]):
        path.unlink()
    assert "out.extxyz: has no shards, such as out.extxyz.shard-1-of-2;" in fails_to_join(capsys)


def test_a_join_refuses_shards_of_other_splits_and_runs(shards, capsys):
    assert "must be of the same MODEL, IN, --index" in fails_to_join(capsys, "--index", ":29")
    other = shutil.copy(shards[0], "out.extxyz.shard-1-of-2")
    assert "must have shards of one split, got some of 2 and of 3" in fails_to_join(capsys)
    Path(other).unlink()
    shutil.copy(shards[0], shards[1])  # one shard twice
    assert "shard-2-of-3: must be of the same MODEL" in fails_to_join(capsys)


def test_a_join_refuses_shards_in_which_something_is_missing_double_or_damaged(shards, capsys):
    whole = shards[1].read_bytes()
    for change, message in {
        "DELETE FROM frames WHERE number = 5": "must have structure 5 of IN, and does not",
        "DELETE FROM frames WHERE number > 16": "must have structure 17 of IN, and does not",
        "UPDATE frames SET number = 3 WHERE number = 4": "must have structure 4 of IN, and does not",
        "UPDATE frames SET number = 27 WHERE number = 19": "must have structure 19 of IN",
        "INSERT INTO frames (number, crc32) VALUES (30, 0)": "has structure 30 of IN, which is not of",
        "CREATE VIEW endless AS SELECT 1": "is damaged (it has other tables)",
        "CREATE TRIGGER t AFTER INSERT ON run BEGIN SELECT 1; END": "is damaged (it has other tables)",
        "DROP TABLE frames": "is damaged (it has other tables)",
        "UPDATE run SET value = '[' WHERE name = 'verb'": "is damaged (Expecting value",
    }.items():
        with closing(sqlite3.connect(shards[1])) as database, database:
            database.execute(change)
        assert f"shard-2-of-3: {message}" in fails_to_join(capsys)
        shards[1].write_bytes(whole)
    for damaged in (whole[:-5], whole[:5000], b"12\n" + whole, bytes(1000)):
        shards[1].write_bytes(damaged)
        assert "shard-2-of-3: is damaged (" in fails_to_join(capsys)
    shards[1].write_bytes(whole)
    assert predict("out.extxyz", "--join", "--index", ":30", "--overwrite") == 0


def test_a_structure_refused_in_a_shard_is_left_out_of_all_with_skip(here, capsys):
    frames = ase.io.read("in.xyz", ":12")
    frames[5] = molecule("SiH4")
    ase.io.write("in.xyz", frames)
    for number in (1, 2):
        assert predict("out.extxyz", "--shard", f"{number}/2", "--skip") == 0
    capsys.readouterr()
    assert "shard-2-of-2: structure 5 of IN was rejected (`z` contains 14" in fails_to_join(
        capsys, "--index", ":"
    )
    assert predict("out.extxyz", "--join", "--skip", "--resume") == 0
    found = ase.io.read("out.extxyz", ":")
    assert [frame.info["input_frame"] for frame in found] == [k for k in range(12) if k != 5]


def test_a_join_that_was_killed_goes_on(shards, here):
    assert predict("straight.extxyz", "--index", ":30") == 0
    with pytest.MonkeyPatch.context() as patch:
        insert = ResultFile.insert_from

        def interrupted(self, path):
            insert(self, path)
            if path.name.endswith("2-of-3"):
                raise KeyboardInterrupt

        patch.setattr(ResultFile, "insert_from", interrupted)
        assert predict("out.extxyz", "--join", "--index", ":30") == 130
    assert all(path.exists() for path in shards)
    assert rows("out.extxyz.partial") == [k for k in range(30) if k // 4 % 3 < 2]
    assert predict("out.extxyz", "--join", "--index", ":30", "--resume") == 0
    assert Path("out.extxyz").read_bytes() == Path("straight.extxyz").read_bytes()


@pytest.mark.parametrize("out", ["out.extxyz", "out.traj", "out.db", "out.json", "out.xyz.gz"])
def test_a_run_that_was_killed_when_all_was_done_is_done(out, here, capsys):
    assert predict(out, "--index", ":9") == 0
    content = Path(out).read_bytes()
    assert predict(out, "--index", ":9", "--resume") == 0
    assert Path(out).read_bytes() == content
    capsys.readouterr()
    assert predict(out, "--index", ":8", "--resume") == 2
    assert f"{out}: is complete, with other settings" in capsys.readouterr().err


def test_a_join_removes_no_shards_of_another_run(shards, here):
    """Those of the join itself are removed, also when it was killed after OUT got its name."""
    kept = [path.read_bytes() for path in shards]
    assert predict("out.extxyz", "--join", "--index", ":30") == 0
    for path, content in zip(shards, kept, strict=True):
        path.write_bytes(content)
    assert predict("other.extxyz", "--shard", "1/3", "--index", ":20") == 0
    other = Path("other.extxyz.shard-1-of-3").rename(shards[0])
    assert predict("out.extxyz", "--join", "--index", ":30", "--resume") == 0
    assert [path.exists() for path in shards] == [True, False, False]
    assert other.stat().st_size


def test_a_shard_passes_over_what_belongs_to_others(here, capsys):
    lines = Path("in.xyz").read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace(lines[2].split()[1], "zero")  # in the first frame
    Path("in.xyz").write_text("".join(lines))
    numbers = [number for number, _ in StructureFile("in.xyz").read(ShardSpec(1, 3, 4).places())]
    assert numbers[:6] == [4, 5, 6, 7, 16, 17]
    assert predict("out.extxyz", "--processes", "2", "--resume") == 2
    assert "in.xyz: frame 0, counted from 0, cannot be read" in capsys.readouterr().err
    assert not list(here.glob("out*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "0"], "`--processes` must be at least 1, got 0"),
        (["--join", "--shard", "1/2"], "`--join` must be used without `--shard`"),
        (["--join", "--processes", "2"], "`--join` must be used without `--shard`"),
    ],
)
def test_options_that_exclude_each_other_are_rejected(arguments, message, here, capsys):
    assert predict("out.extxyz", *arguments) == 2
    assert message in capsys.readouterr().err


def limited(size: int, *arguments: str) -> int:
    """Predict while no file may become larger, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        return predict(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("out", "at"),
    [("out.extxyz", "amid"), ("out.traj", "amid"), ("out.db", "end"), ("out.json", "end")],
)
def test_a_full_disk_is_reported_and_after_room_was_made_the_run_continues(out, at, here, capsys):
    index = ["--index", ":40"]
    assert predict(f"straight-{out}", *index) == 0
    assert limited(60_000 if at == "amid" else Path(f"straight-{out}").stat().st_size - 500, out, *index) == 2
    message = capsys.readouterr().err
    assert f"{out}: cannot be written (" in message
    assert "; make room, then continue with --resume" in message
    assert f"structures are done, in {out}.partial; --resume" in message
    assert not Path(out).exists()
    assert not any(path.stat().st_size for path in here.glob(".*"))  # nothing that takes room
    assert predict(out, *index, "--resume") == 0
    found, expected = ase.io.read(out, ":"), ase.io.read(f"straight-{out}", ":")
    assert len(found) == 40
    for one, other in zip(found, expected, strict=True):
        assert one.get_potential_energy() == other.get_potential_energy()


def test_a_disk_that_is_full_from_the_beginning_is_reported(here, capsys):
    assert limited(0, "out.extxyz") == 2
    assert "out.extxyz: cannot be written (" in capsys.readouterr().err
    assert [path.name for path in here.glob("*out.extxyz*")] == []


def test_a_folder_in_which_nothing_can_be_written_is_reported(here, capsys):
    if not Path("/sys/kernel").is_dir():
        pytest.skip("has no folder that is read-only for everybody")
    assert predict("/sys/kernel/out.extxyz") == 2
    assert "/sys/kernel/out.extxyz: nothing can be written there (" in capsys.readouterr().err


def test_a_second_run_to_the_same_file_is_refused_and_a_dead_one_does_not_block(here, straight, capsys):
    with ResultFile("out.extxyz", {}):
        for option in ([], ["--overwrite"], ["--resume"]):
            assert predict("out.extxyz", *option) == 2
            message = capsys.readouterr().err
            assert (
                "out.extxyz: another process is writing to it; wait until that ends, or use another name"
                in message
            )
    assert predict("out.extxyz") == 0
    assert Path("out.extxyz").read_bytes() == straight


@pytest.mark.parametrize(
    "out",
    [
        "out.extxyz",
        *(pytest.param(out, marks=pytest.mark.process) for out in ("out.traj", "out.db", "out.xyz.gz")),
    ],
)
def test_memory_does_not_grow_with_the_file(out, here):
    carbon = ase.io.read("in.xyz", 5)
    for count in (20, 40, 120):
        ase.io.write(f"in{count}.xyz", [carbon] * count)
    peaks = {}
    for count in (20, 40, 120):  # the first warms up
        tracemalloc.start()
        try:
            assert predict(out, "--overwrite", source=f"in{count}.xyz") == 0
            peaks[count] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peaks[120] - peaks[40] < 50_000  # bytes; 80 structures have some 160,000


@pytest.mark.parametrize("kind", ["safetensors", "npz", "db"])
def test_data_sets_are_predicted_as_their_structures_are(kind, here):
    frames = [atoms for atoms in ase.io.read("in.xyz", ":20") if len(atoms) == 9]
    for number, atoms in enumerate(frames):
        atoms.info["energy"] = float(number)
    ase.io.write("labelled.extxyz", frames)
    if kind == "npz":
        arrays = {"R": np.stack([a.positions for a in frames]), "z": frames[0].numbers}
        np.savez("set.npz", **arrays, E=np.zeros(len(frames)), F=np.zeros_like(arrays["R"]))
        name = "set.npz"
    elif kind == "db":
        name = "set.db"
        ase.io.write(name, frames)
    else:
        made = AtomsDataset("root", "labelled.extxyz", dtype=torch.float64)
        name = made.processed_paths[0]
    for option in ([], ["--index", "1:"], ["--shard", "1/1"]):
        assert predict("out.traj", *option, "--overwrite", source=name) == 0
        if "--shard" in option:
            assert predict("out.traj", "--join", "--overwrite", source=name) == 0
        found = ase.io.read("out.traj", ":")
        start = 1 if "--index" in option else 0
        assert [frame.info["input_frame"] for frame in found] == list(range(start, len(frames)))
        for frame, atoms in zip(found, frames[start:], strict=True):
            assert np.abs(frame.positions - atoms.positions).max() < 1e-5
            assert frame.get_forces().shape == (9, 3)
