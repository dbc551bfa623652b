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


def test_a_narrow_terminal_has_a_table_that_fits(output):
    report = ConsoleReport(Console(file=output, force_terminal=True, width=80))
    stress = {"val_stress_mae_eV_per_A3": 0.001}
    report.validated(ROW | FORCES | stress, improved=True)
    report.validated(ROW | FORCES | stress | {"step": 3000, "val_energy_mae_eV": 12.3456}, improved=False)
    _, head, first, second = output.getvalue().splitlines()
    assert head == "     step       loss  energy (meV)  forces (meV/Å)  stress (GPa)"
    assert first.split() == ["1,500", "1.23e-02", "43.4", "86.7", "0.160", "best"]
    assert second.split() == ["3,000", "1.23e-02", "12,345.6", "86.7", "0.160"]
    assert len(second) == len(head) <= 74
    assert len(first) <= 80


def test_a_wide_terminal_has_errors_in_two_units(output):
    ConsoleReport(Console(file=output, force_terminal=True, width=160)).validated(ROW, improved=False)
    assert "energy 43.4 meV (1.000 kcal/mol)" in output.getvalue()


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
