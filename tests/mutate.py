"""Break lines of the package on purpose, one at a time, and report which tests notice.

    python tests/mutate.py [--only PATTERN] [--jobs N] [--root TREE]

A mutant is a short text of the package and what replaces it: a sign, a factor, a cutoff, a dropped term, a
swapped axis, a unit, a missing check. The text must occur exactly once in the package, in whichever module;
where it does not, the script stops before it runs anything, so that a rewritten line gets its anchor back.
Only the tests that ``AREAS`` names for a mutant run, with the default markers of pyproject.toml, up to the
first failure. Mutants are made in a temporary copy of the tree.

The exit status is the number of survivors. About twenty minutes of one core.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TIMEOUT = 180  # s; a mutant that ends no more is noticed
# Imported once, before the copies of this process that run the tests.
HEAVY = ("torch", "torch_geometric.nn", "torch_geometric.loader", "ase.io", "ase.md", "ase.optimize", "h5py")
HEAVY += ("scipy.special", "lightning_fabric", "torchmetrics", "rich.progress", "jsonargparse")
HEAVY += ("rdkit.Chem", "safetensors.torch", "vesin", "pooch")

# The tests that ought to notice a mutant, cheap ones first.
AREAS = {
    "radial": ("nn/test_radial.py", "kernels/test_activation.py", "nn/test_filters.py", "nn/test_schnet.py"),
    "activation": ("kernels/test_activation.py", "nn/test_radial.py", "physics/test_forces.py"),
    "filters": ("nn/test_filters.py", "nn/test_schnet.py", "reference/test_pyg_parity.py"),
    "cfconv": ("nn/test_cfconv.py", "nn/test_cfconv_in_pyg.py", "nn/test_schnet.py"),
    "readout": ("nn/test_readout.py", "physics/test_limits.py", "reference/test_pyg_parity.py"),
    "schnet": ("nn/test_schnet.py", "reference/test_pyg_parity.py", "physics/test_locality.py"),
    "table": ("nn/test_filter_table.py", "kernels/test_convolution.py", "physics/test_forces.py"),
    "convolution": ("kernels/test_convolution.py", "physics/test_forces.py", "nn/test_filter_table.py"),
    "pairs": ("kernels/test_pairs.py", "physics/test_forces.py", "physics/test_locality.py"),
    "neighbors": ("graph/test_neighbors.py", "graph/test_neighbor_backends.py"),
    "periodic": ("graph/test_neighbors.py", "graph/test_sites.py", "graph/test_neighbor_backends.py"),
    "graph": ("graph/test_pair_graph.py", "nn/test_schnet.py", "physics/test_stress.py"),
    "input": ("nn/test_schnet.py", "potentials/test_potential.py", "graph/test_neighbors.py"),
    "stress": ("physics/test_stress.py", "training/test_loss.py", "simulation/test_calculator.py"),
    "potential": (
        *("potentials/test_potential.py", "physics/test_forces.py", "physics/test_limits.py"),
        *("training/test_loss.py", "training/test_state.py"),
    ),
    "other models": ("training/test_other_models.py", "potentials/test_potential.py"),
    "ensemble": ("potentials/test_ensemble.py", "potentials/test_calibration.py"),
    "calibration": ("potentials/test_calibration.py",),
    "metrics": ("potentials/test_metrics.py", "training/test_stress_training.py"),
    "domain": ("potentials/test_training_domain.py", "simulation/test_limits.py"),
    "checkpoint": ("potentials/test_checkpoint.py",),
    "units": ("io/test_units.py", "datasets/report/test_unit_evidence.py"),
    "loss": ("training/test_loss.py", "training/test_stress_training.py"),
    "schedule": ("training/test_schedule.py", "loader/test_sampler.py"),
    "state": ("training/test_state.py", "training/test_loop.py"),
    "soap": ("training/test_soap.py",),
    "loop": ("training/test_loop.py", "cli/test_training_report.py"),
    "references": ("datasets/test_references.py", "training/test_isolated_atoms.py"),
    "splits": ("datasets/test_splits.py", "training/test_data.py"),
    "npz": ("io/formats/test_npz.py", "io/formats/test_frames.py", "io/formats/test_registry.py"),
    "ase": ("io/formats/test_ase.py", "io/formats/test_frames.py", "training/test_isolated_atoms.py"),
    "hdf5": ("io/formats/test_hdf5.py", "io/formats/test_modelforge.py"),
    "pymatgen": ("io/formats/test_pymatgen.py", "reference/test_silicon.py"),
    "deepmd": ("io/formats/test_deepmd.py",),
}


@dataclass(frozen=True)
class Mutant:
    """A text of the package, what replaces it, and the area of tests that should notice."""

    name: str
    area: str
    old: str
    new: str


MUTANTS = [
    # nn: the equations of the paper
    Mutant("ssp-without-shift", "radial", "(x, threshold=80.0) - math.log(2.0)", "(x, threshold=80.0)"),
    Mutant("softplus-linear-at-20", "radial", "softplus(x, threshold=80.0)", "softplus(x, threshold=20.0)"),
    Mutant("gamma-doubled", "radial", "else 0.5 / spacing**2", "else 1.0 / spacing**2"),
    Mutant(
        "spacing-off-by-one", "radial", "last_center / (num_gaussians - 1)", "last_center / num_gaussians"
    ),
    Mutant("gaussians-trimmed-early", "radial", "-math.log(1e-17)", "-math.log(1e-4)"),
    Mutant("one-gaussian-allowed", "radial", "if num_gaussians < 2:", "if num_gaussians < 1:"),
    Mutant("cosine-ends-late", "radial", "(math.pi / self.cutoff)", "(math.pi / (self.cutoff + 0.01))"),
    Mutant("polynomial-with-a-slope", "radial", "15 * u + 6 * u**2", "15 * u + 5 * u**2"),
    Mutant(
        "final-activation-inverted",
        "filters",
        "self.activation(filters) if self.final_activation else filters",
        "filters if self.final_activation else self.activation(filters)",
    ),
    Mutant("last-gaussians-trimmed", "filters", "t()[: expansion.size(1)]", "t()[-expansion.size(1) :]"),
    Mutant("interaction-without-residual", "schnet", "x = x + interaction(", "x = interaction("),
    Mutant(
        "interaction-without-activation",
        "schnet",
        "self.atomwise3(self.activation(self.atomwise2(v)))",
        "self.atomwise3(self.atomwise2(v))",
    ),
    Mutant(
        "bias-before-the-convolution",
        "schnet",
        "nn.Linear(hidden_channels, num_filters, bias=False)",
        "nn.Linear(hidden_channels, num_filters)",
    ),
    Mutant("filters-added", "cfconv", "return x_j * filters", "return x_j + filters"),
    Mutant("edge-weight-dropped", "cfconv", "filters * edge_weight[:, None]", "filters"),
    Mutant("rows-of-edges-unchecked", "cfconv", "if pair is None and rows != edges:", "if False:"),
    Mutant("channels-unchecked", "cfconv", "if x.size(-1) != channels:", "if False:"),
    Mutant(
        "mean-is-a-sum",
        "readout",
        "super().combine(out, z, pos, batch, molecules) / atoms",
        "super().combine(out, z, pos, batch, molecules)",
    ),
    Mutant("std-dropped", "readout", "out * self.std + self.mean", "out + self.mean"),
    Mutant(
        "atomref-subtracted",
        "readout",
        "contribution + self.atomref.index_select(0, z)",
        "contribution - self.atomref.index_select(0, z)",
    ),
    Mutant(
        "dipole-without-center",
        "readout",
        "out[:, None] * (pos - center.index_select(0, batch))",
        "out[:, None] * pos",
    ),
    Mutant(
        "center-of-geometry",
        "readout",
        "self.masses.index_select(0, z)[:, None]",
        "torch.ones_like(pos.double()[:, :1])",
    ),
    Mutant(
        "slope-of-no-dipole-is-nan",
        "readout",
        "torch.where(nonzero, square, 1).sqrt()",
        "square.sqrt()",
    ),
    Mutant(
        "given-edges-beyond-cutoff-count",
        "schnet",
        "(distance < self.config.cutoff).to(",
        "(distance < self.config.cutoff + 1).to(",
    ),
    Mutant(
        "too-few-knots", "table", "return 0.025 * math.sqrt(10 / gamma)", "return 0.1 * math.sqrt(10 / gamma)"
    ),
    Mutant("spline-of-lower-order", "table", "- series[-2] / 120", "+ series[-2] / 120"),
    Mutant(
        "plain-spline-wrong", "table", "66 + t2 * (-60 + t2 * (30 - 10 * t)),", "66 + t2 * (-60 + t2 * 30),"
    ),
    Mutant("extrapolates", "table", "torch.where(inside, u - k, math.nan)", "torch.where(inside, u - k, 0)"),
    Mutant("error-of-spline-unchecked", "table", "error > bound * slope", "error > 1e6 * bound * slope"),
    Mutant(
        "plain-convolution-one-way",
        "table",
        "return out.index_add(0, second, filters * y.index_select(0, first))",
        "return out",
    ),
    # kernels
    Mutant("c-ssp-second-derivative", "activation", "slope * (1 - slope);", "slope * (1 + slope);"),
    Mutant("c-exponential-inexact", "activation", "DOUBLE ? 13 : 7", "DOUBLE ? 9 : 7"),
    Mutant("c-pairs-between-molecules", "pairs", "(!batch || batch[j] == batch[i])", "(!batch || 1)"),
    Mutant("c-pairs-coincide", "pairs", "if (!(d > 0)) return COINCIDENT;", ""),
    Mutant(
        "c-force-on-one-atom",
        "pairs",
        "to[j] -= f * x, to[j + 1] -= f * y,",
        "to[j] += f * x, to[j + 1] += f * y,",
    ),
    Mutant("c-hessian-of-pairs", "pairs", "along * inverse * inverse * u[k]", "along * inverse * u[k]"),
    Mutant("c-convolution-one-way", "convolution", "vj[c] += w * yi[c];", "vj[c] += w * yj[c];"),
    Mutant("c-spline-curvature", "convolution", "a->inverse * a->inverse / 6", "a->inverse * a->inverse / 3"),
    Mutant("c-second-derivative-term", "convolution", "* q + s * filter(b2, table, c, n) * q1;", "* q;"),
    Mutant("c-rows-unchecked", "convolution", "if (wrong) return INVALID_SPLINE;", "if (wrong) return 0;"),
    Mutant("c-extrapolates", "convolution", "u >= 0 && u < end", "u > -1 && u < end"),
    # graph
    Mutant("cutoff-inclusive", "neighbors", "near = square < r * r", "near = square <= r * r"),
    Mutant("cell-lists-too-short", "neighbors", "r * (1 + 16 * torch.finfo(pos.dtype).eps)", "r * 0.999"),
    Mutant(
        "bound-of-neighbors-off-by-one",
        "neighbors",
        "if most > max_num_neighbors:",
        "if most > max_num_neighbors + 1:",
    ),
    Mutant(
        "flow-ignored",
        "neighbors",
        'return edge_index if flow == "source_to_target" else edge_index.flip(0)',
        "return edge_index",
    ),
    Mutant(
        "too-few-shells", "periodic", "(reach / heights + spread + 1e-3).floor()", "(reach / heights).floor()"
    ),
    Mutant("unwrapped-shift", "periodic", "shift += (wrap.index_select", "shift -= (wrap.index_select"),
    Mutant("heights-of-columns", "periodic", "1 / inverse.norm(dim=0)", "1 / inverse.norm(dim=1)"),
    Mutant(
        "own-images-dropped",
        "periodic",
        "(source == target) & (image == len(images) // 2)",
        "(source == target)",
    ),
    Mutant(
        "flat-cell-allowed",
        "periodic",
        "<= 1e-6 * lattice.norm(dim=1).prod()",
        "< 0 * lattice.norm(dim=1).prod()",
    ),
    Mutant(
        "image-on-the-other-side",
        "periodic",
        "index_select(0, self.atom) + offset",
        "index_select(0, self.atom) - offset",
    ),
    Mutant(
        "lattice-transposed",
        "periodic",
        "self.shift.to(pos.dtype) @ lattice[0]",
        "self.shift.to(pos.dtype) @ lattice[0].T",
    ),
    Mutant(
        "cell-not-strained",
        "stress",
        "self._cell + self._cell @ symmetric",
        "self._cell + 0 * (self._cell @ symmetric)",
    ),
    Mutant("volume-with-a-sign", "stress", "volume = lattice.det().abs()", "volume = lattice.det()"),
    Mutant("stress-of-a-molecule", "stress", "periodic & (volume > 0)", "(volume > 0)"),
    Mutant(
        "virial-of-all-atoms",
        "stress",
        "stress * (volume / atoms)[:, None, None]",
        "stress * volume[:, None, None]",
    ),
    Mutant(
        "forces-of-images-dropped",
        "graph",
        "zeros.index_add(0, sites.atom, site_forces)",
        "site_forces[: len(zeros)]",
    ),
    Mutant("forces-in-another-order", "graph", '["forces"][self.order.argsort()]', '["forces"][self.order]'),
    Mutant(
        "stress-with-the-wrong-sign",
        "stress",
        "(-(virial + virial.mT) / 2, volume)",
        "((virial + virial.mT) / 2, volume)",
    ),
    Mutant("edges-between-molecules", "input", "if bool((source != target).any()):", "if False:"),
    Mutant(
        "element-zero-allowed",
        "input",
        "if low < 1 or high > MAX_ATOMIC_NUMBER:",
        "if low < 0 or high > MAX_ATOMIC_NUMBER:",
    ),
    Mutant(
        "elements-unchecked",
        "input",
        "known = allowed.index_select(0, z)",
        "known = torch.ones_like(z, dtype=torch.bool)",
    ),
    Mutant("batch-unsorted", "input", "(batch.diff() < 0).any()", "(batch.diff() < -1).any()"),
    # potentials
    Mutant(
        "forces-of-other-models-with-the-wrong-sign",
        "other models",
        '["forces"] = -gradients.pop(0)',
        '["forces"] = gradients.pop(0)',
    ),
    Mutant(
        "references-subtracted",
        "potential",
        "self.scale * relative + references",
        "self.scale * relative - references",
    ),
    Mutant(
        "references-scaled",
        "potential",
        "self.scale * relative + references",
        "self.scale * (relative + references)",
    ),
    Mutant(
        "forces-not-trainable",
        "potential",
        "graph.site_pos, ones, create_graph=self.training",
        "graph.site_pos, ones, create_graph=False",
    ),
    Mutant(
        "forces-of-other-models-not-trainable",
        "other models",
        "torch.ones_like(energy), create_graph=self.training",
        "torch.ones_like(energy), create_graph=False",
    ),
    Mutant(
        "forces-with-the-wrong-sign",
        "potential",
        "forces_and_stress(-gradient,",
        "forces_and_stress(gradient,",
    ),
    Mutant("all-elements-allowed", "potential", "allowed[:] = False", "allowed[:] = True"),
    Mutant(
        "deviation-of-the-population",
        "ensemble",
        "(square / (len(results) - 1)).sqrt()",
        "(square / len(results)).sqrt()",
    ),
    Mutant(
        "energy-deviation-uncalibrated",
        "ensemble",
        'self.factors["energy"] * members["energy"].std(0)',
        'members["energy"].std(0)',
    ),
    Mutant(
        "other-elements-in-an-ensemble",
        "ensemble",
        "if potential.elements != potentials[0].elements:",
        "if False:",
    ),
    Mutant("factor-squared", "calibration", "math.exp(0.25 * (low + high))", "math.exp(0.5 * (low + high))"),
    Mutant(
        "one-sided-share",
        "calibration",
        "float(2 * stdtr(self.degrees, deviations) - 1)",
        "float(stdtr(self.degrees, deviations))",
    ),
    Mutant("degrees-of-forces", "calibration", "forces, 3 * degrees)", "forces, degrees)"),
    Mutant("kcal-upside-down", "metrics", '_kcal": value / kcal_per_mol', '_kcal": value * kcal_per_mol'),
    Mutant("gigapascal-upside-down", "metrics", '_GPa": value / GPa', '_GPa": value * GPa'),
    Mutant("mode-not-restored", "metrics", "part.training = training", "part.training = False"),
    Mutant("limit-is-the-shortest", "domain", "= closest * value", "= value"),
    Mutant("widest-of-several-domains", "domain", "max(domain.shortest[pair]", "min(domain.shortest[pair]"),
    Mutant(
        "unseen-pairs-may-meet", "domain", "if self.shortest and closest > 0 else 0.0", "if False else 0.0"
    ),
    Mutant(
        "checksum-unchecked",
        "checkpoint",
        "if stored is not None and stored != checksum(",
        "if False and stored != checksum(",
    ),
    Mutant("newer-formats-read", "checkpoint", "if form > FORMAT:", "if form > FORMAT + 9:"),
    Mutant("nan-weights-loaded", "checkpoint", "_check_finite(path, potential.state_dict())", "pass"),
    # units
    Mutant("another-calorie", "units", "kcal_per_mol = 4.184 *", "kcal_per_mol = 4.1868 *"),
    Mutant("bohr-of-1998", "units", "Bohr = 0.529177210903", "Bohr = 0.529177208300"),
    Mutant("gigapascal-tenfold", "units", "GPa = 1e-21 /", "GPa = 1e-20 /"),
    Mutant("force-times-length", "units", '("force", in_eV / factor)', '("force", in_eV * factor)'),
    Mutant("conversion-upside-down", "units", "return factor / divisor", "return divisor / factor"),
    Mutant(
        "stress-by-area",
        "units",
        "self.energy_in_eV / self.length_in_angstrom**3",
        "self.energy_in_eV / self.length_in_angstrom**2",
    ),
    Mutant("dimensions-unchecked", "units", "if dimension != other:", "if False:"),
    # training
    Mutant(
        "energy-weight-dropped", "loss", "loss = energy_weight * (energy.square()", "loss = (energy.square()"
    ),
    Mutant("loss-of-all-atoms", "loss", "len(atoms)) / atoms", "len(atoms))"),
    Mutant("stress-weight-dropped", "loss", "stress_weight * error.mean()", "error.mean()"),
    Mutant(
        "forces-not-scaled",
        "loss",
        '(out["forces"] - batch.forces) / scale',
        '(out["forces"] - batch.forces)',
    ),
    Mutant("warmup-from-zero", "schedule", "(step + 1) / config.warmup_steps", "step / config.warmup_steps"),
    Mutant("decay-at-each-step", "schedule", "(step // config.decay_steps)", "(step / config.decay_steps)"),
    Mutant(
        "cosine-rises",
        "schedule",
        "0.5 * (1 + math.cos(math.pi *",
        "0.5 * (1 - math.cos(math.pi *",
    ),
    Mutant("a-batch-is-left-out", "schedule", "self._epoch(epoch)[step:]", "self._epoch(epoch)[step + 1 :]"),
    Mutant(
        "time-counts-only-at-the-end",
        "schedule",
        "done = max(done, minutes / config.max_minutes)",
        "done = min(done, minutes / config.max_minutes)",
    ),
    Mutant("no-average-of-weights", "state", "if self._has_average:  #", "if False:  #"),
    Mutant(
        "optimizer-not-restored",
        "state",
        'self._restore_optimizer(_with_prefix("optimizer.", tensors))',
        "pass",
    ),
    Mutant(
        "nan-checkpoint-resumed",
        "state",
        "if not all(bool(values.isfinite().all()) for values in self.flat):",
        "if False:",
    ),
    Mutant(
        "soap-basis-transposed", "soap", "basis.mT @ matrices if side == 0", "basis @ matrices if side == 0"
    ),
    Mutant("soap-without-bias-correction", "soap", "(mean / root).div_(1 - beta1**step)", "(mean / root)"),
    Mutant(
        "parts-of-a-batch-unweighted",
        "loop",
        "own = own * (len(part) / batches.mean_size)",
        "own = own * 1.0",
    ),
    Mutant("best-model-is-the-last", "loop", "improved = loss < counters.best_loss", "improved = True"),
    Mutant(
        "compositions-unweighted",
        "references",
        "weight = compositions.frames.sqrt()",
        "weight = torch.ones_like(compositions.frames)",
    ),
    Mutant(
        "residual-by-structure",
        "references",
        "weight = compositions.frames * atoms",
        "weight = compositions.frames",
    ),
    Mutant(
        "foreign-compositions-pass", "references", "beyond.abs().amax(1) > 1e-6", "beyond.abs().amax(1) > 1e6"
    ),
    Mutant("copies-kept", "splits", "np.flatnonzero(~known)", "np.flatnonzero(known | True)"),
    Mutant(
        "split-one-too-far", "splits", "(part < 0) | (part >= structures)", "(part < 0) | (part > structures)"
    ),
    Mutant("a-tenth-rounded-down", "splits", "min(1000, -(-n // 10))", "min(1000, n // 10)"),
    # readers
    Mutant("npz-virial-sign", "npz", "stress = -energy / length**3", "stress = energy / length**3"),
    Mutant("virial-unit", "npz", "stress = -energy / length**3", "stress = -energy"),
    Mutant("gradient-sign-of-arrays", "hdf5", "        forces = -forces\n", "        forces = +forces\n"),
    Mutant("npz-virial-without-volume", "npz", "return stress / volume[:, None, None]", "return stress"),
    Mutant(
        "damage-unnoticed",
        "npz",
        ".view(np.uint8).data, crc) != member.CRC:",
        ".view(np.uint8).data, crc) is None:",
    ),
    Mutant("bomb-unpacked", "npz", "max(_LARGE, _INFLATION * member.compress_size)", "2**60"),
    Mutant(
        "two-arrays-of-one-name",
        "npz",
        "if times > 1), None)\n    if twice is not None:",
        "if times > 1), None)\n    if False:",
    ),
    Mutant("broken-atomic-numbers", "npz", "valid & (values == np.trunc(values))", "valid"),
    Mutant("nan-labels-read", "npz", "if value is None or _is_sum_finite(value):", "if True:"),
    Mutant(
        "flat-lattice-read",
        "npz",
        "np.linalg.matrix_rank(spanned) < pbc.sum(axis=1)",
        "np.linalg.matrix_rank(spanned) < 0",
    ),
    Mutant("atoms-at-one-point-read", "npz", "            if same.any():", "            if False:"),
    Mutant("gradient-sign-of-records", "ase", "        forces = -forces\n", "        forces = +forces\n"),
    Mutant("virial-sign-of-records", "ase", "stress = -energy / length**3", "stress = energy / length**3"),
    Mutant("virial-of-records-without-volume", "ase", "return stress / volume\n", "return stress\n"),
    Mutant("voigt-order", "ase", "(0, 5, 4, 5, 1, 3, 4, 3, 2)", "(0, 3, 4, 3, 1, 5, 4, 5, 2)"),
    Mutant("crystals-are-isolated-atoms", "ase", "_ISOLATED = 8.0", "_ISOLATED = 2.0"),
    Mutant(
        "spice-in-angstrom",
        "hdf5",
        '"formation_energy": "dft_total_gradient"},\n    Units("Hartree", "Bohr"),',
        '"formation_energy": "dft_total_gradient"},\n    Units("Hartree"),',
    ),
    Mutant("gaps-counted-not", "hdf5", "self.skipped += int(gaps.sum())", "self.skipped += 0"),
    Mutant("units-of-others-unchecked", "hdf5", "            if own != unit:", "            if False:"),
    Mutant("kbar-sign", "pymatgen", "(-_KBAR * float(value)", "(_KBAR * float(value)"),
    Mutant("vasp-order", "pymatgen", "xx, yy, zz, xy, yz, xz = (", "xx, yy, zz, yz, xz, xy = ("),
    Mutant("half-atoms-read", "pymatgen", 'species[0].get("occu", 1) != 1', 'species[0].get("occu", 1) > 1'),
    Mutant(
        "types-of-no-element", "deepmd", "or types.max() >= len(elements)", "or types.max() > len(elements)"
    ),
    Mutant("virial-without-a-cell", "deepmd", 'labels_of.pop("virial", None)', "pass"),
]


def place_of(root: Path, mutant: Mutant) -> tuple[Path | None, str]:
    """Find the module that holds the text of a mutant; or say why it does not serve as an anchor."""
    files = [path for path in sorted((root / "pyg_schnet").rglob("*")) if path.suffix in (".py", ".c", ".h")]
    hits = {path: count for path in files if (count := path.read_text().count(mutant.old))}
    if sum(hits.values()) == 1:
        return next(iter(hits)), ""
    where = ", ".join(f"{path.relative_to(root)} ({count})" for path, count in hits.items()) or "nowhere"
    return None, f"{mutant.name}: {mutant.old!r} must occur once, found {where}"


def tests_of(root: Path, area: str) -> list[str]:
    """Return the files of an area's tests; all must exist."""
    missing = [name for name in AREAS[area] if not (root / "tests" / name).is_file()]
    if missing:
        raise FileNotFoundError(f"tests of {area}: no such files: {', '.join(missing)}")
    return [f"tests/{name}" for name in AREAS[area]]


def copy_tree(root: Path, to: Path) -> None:
    """Copy what the tests need, and compile it."""
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "dist", "runs"
    )
    shutil.copytree(root, to, ignore=ignored, symlinks=True)
    compileall.compile_dir(to / "pyg_schnet", quiet=2)


def run_tests(tree: Path, tests: list[str], log: Path) -> tuple[int | None, float]:
    """Run tests in a fork; return the exit status, ``None`` after the time limit, and CPU seconds."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        os.environ["PYTHONPATH"] = str(tree)  # of processes that the tests start
        os.environ["PYG_SCHNET_CACHE"] = str(tree.parent / "cache")
        status: int = 99
        try:
            status = int(
                pytest.main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])
            )
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    began = time.monotonic()
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        if time.monotonic() - began > TIMEOUT:
            os.killpg(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            return None, usage.ru_utime + usage.ru_stime
        time.sleep(0.05)


def first_failure(log: Path) -> str:
    """Return the test that failed, from pytest's short summary."""
    lines = [
        line for line in log.read_text(errors="replace").splitlines() if line.startswith(("FAILED", "ERROR"))
    ]
    return lines[0].split(" - ")[0] if lines else ""


def mutate(root: Path, mutants: list[Mutant], folder: Path) -> Iterator[tuple[Mutant, str, float, str]]:
    """Yield what became of each mutant, its CPU seconds, and the test that noticed it."""
    tree, log = folder / "tree", folder / "log"
    copy_tree(root, tree)
    (folder / "cache").mkdir(mode=0o700)
    for mutant in mutants:
        path, _ = place_of(tree, mutant)
        assert path is not None
        before = path.read_text()
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()  # its age and size might be those of the mutant
        path.write_text(before.replace(mutant.old, mutant.new))
        sys.dont_write_bytecode = True
        status, seconds = run_tests(tree, tests_of(tree, mutant.area), log)
        path.write_text(before)
        fate = {0: "SURVIVED", 1: "killed", None: "killed (time)"}.get(status, f"killed (exit {status})")
        yield mutant, fate, seconds, first_failure(log)


def check(root: Path, areas: set[str], folder: Path) -> None:
    """Run the tests on the tree as it is: a test that fails anyway notices nothing."""
    tree, log = folder / "tree", folder / "log"
    copy_tree(root, tree)
    (folder / "cache").mkdir(mode=0o700)
    tests = list(dict.fromkeys(name for area in sorted(areas) for name in tests_of(tree, area)))
    global TIMEOUT
    TIMEOUT, limit = 1200, TIMEOUT
    status, seconds = run_tests(tree, tests, log)
    TIMEOUT = limit
    print(f"unchanged: exit {status}, {seconds:.0f} s CPU {first_failure(log)}", flush=True)
    if status != 0:
        sys.exit(f"the tests of the unchanged tree must pass; {log.read_text()[-2000:]}")


def main() -> None:
    """Run the mutants and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run mutants whose name or area contains this")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parent.parent, help="another tree"
    )
    parser.add_argument("--anchors", action="store_true", help="only check that each text occurs once")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name or options.only in mutant.area]
    wrong = [reason for mutant in chosen if (reason := place_of(options.root, mutant)[1])]
    if wrong:
        sys.exit("\n".join(wrong))
    for area in {mutant.area for mutant in chosen}:
        tests_of(options.root, area)
    if options.anchors:
        print(f"{len(chosen)} mutants have their place")
        return
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "check").mkdir()
        check(options.root, {mutant.area for mutant in chosen}, folder / "check")
        readers = []
        for job in range(options.jobs):
            reader, writer = os.pipe()
            if os.fork() == 0:
                os.close(reader)
                own = folder / str(job)
                own.mkdir()
                with os.fdopen(writer, "w") as to:
                    for mutant, fate, seconds, test in mutate(options.root, chosen[job :: options.jobs], own):
                        print(f"{fate:14} {mutant.name:34} {seconds:6.1f} s  {test}", flush=True)
                        print(mutant.name, fate, seconds, sep="\t", file=to, flush=True)
                os._exit(0)
            os.close(writer)
            readers.append(reader)
        found = [line.split("\t") for reader in readers for line in os.fdopen(reader).read().splitlines()]
        for _ in readers:
            os.wait()
    survivors = [name for name, fate, _ in found if fate == "SURVIVED"]
    total = sum(float(seconds) for _, _, seconds in found)
    print(f"{len(found)} mutants, {total:.0f} s CPU; {len(survivors)} survived: {', '.join(survivors)}")
    sys.exit(len(survivors) + len(chosen) - len(found))


if __name__ == "__main__":
    main()
