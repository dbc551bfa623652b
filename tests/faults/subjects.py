"""What is killed: a command, what it may leave, and what it has to end with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyg_schnet import cli
from tests.faults import inputs
from tests.faults.comparison import compare_data, compare_paths, compare_results, compare_runs
from tests.faults.wholeness import look_at_data, look_at_path, look_at_results, look_at_run


@dataclass(frozen=True)
class ModelAdapter:
    """A command that is killed and repeated, always the same.

    Attributes:
        name: What is hurt, as ``"train"``.
        variant: Which of its kinds.
        arguments: Of ``pyg-schnet``, in a folder of its own.
        look: Reads the files there and gives how many; raises where one with a final name is not whole.
        compare: Raises :class:`Lost` where the first folder does not hold what the second does. Gives the
            largest difference of a number, 0 where all are equal to the bit.
        prelude: Called before the command where it runs in a fork.
        start: What follows ``python`` where it does not.
    """

    name: str
    variant: str
    arguments: list[str]
    look: Callable[[Path], int]
    compare: Callable[[Path, Path], float]
    prelude: Callable[[], None] | None = None
    start: tuple[str, ...] = ("-m", "pyg_schnet.cli")

    def act(self) -> int:
        """Run the command in this process, in the folder it is in."""
        if self.prelude is not None:
            self.prelude()
        return cli.main(self.arguments)

    def command(self) -> list[str]:
        """Give the true command."""
        return [sys.executable, *self.start, *self.arguments]


def subjects(folder: Path, only: str | None, address: Callable[[str], str]) -> list[ModelAdapter]:
    """Make the inputs in a folder, and all that is killed.

    Args:
        folder: Of the inputs.
        only: The name of those wanted; all by default.
        address: Gives the address of a file of ``folder / "served"``.
    """
    model, start, frames = inputs.model(folder), inputs.start(folder), inputs.frames(folder)
    md = ["md", model, start, "--max_force", "null", "--closest", "null", "--interval", "10", "--resume"]
    md += ["--quiet", "--duration"]
    langevin = ["--thermostat", "langevin"]
    predict = ["predict", model, frames]
    archive = inputs.archive(folder)
    data = ["data", "md17", "--root", "root", "--quiet", "--name"]
    served = (address(archive.name), inputs.sha256(archive), archive.stat().st_size)
    script = "from tests.faults.inputs import run_served as run; import sys; sys.exit(run(sys.argv[1:]))"
    own = ["data", str(inputs.extxyz(folder)), "--root", "root", "--quiet"]
    qm9 = ["data", "qm9", "--source", str(inputs.QM9_SAMPLE), "--root", "root", "--quiet"]
    train = [
        ["train", str(inputs.recipe(folder, kind)), "--out", "run", "--resume", "--quiet"] for kind in (0, 1)
    ]
    made = [
        ModelAdapter(
            "download",
            "tar.bz2 of revised MD17",
            [*data, "revised ethanol"],
            lambda folder: look_at_data(folder, archive.read_bytes()),
            compare_data,
            lambda: inputs.serve_from(*served),
            ("-c", script, *map(str, served)),
        ),
        ModelAdapter(
            "process",
            "npz",
            [*data, "ethanol", "--source", str(inputs.npz(folder))],
            look_at_data,
            compare_data,
        ),
        ModelAdapter("process", "extxyz", own, look_at_data, compare_data),
        ModelAdapter("process", "QM9", qm9, look_at_data, compare_data),
        ModelAdapter("train", "SOAP, float32", train[0], look_at_run, compare_runs),
        ModelAdapter("train", "Adam, float64", train[1], look_at_run, compare_runs),
        ModelAdapter(
            "predict", "extxyz", [*predict, "out.extxyz", *_KEEPS], look_at_results, compare_results
        ),
        ModelAdapter("predict", "traj", [*predict, "out.traj", *_KEEPS], look_at_results, compare_results),
        ModelAdapter("predict", "db", [*predict, "out.db", *_KEEPS], look_at_results, compare_results),
        ModelAdapter("md", "extxyz", [*md[:3], "out.extxyz", *md[3:], "0.6"], look_at_path, compare_paths),
        ModelAdapter(
            "md", "traj", [*md[:3], "out.traj", *md[3:], "0.6", *langevin], look_at_path, compare_paths
        ),
    ]
    return [subject for subject in made if only in (None, subject.name)]


_KEEPS = ["--resume", "--quiet", "--batch_size", "4"]
