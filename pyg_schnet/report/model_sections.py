"""Sections about the model: errors, structures, filters, checks and dynamics."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from ase.data import chemical_symbols
from torch import Tensor

from pyg_schnet.checks.descriptions import DESCRIPTIONS
from pyg_schnet.plots import plot_dynamics, plot_errors, plot_filter_profiles, plot_parity
from pyg_schnet.plots.errors import QUANTILES, error_quantiles, shown_unit, worst_structures
from pyg_schnet.potentials.metrics import Evaluation
from pyg_schnet.report.blocks import Block, Facts, Notes, Section, Structures, Table
from pyg_schnet.report.contents import Contents, Simulation
from pyg_schnet.report.figures import embed
from pyg_schnet.report.molecule_view import structure_views
from pyg_schnet.report.quantities import UNITS, join_words, number, percent, rms, two_digits
from pyg_schnet.report.verdict import describe_structures

_MARKS = {"pass": "passed", "fail": "failed", "limit": "limit", "skip": "skipped"}


def errors_section(contents: Contents) -> Section:
    """Return errors as tables and figures."""
    accuracy, evaluation = contents.accuracy, contents.accuracy.evaluation
    several = accuracy.dataset.is_mixture()
    atomref = contents.potential.atomref if several else None
    relative = " relative to atomic references" if several else ""
    blocks: list[Block] = [
        _error_table(
            contents,
            "MAE: mean absolute error; RMSE: root mean square error, both on these structures. Spread: that "
            f"of the labels, which is {_spread_words(evaluation, relative)}; a model that always predicts "
            "the mean has 100 %.",
        ),
        embed(
            "parity",
            plot_parity(evaluation, labels=contents.labels, atomref=atomref),
            "Top: predictions over labels; perfect ones are on the line. Bottom: errors, predictions minus "
            "labels; triangles at the edge are beyond it.",
        ),
        embed(
            "errors",
            plot_errors(evaluation),
            "Histograms: distribution of the errors. Curves: percentage of errors below a size; circles: "
            "quantiles of 50, 90, 95 and 99 %.",
        ),
        _quantile_table(contents),
        _worst_table(contents),
    ]
    shows = f"Predictions compared with the labels of {describe_structures(accuracy)}."
    return Section("errors", "Errors", shows, blocks)


def _spread_words(evaluation: Evaluation, relative: str) -> str:
    """Return what the spread of the labels is; ``relative`` is what energies are relative to."""
    words = []
    if evaluation.energy_mae is not None:
        words.append(f"the standard deviation of energies{relative}")
        if evaluation.forces is not None:
            words.append("the root mean square of force and stress components")
    if evaluation.properties:
        words.append("the standard deviation of properties relative to references of the elements")
    return join_words(words)


def _error_table(contents: Contents, caption: str) -> Table:
    """Return errors by quantity; those of molecules in two units."""
    header = ["quantity", "MAE", "RMSE", "largest", "unit", "RMSE / spread", "MAE", "RMSE", "unit"]
    rows = list(_error_rows(contents))
    has_other_unit = not contents.accuracy.evaluation.periodic and any(row[-1] for row in rows)
    shown = len(header) if has_other_unit else 6
    return Table(header[:shown], [row[:shown] for row in rows], (1, 2, 3, 5, 6, 7), caption)


def _error_rows(contents: Contents) -> Iterator[list[str]]:
    accuracy, evaluation, potential = contents.accuracy, contents.accuracy.evaluation, contents.potential
    if evaluation.energy_mae is not None:
        spread = accuracy.energy_spread(potential)
        yield _error_row("energy of a structure", evaluation.energy, "meV", "kcal/mol", spread)
        if evaluation.periodic and evaluation.sizes is not None:
            spread = accuracy.energy_spread(potential, per_atom=True)
            yield _error_row("energy per atom", evaluation.energy / evaluation.sizes, "meV/atom", "", spread)
    if evaluation.forces is not None:
        yield _error_row("force component", evaluation.forces, "meV/Å", "kcal/mol/Å")
        elements = evaluation.z.unique().tolist()
        for z in elements if len(elements) > 1 else ():
            own = evaluation.forces[:, evaluation.z == z]
            yield _error_row(f"  on {chemical_symbols[z]}", own, "meV/Å", "kcal/mol/Å")
    if evaluation.stress is not None:
        yield _error_row("stress component", evaluation.stress, "GPa", "")
    for name, own in evaluation.properties.items():
        unit, other = own.target.shown_unit, "kcal/mol" if own.target.unit == "eV" else ""
        yield _error_row(name, own.values, unit, other, accuracy.spreads.get(name, 0.0))


def _error_row(name: str, pair: Tensor, unit: str, other: str, spread: float | None = None) -> list[str]:
    """Return the cells for labels and predictions; the spread is by default the labels' root mean square."""
    errors = pair[1] - pair[0]
    mae, rmse, largest = (float(x) for x in (errors.abs().mean(), rms(errors), errors.abs().max()))
    spread = float(rms(pair[0])) if spread is None else spread
    cells = [number(size / UNITS.get(unit, 1.0)) for size in (mae, rmse, largest)]
    others = [number(size / UNITS[other]) for size in (mae, rmse)] if other else ["", ""]
    return [name, *cells, unit, percent(rmse / spread) if spread > 0 else "", *others, other]


def _quantile_table(contents: Contents) -> Table:
    evaluation = contents.accuracy.evaluation
    shares = [f"{100 * share:g} %" for share in QUANTILES]
    rows = []
    for name, values in error_quantiles(evaluation).items():
        unit, factor = shown_unit(name, evaluation)
        rows.append([name, *(number(factor * value) for value in values.values()), unit])
    folded = "Quantiles of the absolute errors"
    return Table(("below which are", *shares, "unit"), rows, range(1, len(shares) + 1), folded=folded)


def _worst_table(contents: Contents) -> Table:
    evaluation, numbers = contents.accuracy.evaluation, contents.accuracy.numbers
    rows = []
    for name, values in worst_structures(evaluation).items():
        unit, factor = shown_unit(name, evaluation)
        quantity = "force on an atom" if name == "forces" else name
        for rank, (place, error) in enumerate(values, start=1):
            rows.append([quantity, str(rank), str(numbers[place]), number(factor * error), unit])
    header = ("quantity", "rank", "structure", "error", "unit")
    return Table(
        header, rows, (1, 2, 3), "Structures are counted from 0.", "Structures with the largest errors"
    )


def structures_section(contents: Contents) -> Section:
    """Return structures that can be turned."""
    views = structure_views(contents)
    has_forces = contents.accuracy.evaluation.forces is not None
    if has_forces:
        shows = "Where in a structure the forces are wrong: each atom has the color of its force error."
        caption = (
            "Color: length of the difference of predicted force and label, in meV/Å; the scale ends at the "
            "largest error of the structure. Sticks connect atoms closer than 1.25 times the sum of their "
            "covalent radii."
        )
    else:
        shows = (
            "The labels have no forces: each atom has the color of its contribution to the predicted energy."
        )
        caption = (
            "Color: energy of the atom relative to the mean of its element, in meV; only the sum over atoms "
            "has a physical meaning."
        )
    missing = (
        ""
        if views
        else (
            "The model is not a sum over atoms, or all structures are too large to be shown here; "
            "`pyg-schnet predict RUN IN OUT` writes forces for other programs."
        )
    )
    return Section("structures", "Structures", shows, [Structures(views, caption)] if views else [], missing)


def filters_section(contents: Contents) -> Section:
    """Return the filters that vary most."""
    caption = (
        "Rows: interactions. Left: values of the four filters that vary most over the distance of two atoms "
        "in Å; bars: how often distances occur in the data. Right: the same filters around an atom; gray: "
        "distances that do not occur. Filters have no unit."
    )
    distances = contents.accuracy.distances
    figure = embed("filters", plot_filter_profiles(contents.model, distances=distances), caption)
    shows = (
        "What the network learned about distances: filters weight what an atom receives from a neighbor, as "
        "in figure 3 of the paper (Schütt et al. 2017); they should be smooth where there are data."
    )
    return Section("filters", "Filters", shows, [figure])


def checks_section(contents: Contents) -> Section:
    """Return the table of checks."""
    title = "Checks of physics"
    shows = (
        "Properties that the true energy surface has, each measured as a number and compared with a bound; "
        "most bounds are rounding errors."
    )
    report = contents.checks
    if report is None:
        missing = "The checks were left out: `pyg-schnet report RUN` without `--skip_checks` makes them."
        return Section("checks", title, shows, missing=missing)
    rows, last = [], ""
    for finding in report.findings:
        found = bound = ""
        if finding.value is not None and finding.bound is not None:
            found = two_digits(finding.value)
            bound = f"{'≥' if finding.at_least else '≤'} {two_digits(finding.bound)}"
        name, meaning = (
            (finding.check, DESCRIPTIONS.get(finding.check, "")) if finding.check != last else ("", "")
        )
        rows.append([name, meaning, finding.quantity, found, bound, finding.unit, _MARKS[finding.verdict]])
        last = finding.check
    header = ("check", "what is true of physics", "quantity", "found", "bound", "unit", "result")
    caption = f"Computed in {report.precision} without splines; dynamics with the model as it is used."
    reasons = dict.fromkeys(
        f"{finding.check}, {_MARKS[finding.verdict]}: {finding.note}"
        for finding in report.findings
        if finding.note
    )
    blocks: list[Block] = [Table(header, rows, (3, 4), caption, spanning=2)]
    if reasons:
        blocks.append(Notes(list(reasons), "" if report.passed else "bad"))
    return Section("checks", title, shows, blocks)


def dynamics_section(contents: Contents) -> Section:
    """Return energy and temperature of a run of dynamics."""
    title = "Molecular dynamics"
    shows = "Energy and temperature of a simulation; without a thermostat, the total energy must be constant."
    simulation = contents.simulation
    if simulation is None:
        missing = (
            "No simulation was passed: `pyg-schnet md RUN START.xyz path.extxyz` makes one, and "
            "`pyg-schnet report RUN --md path.csv` adds it."
        )
        return Section("dynamics", title, shows, missing=missing)
    rows = simulation.rows
    caption = "Energies relative to the first frame in eV, and the temperature in K, over time in ps."
    figure = embed("dynamics", plot_dynamics(rows), caption)
    return Section("dynamics", title, shows, [Facts(_dynamics_facts(simulation)), figure])


def _dynamics_facts(simulation: Simulation) -> dict[str, str]:
    rows, run = simulation.rows, simulation.run
    temperature = torch.tensor([row["temperature_K"] for row in rows], dtype=torch.float64)
    facts = {"log": simulation.name, "length": f"{number(rows[-1]['time_ps'] - rows[0]['time_ps'])} ps"}
    facts["temperature"] = f"{temperature.mean():.0f} ± {temperature.std():.0f} K (standard deviation)"
    if run is None:
        facts["settings"] = "unknown: the restart file beside the log is gone"
        return facts
    settings = run.settings
    names = {
        "nve": "none: constant energy",
        "langevin": "Langevin",
        "baoab": "Langevin (BAOAB)",
        "bussi": "stochastic velocity rescaling (Bussi)",
        "nose-hoover": "Nosé–Hoover chain",
    }
    facts["atoms"] = f"{run.atoms:,}"
    facts["time step"] = f"{settings.timestep:g} fs"
    bath = "" if settings.conserves_energy else f", {settings.temperature:g} K"
    facts["thermostat"] = names.get(settings.thermostat, settings.thermostat) + bath
    if settings.pressure is not None:
        facts["barostat"] = f"{settings.pressure:g} GPa, {settings.barostat} cell"
    if settings.has_conserved_quantity:
        drift = run.statistics.drift(settings.timestep, run.atoms)
        fluctuation = run.statistics.fluctuation(run.atoms)
        if drift is not None and fluctuation is not None:
            facts["drift of the conserved energy"] = f"{number(drift)} meV/atom/ps"
            facts["fluctuation about it"] = f"{number(fluctuation)} meV/atom (standard deviation)"
    if simulation.same_potential is not None:
        facts["potential"] = "that of this report" if simulation.same_potential else "another one"
    return facts
