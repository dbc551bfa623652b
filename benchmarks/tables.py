"""The tables that the benchmarks print; readable at 110 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.agreement import BOUNDS, Agreement
from benchmarks.floor import Work
from benchmarks.medians import best, best_threads, fastest, medians, ratio
from benchmarks.rounds import Result
from benchmarks.tasks import Task
from benchmarks.workers import Contender

WIDTH = 110

Results = dict[str, dict[str, Result]]  # by task and label


def console() -> Console:
    """Make a console that keeps its width in a pipe."""
    out = Console()
    return out if out.is_terminal and out.width >= WIDTH else Console(width=WIDTH)


def milliseconds(seconds: float | None) -> str:
    """Write a time with three digits."""
    return "" if seconds is None else f"{seconds * 1e3:#.3g}".rstrip(".")


def speed(
    tasks: Sequence[Task], results: Results, contenders: Sequence[Contender], threads: Sequence[int]
) -> Table:
    """Lay out the timings: a section for each task, a line for each contender."""
    columns = ["ms, median", *[f"{n} thread{'s' * (n > 1)}" for n in threads], "best", "times ours", "MB"]
    table = Table(title="SchNet, time of one step", title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right", no_wrap=False)
    for task in tasks:
        verdict = summary(task, results[task.name], contenders)
        table.add_section()
        table.add_row(f"[bold]{task.title}[/bold]", *[""] * (len(threads) + 1), verdict[0], verdict[1])
        ours = best_of(results[task.name], contenders, own=True)
        for contender in (c for c in contenders if c.label in results[task.name]):
            row = _row(results[task.name][contender.label], threads)
            theirs = None if contender.ours else best(results[task.name][contender.label].times)
            table.add_row(f"  {contender.label}", *row[:-1], times(ratio(theirs, ours)), row[-1])
    return table


def _row(result: Result, threads: Sequence[int]) -> list[str]:
    middle = medians(result.times)
    cells = [milliseconds(middle.get(n)) or ("failed" if n in result.errors else "") for n in threads]
    chosen = best_threads(result.times)
    cells.append("" if chosen is None else f"{milliseconds(middle[chosen])} ({chosen})")
    cells.append("" if result.megabytes is None else f"{result.megabytes:.1f}")
    return cells


def best_of(results: dict[str, Result], contenders: Iterable[Contender], own: bool) -> float | None:
    """Give the best time of our lines, or of the peers that the goals are about."""
    sides = {c.label: results[c.label].times for c in contenders if _counts(c, results, own)}
    winner = fastest(sides)
    return None if winner is None else best(sides[winner])


def _counts(contender: Contender, results: dict[str, Result], own: bool) -> bool:
    """Whether the goals are about a line that took part."""
    return contender.ours == own and contender.judged and contender.label in results


def summary(task: Task, results: dict[str, Result], contenders: Sequence[Contender]) -> tuple[str, str]:
    """Compare with the goals: the fastest peer with our fastest line, and the same of memory."""
    found = ratio(best_of(results, contenders, own=False), best_of(results, contenders, own=True))
    speed = "" if found is None else f"{times(found)} of {task.goal:g}×"
    if task.memory_goal is None:
        return speed, ""
    sides = {
        own: min(
            (m for c in contenders if _counts(c, results, own) and (m := results[c.label].megabytes)),
            default=None,
        )
        for own in (True, False)
    }
    fraction = ratio(sides[True], sides[False])
    return speed, "" if fraction is None else f"{fraction:.2f} of {task.memory_goal:.2f}"


def times(value: float | None) -> str:
    """Write a ratio."""
    return "" if value is None else f"{value:#.3g}×".replace(".×", "×")


def agreements(found: Sequence[Agreement]) -> Table:
    """Lay out the comparison of outputs."""
    table = Table(
        title="Outputs with equal weights, largest difference over largest value", title_justify="left"
    )
    for column in ("structures", "weights of", "line", "type", "energy", "forces", "gradient", "bound", ""):
        table.add_column(column)
    for one in found:
        bound = f"{BOUNDS[one.dtype]:.0e}"
        values = [f"{value:.0e}" for value in (one.energy, one.forces, one.gradient)]
        if one.error:
            values = [one.error, "", ""]
        table.add_row(
            one.data, one.peer, one.ours, one.dtype, *values, bound, "agrees" if one.holds else "DISAGREES"
        )
    return table


def floor(
    tasks: Sequence[Task],
    results: Results,
    contenders: Sequence[Contender],
    work: dict[str, Work],
    rates: dict[int, dict[str, float]],
) -> Table:
    """Lay out the distance to the floor."""
    shown = "; ".join(
        f"{n} thread{'s' * (n > 1)}: {r['gemm_small'] / 1e9:.0f} GFLOP/s at 672x64x64, "
        f"{r['gemm_large'] / 1e9:.0f} at 1024³, {r['copy'] / 1e9:.1f} GB/s"
        for n, r in rates.items()
    )
    table = Table(title=f"Distance to the floor ({shown})", title_justify="left")
    for column in ("task", "GFLOP", "MB", "floor, ms", "ours, ms", "distance"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task in tasks:
        ours = best_of(results[task.name], contenders, own=True)
        need = work[task.name]
        lowest = need.seconds(rates)
        cells = [f"{need.operations / 1e9:.3f}", f"{need.bytes / 1e6:.1f}", milliseconds(lowest)]
        table.add_row(task.title, *cells, milliseconds(ours), times(ratio(ours, lowest)))
    return table


def errors(results: Results) -> list[str]:
    """Tell what failed and why, once for equal reasons."""
    lines = {}
    for task, lines_of_task in results.items():
        for label, result in lines_of_task.items():
            for number, error in result.errors.items():
                where = "memory" if number == 0 else f"{number} threads"
                lines.setdefault((label, error), []).append(f"{task}, {where}")
    return [f"{label}: {error} ({'; '.join(where)})" for (label, error), where in lines.items()]
