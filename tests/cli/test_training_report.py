"""A log is plain text, a terminal has a bar."""

import io

import pytest
from rich.console import Console

from pyg_schnet.cli.training_report import ConsoleReport

ROW = {"step": 1500, "loss": 0.0123, "val_energy_mae_eV": 0.0433641042418009}
FORCES = {"val_forces_mae_eV_per_A": 0.0867282084836018}


@pytest.fixture
def output():
    return io.StringIO()


def use(report):
    report.line("Training on 12 structures.")
    report.start(0, 0.0)
    report.step(1, 0.001, 0.5)
    report.validated(ROW | FORCES, improved=True)
    report.stop()


def test_a_log_has_one_line_a_validation_and_no_control_characters(output):
    use(ConsoleReport(Console(file=output, width=40)))
    text = output.getvalue()
    assert text.splitlines() == [
        "Training on 12 structures.",
        "step   1,500  loss 1.23e-02  validation: energy 43.4 meV (1.000 kcal/mol)  "
        "forces 86.7 meV/Å (2.000 kcal/mol/Å)  best",
    ]
    assert all(character.isprintable() or character == "\n" for character in text)


def test_energies_alone_have_no_errors_of_forces(output):
    ConsoleReport(Console(file=output)).validated(ROW, improved=False)
    assert output.getvalue() == (
        "step   1,500  loss 1.23e-02  validation: energy 43.4 meV (1.000 kcal/mol)\n"
    )


def test_text_is_shown_as_it_is(output):
    ConsoleReport(Console(file=output)).line("/data/[bold]old[/bold]/:smile:/x[1].npz")
    assert output.getvalue() == "/data/[bold]old[/bold]/:smile:/x[1].npz\n"


def test_a_terminal_has_a_bar_that_counts(output):
    report = ConsoleReport(Console(file=output, force_terminal=True, width=80))
    report.start(500, 0.25)
    report.step(1500, 0.75, 0.0123)
    report.stop()
    assert "step 1,500" in output.getvalue()
    assert "1.23e-02" in output.getvalue()


def test_a_report_can_be_stopped_before_it_starts_and_twice(output):
    report = ConsoleReport(Console(file=output, force_terminal=True))
    report.stop()
    report.start(0, 0.0)
    report.stop()
    report.stop()
