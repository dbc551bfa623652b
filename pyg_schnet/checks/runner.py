"""The examination: all checks of a model, one after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

import torch
from ase import Atoms
from torch_geometric.data import Batch, Data, Dataset

from pyg_schnet.checks import bonds, conservation, derivatives, limits, precision, smoothness, symmetry
from pyg_schnet.checks.model_adapter import ModelAdapter
from pyg_schnet.checks.model_output import ModelError, NotFinite
from pyg_schnet.checks.result import FAIL, PASS, CheckResult, Report
from pyg_schnet.checks.samples import Samples
from pyg_schnet.datasets.structure_file import open_structures
from pyg_schnet.io.spelling import nearest
from pyg_schnet.simulation.calculator import evaluation_copy
from pyg_schnet.simulation.integrators import check_positive
from pyg_schnet.transforms.ase_atoms import from_ase

Check: TypeAlias = Callable[[ModelAdapter, Samples], Iterator[CheckResult]]
Structures: TypeAlias = str | os.PathLike | Atoms | Data | Dataset | Sequence[Atoms | Data]
FEW = 4  # structures
_FIRST = "evaluation"  # which is always made, for the others need energies


def check(
    model: Any,
    structures: Structures,
    only: Sequence[str] | str | None = None,
    *,
    number: int = FEW,
    duration: float = 1.0,
    temperature: float = 300.0,
    seed: int = 0,
    on_check: Callable[[str], None] | None = None,
) -> Report:
    """Examine a model: is it a potential-energy surface, and exact?

    What is exact but for rounding is computed in float64, without splines and compiled programs, which are
    compared with it; dynamics runs as the model is used. Two lines make a test of it::

        def test_my_model_obeys_physics():
            check(model, "molecules.xyz").assert_passed()

    Args:
        model: A :class:`~pyg_schnet.Potential`, an :class:`~pyg_schnet.Ensemble`, or the path of a
            checkpoint. Or anything that is called with ``(z, pos, batch)``, atomic numbers ``(atoms,)``,
            positions ``(atoms, 3)`` in Å and numbers of molecules ``(atoms,)``, and returns energies in eV,
            ``(molecules,)`` or ``(molecules, 1)``, or a pair or a dictionary of ``energy`` and ``forces``. It
            stays as it is.
        structures: What it is made for: a file in any format of ASE, or that
            :class:`~pyg_schnet.datasets.AtomsDataset` reads; structures of ASE or PyG, one or several.
        only: Which of :data:`CHECKS`, or "evaluation", which is always made; all by default.
        number: How many structures to take, evenly from all of them.
        duration: Of the dynamics, in ps.
        temperature: Of its start, in K.
        seed: Of random directions, orders and velocities.
        on_check: Told the name of each check before it is made.

    Returns:
        Numbers beside bounds; ``report.passed``, ``report.assert_passed()``, ``report["rotation, energy"]``.
        A check in which the model raises an error has failed, with the error for its note.

    Raises:
        TypeError: If ``model`` or ``structures`` is something else.
        ValueError: If there is no structure, no such check, or a setting is out of range; or if a structure
            is periodic and the model is called with ``(z, pos, batch)``.
    """
    check_positive("duration", duration, "ps")
    check_positive("temperature", temperature, "K", zero=True)
    checks = _checks(duration, temperature)
    only = [only] if isinstance(only, str) else only
    names = [_FIRST, *checks]
    if only is not None and not len(only):
        raise ValueError(f"`only` must name at least one check ({', '.join(names)}), got none")
    for name in only or ():
        if name not in names:
            raise ValueError(
                f"`only` must name checks ({', '.join(names)}), got {name!r}.{nearest(name, names)}"
            )
    if isinstance(model, str | os.PathLike):
        model = evaluation_copy(model)
    with torch.inference_mode(False):  # which would leave no forces
        subject = ModelAdapter(model)
        samples = Samples(_chosen(structures, number), seed)
        if samples.crystals and not subject.is_ours:
            raise ValueError(
                "`structures` must not be periodic for a model called with (z, pos, batch), which sees no "
                "cell; put it into a Potential, which hands `cell` and `pbc` to a forward that names them, "
                "or switch `pbc` off"
            )
        findings = list(_guarded(_FIRST, _probe, subject, samples))
        if findings[0].verdict == PASS:
            for name, own in checks.items():
                if only is None or name in only:
                    if on_check is not None:
                        on_check(name)
                    findings += _guarded(name, own, subject, samples)
    precision = str(subject.dtype).removeprefix("torch.")
    return Report(subject.name, precision, findings, subject.why_single)


def _probe(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Ask for the energies at all, each alone: what fails here would fail everywhere."""
    subject.probe(max(samples.structures, key=lambda data: len(data.z)))
    bad = 0
    for one in samples.structures:
        try:
            subject.exact([one])
        except NotFinite:
            bad += 1
    note = "energies and forces must be finite numbers"
    unit = f"of {len(samples.structures)}"
    yield CheckResult.measured(_FIRST, "not finite", bad, 0, unit, note)


def _guarded(name: str, own: Check, subject: ModelAdapter, samples: Samples) -> list[CheckResult]:
    """Take an error of the model for a finding; one of ours is no fault of the model, and is raised."""
    try:
        return list(own(subject, samples))
    except ModelError as error:
        return [CheckResult(name, "", FAIL, note=str(error))]


def _chosen(structures: Structures, number: int) -> list[Data]:
    if number < 1:
        raise ValueError(f"`number` must be at least 1, got {number}")
    if isinstance(structures, str | os.PathLike):
        structures = open_structures(os.fspath(structures))
    elif isinstance(structures, Batch):
        structures = cast(Sequence[Data], structures.to_data_list())
    elif isinstance(structures, Atoms | Data):
        structures = [structures]
    if not isinstance(structures, Sequence | Dataset):
        raise TypeError(
            f"`structures` must be a file, or structures of ASE or PyG, got {type(structures).__name__}"
        )
    if len(structures) == 0:
        raise ValueError("`structures` must hold at least one structure, got none")
    places = torch.linspace(0, len(structures) - 1, min(number, len(structures))).round().long().tolist()
    return [_as_data(structures[place]) for place in places]


def _as_data(structure: Any) -> Data:
    if isinstance(structure, Atoms):
        return from_ase(structure)
    if isinstance(structure, Data) and "z" in structure and structure.pos is not None:
        return structure.cpu()
    raise TypeError(
        f"`structures` must hold ase.Atoms, or Data with `z` and `pos`, got {type(structure).__name__}"
    )


def _checks(duration: float, temperature: float) -> dict[str, Check]:
    return {
        **symmetry.CHECKS,
        **derivatives.CHECKS,
        **smoothness.CHECKS,
        **precision.CHECKS,
        **conservation.checks(duration, temperature),
        **bonds.CHECKS,
        **limits.CHECKS,
    }


CHECKS = tuple(_checks(1.0, 300.0))
