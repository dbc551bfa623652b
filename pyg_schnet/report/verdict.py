"""The verdict at the top of the page: what the model is, its errors, and what to be careful about."""

from __future__ import annotations

from collections.abc import Iterator

from pyg_schnet.checks.result import LIMIT
from pyg_schnet.report.contents import Accuracy, Contents, DataSet
from pyg_schnet.report.quantities import count, percent, rms, with_unit

_UNFINISHED = 0.1  # of the largest learning rate, at the end of a schedule that ends at zero
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def verdict(contents: Contents) -> list[str]:
    """Return the verdict, two to four sentences."""
    return [_about_model(contents), _about_errors(contents), _about_checks(contents)]


def find_warnings(contents: Contents) -> Iterator[str]:
    """Yield what a reader should be careful about, a sentence each, the most serious first."""
    checks = contents.checks
    if checks is not None:
        for finding in checks.failures:
            note = finding.note or "see the table of checks"
            yield f"The check “{finding.name}” failed: {note}{'' if note.endswith(('.', '?')) else '.'}"
    for data in contents.data:
        for sentence in data.summary.warnings:
            yield f"Data, {data.name}: {sentence}"
    yield from _warn_of_accuracy(contents)
    yield from _warn_of_training(contents)
    simulation = contents.simulation
    if simulation is not None and simulation.same_potential is False:
        yield f"Dynamics, {simulation.name}: another potential than that of this report drove it."
    if checks is not None and checks.why_single:
        yield f"The checks ran in single precision with wide bounds: {checks.why_single}."


def describe_structures(accuracy: Accuracy) -> str:
    """Return which structures the errors were measured on, as "400 structures that …"."""
    structures = count(accuracy.evaluation.n, "structure")
    if accuracy.evaluation.n < accuracy.of:
        structures += f" (evenly chosen from {accuracy.of:,})"
    return structures + {
        "test": " that the model was not trained on",
        "val": " of the validation set, which selected the weights",
        "train": " of the training set",
    }.get(accuracy.part, f" of {accuracy.name}")


def model_words(contents: Contents) -> str:
    """Return the network in words."""
    config = contents.model.config
    weights = sum(parameter.numel() for parameter in contents.model.parameters())
    reach = (
        "all atoms of a structure interact"
        if config.cutoff is None
        else f"atoms interact within {config.cutoff:g} Å"
    )
    return (
        f"SchNet with {count(config.num_interactions, 'interaction')} of {config.hidden_channels} features "
        f"({weights:,} weights); {reach}"
    )


def _about_model(contents: Contents) -> str:
    trained = contents.provenance.get("n_train")
    text = f"The model is a {model_words(contents)}."
    if not isinstance(trained, int):
        return text
    data = contents.data[0] if contents.data else None
    labels = "energies" if data is None else _labels(data)
    of = "" if data is None else f" of {_substance(data)}"
    text = f"{text[:-1]}. It was trained on {labels} of {count(trained, 'structure')}{of}"
    if contents.rows and "minutes" in contents.rows[-1]:
        minutes = contents.rows[-1]["minutes"]
        text += f", in {minutes:,.1f} minutes" if minutes >= 1 else f", in {60 * minutes:,.0f} s"
    return f"{text}."


def _labels(data: DataSet) -> str:
    names = ["energies"]
    names += ["forces"] if data.summary.forces is not None else []
    names += ["stresses"] if data.summary.stress is not None else []
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _substance(data: DataSet) -> str:
    summary = data.summary
    if summary.compositions == 1:
        return summary.frequent[0][0].translate(_SUBSCRIPTS)
    if len(summary.elements) == 1:
        return summary.elements[0]
    return f"{summary.compositions:,} compositions of {', '.join(summary.elements)}"


def _about_errors(contents: Contents) -> str:
    evaluation = contents.accuracy.evaluation
    energy, unit = contents.accuracy.energy_mae
    in_kcal = f" ({with_unit(energy, 'kcal/mol')})" if unit == "meV" else ""
    errors = [f"{with_unit(energy, unit)}{in_kcal} in the energy"]
    if evaluation.forces_mae is not None and evaluation.forces is not None:
        typical = float(rms(evaluation.forces[0]))
        share = f" ({percent(evaluation.forces_mae / typical)} of their root mean square)" if typical else ""
        errors.append(f"{with_unit(evaluation.forces_mae, 'meV/Å')} in force components{share}")
    if evaluation.stress_mae is not None:
        errors.append(f"{with_unit(evaluation.stress_mae, 'GPa')} in stress components")
    listed = " and ".join([", ".join(errors[:-1]), errors[-1]] if errors[1:] else errors)
    return f"On {describe_structures(contents.accuracy)}, the mean absolute errors are {listed}."


def _about_checks(contents: Contents) -> str:
    number_of_warnings = len(list(find_warnings(contents)))
    end = (
        "there are no warnings"
        if number_of_warnings == 0
        else f"there {'is' if number_of_warnings == 1 else 'are'} {count(number_of_warnings, 'warning')}, "
        "listed below"
    )
    if contents.checks is None:
        return f"It was not checked against physics; {end}."
    counts = contents.checks.as_dict()["counts"]
    made = counts["pass"] + counts["fail"]
    if counts["fail"]:
        return f"It failed {counts['fail']} of {count(made, 'check')} of physics; {end}."
    limits = dict.fromkeys(finding.check for finding in contents.checks.findings if finding.verdict == LIMIT)
    excluded = f"; by construction it is not made for {', '.join(limits)}" if limits else ""
    return f"It passed all {count(made, 'check')} of physics{excluded}; {end}."


def _warn_of_accuracy(contents: Contents) -> Iterator[str]:
    accuracy = contents.accuracy
    if accuracy.part == "val":
        yield (
            "The errors are those of the validation set, which selected the weights, and somewhat too small: "
            "train with --data.n_train to leave test structures, or pass a file of other structures."
        )
    if accuracy.part == "train":
        yield "The errors are those of the training set: they do not state how well the model predicts."
    elif accuracy.trained_on:
        are = "is" if accuracy.trained_on == 1 else "are"
        yield (
            f"{count(accuracy.trained_on, 'structure')} of {accuracy.evaluation.n:,} that the errors were "
            f"measured on {are} also in the training set, which makes the errors too small."
        )
    for name, rmse, spread in _errors_and_spreads(contents):
        if rmse >= spread > 0:
            yield (
                f"The root mean square error of {name} is {percent(rmse / spread)} of the spread of the "
                "labels: a model that always predicts the mean is as good."
            )
    if accuracy.outside:
        first = next(iter(accuracy.outside))
        yield (
            f"{count(len(accuracy.outside), 'structure')} of {accuracy.evaluation.n:,} that the errors were "
            f"measured on {'is' if len(accuracy.outside) == 1 else 'are'} outside of the training domain; in "
            f"structure {first}, {accuracy.outside[first]}."
        )


def _errors_and_spreads(contents: Contents) -> Iterator[tuple[str, float, float]]:
    """Yield name, root mean square error and spread of energies and forces, in eV and Å."""
    accuracy, evaluation = contents.accuracy, contents.accuracy.evaluation
    if evaluation.energy_rmse is not None:
        yield "energies", evaluation.energy_rmse, accuracy.energy_spread(contents.potential)
    if evaluation.forces is not None and evaluation.forces_rmse is not None:
        yield "forces", evaluation.forces_rmse, float(rms(evaluation.forces[0]))


def _warn_of_training(contents: Contents) -> Iterator[str]:
    rows, trainer = contents.rows, contents.settings.get("trainer", {})
    if trainer.get("schedule") != "cosine" or not rows or "lr" not in rows[0]:
        return
    share = rows[-1]["lr"] / max(row["lr"] for row in rows)
    if share > _UNFINISHED:
        yield (
            f"The training ended at step {rows[-1]['step']:,} with {percent(share)} of its learning rate, "
            "before the end of its schedule: `pyg-schnet train --resume` continues it."
        )
