"""The verdict at the top of the page: what the model is, its errors, and what to be careful about."""

from __future__ import annotations

from collections.abc import Iterator

from pyg_schnet.checks.result import LIMIT
from pyg_schnet.report.contents import Accuracy, Contents, DataSet
from pyg_schnet.report.quantities import count, join_words, number, percent, rms, with_unit

_FEW_PROPERTIES = 4  # whose errors are named one by one
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
    weights = sum(parameter.numel() for parameter in contents.potential.parameters())
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
    labels = join_words(_labels(contents, data))
    of = "" if data is None else f" of {_substance(data)}"
    text = f"{text[:-1]}. It was trained on {labels} of {count(trained, 'structure')}{of}"
    if contents.rows and "minutes" in contents.rows[-1]:
        minutes = contents.rows[-1]["minutes"]
        text += f", in {minutes:,.1f} minutes" if minutes >= 1 else f", in {60 * minutes:,.0f} s"
    return f"{text}."


def _labels(contents: Contents, data: DataSet | None) -> list[str]:
    names = ["energies"] if contents.potential.has_energy else []
    if data is not None:
        names += ["forces"] if data.summary.forces is not None else []
        names += ["stresses"] if data.summary.stress is not None else []
    return names + [target.name for target in contents.potential.properties]


def _substance(data: DataSet) -> str:
    summary = data.summary
    if summary.compositions == 1:
        return summary.frequent[0][0].translate(_SUBSCRIPTS)
    if len(summary.elements) == 1:
        return summary.elements[0]
    return f"{summary.compositions:,} compositions of {', '.join(summary.elements)}"


def _about_errors(contents: Contents) -> str:
    evaluation, errors = contents.accuracy.evaluation, []
    if evaluation.energy_mae is not None:
        energy, unit = contents.accuracy.energy_mae
        in_kcal = f" ({with_unit(energy, 'kcal/mol')})" if unit == "meV" else ""
        errors.append(f"{with_unit(energy, unit)}{in_kcal} in the energy")
    if evaluation.forces_mae is not None and evaluation.forces is not None:
        typical = float(rms(evaluation.forces[0]))
        share = f" ({percent(evaluation.forces_mae / typical)} of their root mean square)" if typical else ""
        errors.append(f"{with_unit(evaluation.forces_mae, 'meV/Å')} in force components{share}")
    if evaluation.stress_mae is not None:
        errors.append(f"{with_unit(evaluation.stress_mae, 'GPa')} in stress components")
    errors += _property_errors(contents.accuracy)
    return f"On {describe_structures(contents.accuracy)}, the mean absolute errors are {join_words(errors)}."


def _property_errors(accuracy: Accuracy) -> list[str]:
    """Return the errors of properties; of many of them, the range relative to the spread of the labels."""
    properties, spreads = accuracy.evaluation.properties, accuracy.spreads
    shares = {name: own.mae / spreads[name] for name, own in properties.items() if spreads.get(name)}
    if len(properties) > _FEW_PROPERTIES and shares:
        low, high = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
        return [
            f"{percent(shares[low])} ({low}) to {percent(shares[high])} ({high}) of the spread of the labels "
            f"in {len(properties)} properties"
        ]
    return [
        f"{number(own.mae)} {own.target.unit or ''}".rstrip()
        + f" in {name}"
        + (f" ({percent(shares[name])} of the spread of the labels)" if name in shares else "")
        for name, own in properties.items()
    ]


def _about_checks(contents: Contents) -> str:
    number_of_warnings = len(list(find_warnings(contents)))
    end = (
        "there are no warnings"
        if number_of_warnings == 0
        else f"there {'is' if number_of_warnings == 1 else 'are'} {count(number_of_warnings, 'warning')}, "
        "listed below"
    )
    if not contents.potential.has_energy:
        return f"It predicts no energies, so that there is nothing to check against physics; {end}."
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
    """Yield name, root mean square error and spread of energies, forces and properties."""
    accuracy, evaluation = contents.accuracy, contents.accuracy.evaluation
    if evaluation.energy_rmse is not None:
        yield "energies", evaluation.energy_rmse, accuracy.energy_spread(contents.potential)
    if evaluation.forces is not None and evaluation.forces_rmse is not None:
        yield "forces", evaluation.forces_rmse, float(rms(evaluation.forces[0]))
    for name, own in evaluation.properties.items():
        yield name, own.rmse, accuracy.spreads.get(name, 0.0)


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
