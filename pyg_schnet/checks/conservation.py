"""Energy conservation in dynamics without a thermostat."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms, units
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_schnet.checks.model_adapter import ModelAdapter
from pyg_schnet.checks.result import FAIL, SKIP, CheckResult
from pyg_schnet.checks.samples import Samples
from pyg_schnet.simulation.batched_md import run_md_batched
from pyg_schnet.simulation.limits import MAX_DISPLACEMENT
from pyg_schnet.simulation.statistics import fit_drift
from pyg_schnet.simulation.velocities import draw_momenta
from pyg_schnet.transforms.ase_atoms import to_ase

DRIFT = 0.1  # meV/atom/ps, beyond statistical error; in 100 ps 40 % of the thermal energy at 300 K
_CORRELATION_TIME = 0.02  # ps; of the total energy in velocity Verlet: two vibrations of hydrogen


def check_drift(
    adapter: ModelAdapter,
    samples: Samples,
    duration: float = 1.0,
    timestep: float = 0.5,
    temperature: float = 300.0,
) -> Iterator[CheckResult]:
    """Run velocity Verlet with the model as it is used, and measure the drift of the total energy.

    Args:
        adapter: Model.
        samples: Structures to start from.
        duration: Simulated time, in ps.
        timestep: Time step, in fs.
        temperature: Temperature of the initial velocities, in K.
    """
    structures = [one for one in samples.structures if len(one.z) > 1]
    if not structures:
        yield CheckResult("drift", "", SKIP, note="single atoms have no dynamics")
        return
    run = _batched if adapter.is_potential else _verlet
    drift, fluctuation, stopped = run(adapter, structures, duration, timestep, temperature, samples.seed)
    if stopped:
        yield CheckResult("drift", "energy", FAIL, math.inf, DRIFT, "meV/atom/ps", stopped)
        return
    how = f"in {duration:g} ps from {temperature:g} K with steps of {timestep:g} fs"
    note = f"{how}; are the forces smooth, and the gradient of the energy?"
    bound = DRIFT + _uncertainty(fluctuation, duration)
    yield CheckResult.measured("drift", "energy", drift, bound, "meV/atom/ps", note)


def _uncertainty(fluctuation: float, duration: float) -> float:
    """Return twice the standard error of a slope fitted to fluctuations with a correlation time of 20 fs."""
    values = max(1.0, duration / _CORRELATION_TIME)
    return 2 * fluctuation * math.sqrt(12 / values) / duration


def _batched(
    adapter: ModelAdapter,
    structures: list[Data],
    duration: float,
    timestep: float,
    temperature: float,
    seed: int,
) -> tuple[float, float, str]:
    """Run the batched dynamics of this package, as users do."""
    found = run_md_batched(
        adapter.model,
        [cast(Atoms, to_ase(one)) for one in structures],
        temperature=temperature,
        timestep=timestep,
        duration=duration,
        seed=seed,
        closest=None,
        max_force=None,
    )
    stopped = next((reason for reason in found.stopped if reason is not None), "")
    worst = [max(abs(x or 0.0) for x in values or [0.0]) for values in (found.drift, found.fluctuation)]
    return worst[0], worst[1], stopped


def _verlet(
    adapter: ModelAdapter,
    structures: list[Data],
    duration: float,
    timestep: float,
    temperature: float,
    seed: int,
) -> tuple[float, float, str]:
    """Run velocity Verlet, for models that are called with (z, pos, batch)."""
    rng = np.random.default_rng(seed)
    systems = [cast(Atoms, to_ase(one)) for one in structures]
    for atoms in systems:
        draw_momenta(atoms, temperature, rng, rotation=False)
    sizes = [len(atoms) for atoms in systems]
    mass = torch.tensor(np.concatenate([atoms.get_masses() for atoms in systems]))[:, None]
    momenta = torch.tensor(np.concatenate([atoms.get_momenta() for atoms in systems]))
    batch = cast(Data, Batch.from_data_list(cast(Any, structures)))
    dt, totals = timestep * units.fs, []
    result = adapter.compute_as_used(batch)
    for step in range(round(1000 * duration / timestep) + 1):
        if step:
            momenta = momenta + dt / 2 * result.forces
            moved = dt * momenta / mass
            batch.pos = cast(Tensor, batch.pos) + moved
            if not float(moved.abs().max()) < MAX_DISPLACEMENT:  # also NaN
                return math.inf, 0.0, _explosion(float(moved.abs().max()), step)
            result = adapter.compute_as_used(batch)
            momenta = momenta + dt / 2 * result.forces
        kinetic = (momenta.square() / mass).sum(1).split(sizes)
        totals.append(result.energy + torch.stack([one.sum() / 2 for one in kinetic]))
    energies = torch.stack(totals, dim=1).numpy()
    fits = [fit_drift(energy, timestep, n) for energy, n in zip(energies, sizes, strict=True)]
    return max(abs(drift) for drift, _ in fits), max(about for _, about in fits), ""


def _explosion(moved: float, step: int) -> str:
    return f"an atom moved {moved:.1f} Å in step {step}; are energies in eV and lengths in Å?"


def checks(
    duration: float, temperature: float
) -> dict[str, Callable[[ModelAdapter, Samples], Iterator[CheckResult]]]:
    """Return the check with its settings."""
    return {"drift": partial(check_drift, duration=duration, temperature=temperature)}
