"""The directory of a training run: its files, and their protection against other runs."""

from __future__ import annotations

import copy
import csv
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import yaml
from torch import Tensor, nn

from pyg_schnet.datasets.splits import Split, read_split
from pyg_schnet.io.atomic import atomic_write, is_leftover, remove_leftovers
from pyg_schnet.io.formats.npz import open_npz, read_array
from pyg_schnet.io.locks import FileLock
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.potential import Potential


class RunDirectory:
    """Files of a training run.

    ============================  ===================================================================
    ``model.safetensors``         the best potential by validation, with averaged weights
    ``last.safetensors``          state of the training, for ``--resume``
    ``config.yaml``               every option, resolved
    ``split.npz``                 indices of the structures: train, val, test
    ``metrics.csv``               a row per validation
    ``tensorboard/``              the same for TensorBoard
    ``wandb/``, ``wandb_id.txt``  the same for Weights & Biases, if ``trainer.loggers`` names it
    ``learning_curve.png``        plotted at the end
    ``.lock``                     empty; only while a process trains
    ``.pyg-schnet-run``           empty; marks the folder as that of a run
    ============================  ===================================================================

    Folders without the mark are not modified, unless their ``last.safetensors`` is a training state, as in
    runs of earlier versions.

    Functions that take a model take a run, too: it is a path-like object.

    Args:
        path: The directory, which need not exist.
        network: Model that was trained instead of a SchNet, into which the weights are loaded.
    """

    def __init__(self, path: str | os.PathLike, network: nn.Module | None = None):
        self.path, self.network = Path(path), network
        self.model = self.path / "model.safetensors"
        self.last = self.path / "last.safetensors"
        self.config = self.path / "config.yaml"
        self.split = self.path / "split.npz"
        self.metrics = self.path / "metrics.csv"
        self.tensorboard = self.path / "tensorboard"
        self.wandb_id = self.path / "wandb_id.txt"
        self.learning_curve = self.path / "learning_curve.png"
        self._mark = self.path / ".pyg-schnet-run"
        self._files = (self.model, self.last, self.split, self.metrics, self.learning_curve, self.config)
        self._files += (self.wandb_id,)
        self._lock = FileLock(self.path, is_folder=True)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def potential(self) -> Potential:
        """The best potential by validation, in evaluation mode; loaded each time.

        Raises:
            FileNotFoundError: If training has not validated yet.
        """
        return checkpoint.load(self.model, model=copy.deepcopy(self.network))

    @property
    def best(self) -> dict[str, float]:
        """Validation errors of the best potential, a row of the metrics with units in the names.

        Raises:
            FileNotFoundError: If training has not validated yet.
        """
        return checkpoint.provenance(self.model)["validation"] or {}

    def prepare(self, resume: bool, overwrite: bool) -> None:
        """Create the directory and lock it until :meth:`release`.

        Resuming removes nothing; a run that was killed before its first checkpoint starts again. Overwriting
        removes the files of a run and no others.

        Args:
            resume: Whether to continue a run that is there.
            overwrite: Whether to replace a run that is there.

        Raises:
            ValueError: If both flags are set.
            OSError: If the directory cannot be created.
            FileExistsError: If the directory exists and neither flag is set, if it is not the folder of a
                run, or if another run is writing to it.
            FileNotFoundError: If it holds a model, but no state to resume from.
        """
        if resume and overwrite:
            raise ValueError("`--resume` and `--overwrite` exclude each other; set one")
        self._check(resume, overwrite)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"{self.path}: cannot be created ({error.strerror}); choose another --out"
            ) from None
        self._lock.acquire()
        try:
            self._check(resume, overwrite)
            self._reject_links()
            if resume and self.last.is_file():
                checkpoint.read(self.last, "training state")  # verified before anything is changed
                self.read_metrics()
            self._mark.touch()
            if overwrite:
                self._clear()
            for own in self._files:
                remove_leftovers(own)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Unlock the directory."""
        self._lock.release()

    def _check(self, resume: bool, overwrite: bool) -> None:
        if not self.path.exists():
            return
        if self.path.is_dir() and all(map(self._is_ignored, self.path.iterdir())):
            return
        if not resume and not overwrite:
            raise FileExistsError(
                f"{self.path}: exists; choose another --out, or set --resume to continue that run or "
                "--overwrite to replace it"
            )
        if not self._is_run():
            raise FileExistsError(
                f"{self.path}: is not a run of pyg-schnet (it has no {self._mark.name}, and no "
                f"last.safetensors of one), so --{'resume' if resume else 'overwrite'} does not touch it; "
                "choose another --out"
            )
        if resume and not self.last.is_file():
            for path in (self.model, self.metrics, self.learning_curve):
                if path.exists():
                    raise FileNotFoundError(
                        f"{self.path}: holds {path.name}, but no last.safetensors to resume from; start "
                        "again with --overwrite, or choose another --out"
                    )

    def _is_run(self) -> bool:
        """Return whether a training created the folder; earlier versions wrote no mark."""
        if self._mark.is_file():
            return True
        try:
            checkpoint.read(self.last, "training state")
        except (FileNotFoundError, ValueError):
            return False
        return True

    def _reject_links(self) -> None:
        """Raise if a file is a link: a folder from elsewhere could redirect writes to the user's files."""
        for path in (*self._files, self.tensorboard):
            if path.is_symlink() or (path.is_dir() and path != self.tensorboard):
                raise ValueError(
                    f"{path}: must be a file of this run, got a link or a folder; copy the file here, or "
                    "move the folder away"
                )

    def _is_ignored(self, path: Path) -> bool:
        """Return whether a file is a lock, a mark, or the leftover of an interrupted write."""
        own = (self._lock.lock_file.name, self._mark.name)
        return path.name in own or any(is_leftover(path, file.name) for file in self._files)

    def _clear(self) -> None:
        """Remove the files of the run, and logs in its TensorBoard folder."""
        for own in (*self._files, *self.tensorboard.glob("events.out.tfevents.*")):
            own.unlink(missing_ok=True)
        with suppress(OSError):  # absent, or not empty
            self.tensorboard.rmdir()

    def write_config(self, config: Mapping) -> None:
        """Write the resolved configuration, which is a valid recipe.

        Args:
            config: All options by section, in types of YAML.
        """
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        _write_text(self.config, text)

    def write_split(self, split: Split, structures: int | None = None, hashes: Sequence[str] = ()) -> None:
        """Write the split, the number of structures, and the SHA-256 of the split and of the data files.

        Args:
            split: Indices of the structures for training, validation and test.
            structures: Number of structures of the data; by default those of the split.
            hashes: SHA-256 of the data files.
        """
        arrays = {part: ids.numpy() for part, ids in split._asdict().items()}
        arrays["structures"] = np.array(sum(map(len, split)) if structures is None else structures)
        arrays["sha256"] = np.array(hashes, dtype="U64")
        arrays["split_sha256"] = np.array(split.sha256())
        with atomic_write(self.split) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    def read_hashes(self) -> list[str]:
        """Return the SHA-256 of the data files that were split."""
        with open_npz(self.split) as file:
            return read_array(self.split, file, "sha256").reshape(-1).astype(str).tolist()

    def read_split(self) -> Split:
        """Read the split.

        Raises:
            ValueError: If it was changed after it was written.
        """
        split = read_split(self.split)
        with open_npz(self.split) as file:
            if "split_sha256" not in file.files:  # of an earlier version
                return split
            stored = str(read_array(self.split, file, "split_sha256"))
        if stored != split.sha256():
            raise ValueError(f"{self.split}: was changed since training wrote it; train again")
        return split

    def read_part(self, part: str, structures: int, sha256: str | None = None) -> Tensor:
        """Read the indices of the training, validation or test structures.

        Args:
            part: "train", "val" or "test".
            structures: Number of structures of the data file.
            sha256: SHA-256 of the data file, to compare with that of the file that was split.

        Returns:
            Indices, shape ``(structures,)``.

        Raises:
            FileNotFoundError: If there is no split.
            ValueError: If there is no such part, if it is empty, or if another file was split.
        """
        if part not in Split._fields:
            raise ValueError(f"`part` must be one of {', '.join(Split._fields)}; got {part!r}")
        if not self.split.is_file():
            raise FileNotFoundError(f"{self.split}: no such file; training writes it beside the model")
        split = self.read_split()
        with open_npz(self.split) as file:
            stored = read_array(self.split, file, "structures") if "structures" in file.files else None
        total = sum(map(len, split)) if stored is None else stored.item() if stored.size == 1 else None
        if total != structures:
            raise ValueError(
                f"{self.split}: splits a file of {total} structures, got one of {structures}; use the file "
                "that the potential was trained on"
            )
        if sha256 is not None and self.read_hashes()[:1] not in ([], [sha256]):
            raise ValueError(f"{self.split}: splits a file of other content; use the one that was trained on")
        split.check(f"{self.split}: {part}", structures)
        ids = getattr(split, part)
        if len(ids) == 0:
            raise ValueError(
                f"{self.split}: the part {part!r} is empty; train with a smaller `data.n_train`, or test "
                "on another file of the data set"
            )
        return ids

    def append_metrics(self, row: Mapping[str, float]) -> None:
        """Append a row to ``metrics.csv``, atomically.

        Args:
            row: Values by column, ``step`` first.
        """
        before = self.metrics.read_text(encoding="utf-8") if self.metrics.exists() else ""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
        if not before:
            writer.writeheader()
        writer.writerow(row)
        _write_text(self.metrics, before + text.getvalue())

    def truncate_metrics(self, step: int) -> None:
        """Remove the rows after a step, which a resumed run writes again.

        Args:
            step: Last step whose row is kept.
        """
        if not self.metrics.exists():
            return
        header, *lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        kept = [line for line in lines if line.split(",")[0].isdigit() and int(line.split(",")[0]) <= step]
        _write_text(self.metrics, "\n".join([header, *kept, ""]))

    def read_metrics(self) -> list[dict[str, float]]:
        """Return the rows of ``metrics.csv``; without the file, an empty list.

        Raises:
            ValueError: If a value is not a number.
        """
        if not self.metrics.exists():
            return []
        with self.metrics.open(newline="", encoding="utf-8") as file:
            try:
                return [
                    {key: int(value) if key == "step" else float(value) for key, value in row.items()}
                    for row in csv.DictReader(file)
                ]
            except (ValueError, TypeError, OverflowError, csv.Error) as error:
                raise ValueError(
                    f"{self.metrics}: must hold a number under each name ({str(error)[:80]}); repair "
                    "or remove it"
                ) from None


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
