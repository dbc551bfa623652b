"""The cells of the tables: which recipe, on what, measured how."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOLECULES = (
    *("benzene", "toluene", "malonaldehyde", "salicylic", "aspirin", "ethanol", "uracil", "naphthalene"),
)
QM9_SIZES = (50_000, 100_000, 110_462)
QM9_TARGETS = {  # beside U0, with the units of their errors
    **{name: "eV" for name in ("homo", "lumo", "gap", "zpve", "U", "H", "G")},
    **{"mu": "D", "alpha": "Å³", "r2": "Å²", "Cv": "cal/mol/K"},
}
_ATOMS = dict(zip(MOLECULES, (12, 15, 9, 16, 21, 9, 12, 18), strict=True))
_GDML_GIGABYTES = 12  # the largest kernel for which sgdml's solver has been seen to fit beside its copies
_NO_TRAJECTORY = "needs the full trajectory of MD17 (--md17-full), which was not at hand"


@dataclass(frozen=True)
class Cell:
    """One cell of a table, or the two of one training.

    Attributes:
        table: ``"table1"``, ``"table2"``, ``"table2-revised"``, ``"table3"`` or ``"qm9-targets"``.
        column: The system and what it is trained on.
        rows: Of the table, with the arguments of ``pyg-schnet evaluate`` that measure each.
        dataset: Whose folder holds the ledger.
        recipe: File, seen from the repository's root; GDML has none.
        labels: Which labels.
        split: Which split.
        options: Of ``pyg-schnet train``, beside the recipe's; GDML's arguments.
        quantity: What ``energy`` of the reports is called.
        units: Of quantity and forces in the ledger.
        model: A baseline's name; SchNet if empty.
        members: Trainings with seeds 0, 1 and so on, whose mean is measured.
        missing: Why it cannot be trained here; empty if it can.
    """

    table: str
    column: str
    rows: dict[str, tuple[str, ...]]
    dataset: str
    recipe: str
    labels: str
    split: str
    options: tuple[str, ...] = ()
    quantity: str = "energy"
    units: tuple[str, str] = ("kcal/mol", "kcal/mol/Å")
    model: str = ""
    members: int = 1
    missing: str = ""

    @property
    def name(self) -> str:
        """Of the run's folder."""
        row = next(iter(self.rows)) if len(self.rows) == 1 else "all"
        return f"{self.table}-{row}-{self.column}"


@dataclass(frozen=True)
class Sources:
    """Where the data sets are.

    Attributes:
        md17: Folder of ``rmd17_<molecule>_<part>_<split>.npz`` files.
        md17_full: Folder of ``md17_<molecule>.npz`` files, MD17's trajectories.
        qm9: Processed QM9.
        iso17: Folder of ISO17's processed folds.
    """

    md17: Path | None = None
    md17_full: Path | None = None
    qm9: Path | None = None
    iso17: Path | None = None


def paper() -> dict:
    """Read the paper's tables."""
    return tomllib.loads((Path(__file__).parent / "paper.toml").read_text(encoding="utf-8"))


def paper_value(table: str, row: str, column: str, quantity: str) -> float | None:
    """Give the paper's number for a cell, if it has one."""
    if table == "table1":
        return paper()[table].get(column, {}).get(row) if quantity == "energy" else None
    values = paper().get(table, {}).get(row, {}).get(column)
    if values is None or quantity not in ("energy", "forces"):
        return None
    value = values[("energy", "forces").index(quantity)]
    return None if math.isnan(value) else value


def other_value(table: str, row: str, quantity: str) -> float | None:
    """Return the error of another published SchNet, for a table that the paper does not have."""
    return paper()["others"].get(table, {}).get(row, {}).get(quantity)


def cells(table: str, sources: Sources) -> list[Cell]:
    """List the cells of a table."""
    makers = {
        "table1": _table1,
        "table2": _table2,
        "table2-revised": _revised,
        "table3": _table3,
        "qm9-targets": _targets,
    }
    return list(makers[table](sources))


def _table2(sources: Sources) -> Iterator[Cell]:
    for molecule in MOLECULES:
        for column in ("schnet-1k-both", "schnet-1k-energy"):
            yield _md17(molecule, column, sources, "table2", "original")
        for column in ("schnet-50k-both", "schnet-50k-energy"):
            yield _trajectory(molecule, column, sources)
        yield replace(
            _trajectory(molecule, "dtnn-50k-energy", sources),
            recipe="benchmarks/baselines/dtnn_md17.yaml",
            model="dtnn",
        )
        yield _gdml(molecule, sources)


def _revised(sources: Sources) -> Iterator[Cell]:
    for molecule in MOLECULES:
        yield _md17(molecule, "schnet-1k-both", sources, "table2-revised", "revised")


def _md17(molecule: str, column: str, sources: Sources, table: str, labels: str) -> Cell:
    folder = sources.md17 or Path()
    train, val, test = (
        folder / f"rmd17_{molecule}_{part}.npz" for part in ("train_01", "test_02", "test_01")
    )
    suffix = "" if column.endswith("both") else "_energy"
    prefix = "old_" if labels == "original" else ""
    keys = (f"{prefix}energies", f"{prefix}forces")
    return Cell(
        table=table,
        column=column,
        rows={molecule: (str(test), "--energy_key", keys[0], "--forces_key", keys[1])},
        dataset="md17",
        recipe=f"datasets/md17/recipes/md17_n1000{suffix}.yaml",
        labels=labels,
        split="01, validation 02",
        options=(
            *("--data.path", str(train), "--data.val_path", str(val), "--data.energy_key", keys[0]),
            *(("--data.forces_key", keys[1]) if column.endswith("both") else ()),
        ),
        missing="" if sources.md17 else "needs the files of the splits (--md17)",
    )


def _gdml(molecule: str, sources: Sources) -> Cell:
    cell = _md17(molecule, "gdml-1k", sources, "table2", "original")
    files = [
        str((sources.md17 or Path()) / f"rmd17_{molecule}_{part}.npz")
        for part in ("train_01", "test_02", "test_01")
    ]
    size = (3 * _ATOMS[molecule] * 1000) ** 2 * 8 / 1e9
    large = f"its kernel takes {size:.0f} GB, more than {_GDML_GIGABYTES}"
    missing = large if size > _GDML_GIGABYTES else cell.missing
    return replace(
        cell, recipe="", options=(*files, "--memory", str(_GDML_GIGABYTES)), model="gdml", missing=missing
    )


def _trajectory(molecule: str, column: str, sources: Sources) -> Cell:
    suffix = "" if column.endswith("both") else "_energy"
    path = str((sources.md17_full or Path()) / f"md17_{molecule}.npz")
    return Cell(
        table="table2",
        column=column,
        rows={molecule: (path, "--part", "test")},
        dataset="md17",
        recipe=f"datasets/md17/recipes/md17_n50000{suffix}.yaml",
        labels="original",
        split="random, seed 0",
        options=("--data.path", path),
        missing="" if sources.md17_full else _NO_TRAJECTORY,
    )


def _table1(sources: Sources) -> Iterator[Cell]:
    for size in QM9_SIZES:
        cell = _qm9("schnet", "U0", size, sources)
        # The recipe's steps suffice for 50,000 molecules; twice as many give more.
        longer = ("--trainer.max_steps", "300000") if size > 50_000 else ()
        yield replace(cell, options=(*cell.options, *longer))
        if size > 50_000:
            wide = replace(cell, column="schnet-wide", recipe="datasets/qm9/recipes/u0_wide.yaml")
            yield wide
            yield replace(wide, column="schnet-wide-ens3", members=3)
    for size in (50_000, 100_000):
        recipe = "benchmarks/baselines/dtnn.yaml"
        yield replace(_qm9("dtnn", "U0", size, sources), recipe=recipe, model="dtnn")
    path = str((sources.qm9 or Path("qm9.safetensors")).with_name("qm9_features.safetensors"))
    single = replace(
        _qm9("enn-s2s", "U0", 110_462, sources),
        rows={"110462": (path, "--part", "test", "--energy_key", "U0")},
        recipe="benchmarks/baselines/enn_s2s.yaml",
        options=("--data.path", path, "--data.n_train", "110462"),
        model="enn-s2s",
    )
    yield single
    yield replace(single, column="enn-s2s-ens5", members=5)


def _targets(sources: Sources) -> Iterator[Cell]:
    for target, unit in QM9_TARGETS.items():
        cell = _qm9("schnet", target, 110_462, sources)
        if target not in ("U", "H", "G"):  # properties, which the run names
            cell = replace(cell, rows={target: cell.rows[target][:3]})
        yield replace(cell, table="qm9-targets", quantity=target, units=(unit, ""))


def _qm9(column: str, target: str, size: int, sources: Sources) -> Cell:
    path = str(sources.qm9 or Path())
    row = str(size) if target == "U0" else target
    return Cell(
        table="table1",
        column=column,
        rows={row: (path, "--part", "test", "--energy_key", target)},
        dataset="qm9",
        recipe=f"datasets/qm9/recipes/{target.lower()}.yaml",
        labels=target,
        split="random, seed 0",
        options=("--data.path", path, "--data.n_train", str(size)),
        missing="" if sources.qm9 else "needs QM9 (--qm9): pyg-schnet data qm9 --root DIR",
    )


def _table3(sources: Sources) -> Iterator[Cell]:
    folder = sources.iso17 or Path()
    systems = {
        "mean": ("benchmarks/baselines/mean.yaml", "mean"),
        "schnet-energy": ("datasets/iso17/recipes/standin_energy.yaml", ""),
        "schnet-both": ("datasets/iso17/recipes/standin.yaml", ""),
    }
    for column, (recipe, model) in systems.items():
        yield Cell(
            table="table3",
            column=column,
            rows={
                row: (str(folder / f"{fold}.safetensors"),)
                for row, fold in (("known", "test_within"), ("unknown", "test_other"))
            },
            dataset="iso17",
            recipe=recipe,
            labels="GFN2-xTB stand-in",
            split="official",
            options=("--data.path", str(folder / "reference.safetensors")),
            model=model,
            missing="" if sources.iso17 else "needs the stand-in (--iso17)",
        )
