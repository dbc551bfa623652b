"""Runner of the checks of a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

import torch
from ase import Atoms
from torch_geometric.data import Batch, Data, Dataset

from pyg_schnet.checks import bonds, conservation, derivatives, limits, precision, smoothness, symmetry
from pyg_schnet.checks.model_adapter import ModelAdapter
from pyg_schnet.checks.model_output import ModelError, NotFiniteError
from pyg_schnet.checks.result import FAIL, PASS, CheckResult, Report
from pyg_schnet.checks.samples import Samples
from pyg_schnet.datasets.structure_file import open_structures
from pyg_schnet.io.spelling import nearest
from pyg_schnet.simulation.calculator import evaluation_copy
from pyg_schnet.simulation.integrators import check_positive
from pyg_schnet.transforms.ase_atoms import from_ase

Check: TypeAlias = Callable[[ModelAdapter, Samples], Iterator[CheckResult]]
Structures: TypeAlias = str | os.PathLike | Atoms | Data | Dataset | Sequence[Atoms | Data]
DEFAULT_STRUCTURES = 4
_FIRST = "evaluation"  # always runs, because the others need energies


def check(
    model: Any,
    structures: Structures,
    only: Sequence[str] | str | None = None,
    *,
    number: int = DEFAULT_STRUCTURES,
    duration: float = 1.0,
    temperature: float = 300.0,
    seed: int = 0,
    on_check: Callable[[str], None] | None = None,
) -> Report:
    """Check whether a model is a smooth, symmetric and conservative potential-energy surface.

    Properties that hold up to rounding are checked in float64, with exact filters and without compilation,
    which are compared with it; dynamics runs with the model as it is used. Two lines make a test of it::

        def test_my_model_obeys_physics():
            check(model, "molecules.xyz").assert_passed()

    Args:
        model: A :class:`~pyg_schnet.Potential`, an :class:`~pyg_schnet.Ensemble`, or the path of a
            checkpoint; or a callable that maps ``(z, pos, batch)`` (atomic numbers ``(atoms,)``, positions
            ``(atoms, 3)`` in Å and indices of molecules ``(atoms,)``) to energies in eV, ``(molecules,)`` or
            ``(molecules, 1)``, or to a pair or a dictionary of ``energy`` and ``forces``. It is not modified.
        structures: Structures that the model is made for: a file that ASE or
            :class:`~pyg_schnet.datasets.AtomsDataset` reads; or one or several structures of ASE or PyG.
        only: Names from :data:`CHECKS`, or "evaluation", which always runs; all by default.
        number: Number of structures to use, evenly spaced over all of them.
        duration: Duration of the dynamics, in ps.
        temperature: Temperature of its initial velocities, in K.
        seed: Seed of random directions, orders and velocities.
        on_check: Function that is called with the name of each check before it runs.

    Returns:
        A report with ``report.passed``, ``report.assert_passed()`` and ``report["rotation, energy"]``. A
        check in which the model raises has failed, with the error as its note.

    Raises:
        TypeError: If ``model`` or ``structures`` is of another kind.
        ValueError: If there is no structure, a check is unknown, or a setting is out of range; or if a
            structure is periodic and the model is called with ``(z, pos, batch)``.
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
    with torch.inference_mode(False):  # forces need gradients
        adapter = ModelAdapter(model)
        samples = Samples(_select(structures, number), seed)
        if samples.crystals and not adapter.is_potential:
            raise ValueError(
                "`structures` must not be periodic for a model called with (z, pos, batch), which has no "
                "cell; wrap it in a Potential, which passes `cell` and `pbc` to a forward with these "
                "arguments, or set `pbc` to False"
            )
        findings = list(_run(_FIRST, _probe, adapter, samples))
        if findings[0].verdict == PASS:
            for name, function in checks.items():
                if only is None or name in only:
                    if on_check is not None:
                        on_check(name)
                    findings += _run(name, function, adapter, samples)
    precision = str(adapter.dtype).removeprefix("torch.")
    return Report(adapter.name, precision, findings, adapter.why_single)


def _probe(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compute the energy of each structure; a failure here would repeat in all other checks."""
    adapter.probe(max(samples.structures, key=lambda data: len(data.z)))
    bad = 0
    for one in samples.structures:
        try:
            adapter.compute_exact([one])
        except NotFiniteError:
            bad += 1
    note = "energies and forces must be finite"
    unit = f"of {len(samples.structures)}"
    yield CheckResult.measured(_FIRST, "not finite", bad, 0, unit, note)


def _run(name: str, function: Check, adapter: ModelAdapter, samples: Samples) -> list[CheckResult]:
    """Run a check; return an error of the model as a failure, and raise any other error."""
    try:
        return list(function(adapter, samples))
    except ModelError as error:
        return [CheckResult(name, "", FAIL, note=str(error))]


def _select(structures: Structures, number: int) -> list[Data]:
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
