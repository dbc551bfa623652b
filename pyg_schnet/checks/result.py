"""Results of checks: measured numbers, their bounds, verdicts, and tolerances of rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

PASS, FAIL, LIMIT, SKIP = "pass", "fail", "limit", "skip"


@dataclass(frozen=True)
class CheckResult:
    """A measured number and whether it is within its bound.

    Attributes:
        check: Name of the check, such as "rotation".
        quantity: Quantity that was measured, such as "energy".
        verdict: "pass"; "fail"; "limit" if the model is by construction not made for it, which is not a
            failure; or "skip" if the check does not apply.
        value: Measured number; ``None`` if there is none.
        bound: Largest allowed value.
        unit: Unit of both.
        note: Reason for any verdict but "pass".
        at_least: Whether the bound is the smallest allowed value instead.
    """

    check: str
    quantity: str
    verdict: str
    value: float | None = None
    bound: float | None = None
    unit: str = ""
    note: str = ""
    at_least: bool = False

    @classmethod
    def measured(
        cls,
        check: str,
        quantity: str,
        value: float,
        bound: float,
        unit: str,
        note: str = "",
        at_least: bool = False,
    ) -> CheckResult:
        """Compare a number with its bound; NaN fails.

        Args:
            check: Name of the check.
            quantity: Quantity that was measured.
            value: Measured number, in ``unit``.
            bound: Largest allowed value, in ``unit``.
            unit: Unit of both.
            note: What a failure means and what to do; kept only for a failure.
            at_least: Whether the bound is the smallest allowed value instead.

        Returns:
            The result, with the verdict "pass" or "fail".
        """
        good = value >= bound if at_least else value <= bound
        verdict, note = (PASS, "") if good else (FAIL, note)
        return cls(check, quantity, verdict, float(value), float(bound), unit, note, at_least)

    @property
    def name(self) -> str:
        """Check and quantity, such as "rotation, energy"."""
        return f"{self.check}, {self.quantity}" if self.quantity else self.check

    def as_dict(self) -> dict[str, Any]:
        """Return values for JSON; a number that is not finite becomes ``None``."""
        values = asdict(self)
        finite = self.value is not None and math.isfinite(self.value)
        return values | {"value": self.value if finite else None}


@dataclass(frozen=True)
class Report:
    """All results for a model.

    Attributes:
        model: Name of the model.
        precision: Floating-point type of exact results.
        findings: Results in the order of the checks.
        why_single: Reason for float32; empty in float64.
    """

    model: str
    precision: str
    findings: Sequence[CheckResult]
    why_single: str = ""

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> list[CheckResult]:
        """Results of failed checks."""
        return [finding for finding in self.findings if finding.verdict == FAIL]

    def __getitem__(self, name: str) -> CheckResult:
        """Return a result by its name, as in ``report["rotation, energy"]``."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"{name!r}; there are {', '.join(repr(finding.name) for finding in self.findings)}")

    def assert_passed(self) -> None:
        """Raise if a check failed, for use in tests.

        Raises:
            AssertionError: With the failed checks, a line each.
        """
        if not self.passed:
            raise AssertionError(f"{self.model} fails:\n{self.text(self.failures)}")

    def text(self, findings: Sequence[CheckResult] | None = None) -> str:
        """Return results as text, a line each.

        Args:
            findings: The results; all by default.
        """
        return "\n".join(_line(finding) for finding in (self.findings if findings is None else findings))

    def __str__(self) -> str:
        return self.text()

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        counts = {v: sum(f.verdict == v for f in self.findings) for v in (PASS, FAIL, LIMIT, SKIP)}
        return {
            "model": self.model,
            "passed": self.passed,
            "precision": self.precision,
            "why_single": self.why_single,
            "counts": counts,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def _line(finding: CheckResult) -> str:
    numbers = ""
    if finding.value is not None:
        sign = "≥" if finding.at_least else "≤"
        numbers = f": {finding.value:.2g} {finding.unit}, must be {sign} {finding.bound:.2g}"
    note = f" ({finding.note})" if finding.note else ""
    return f"{finding.verdict:5}  {finding.name}{numbers}{note}"


@dataclass(frozen=True)
class Tolerance:
    """Bounds on rounding errors, and step sizes for finite differences.

    Attributes:
        energy: Absolute tolerance of energies, in eV; added to ``relative``.
        forces: Absolute tolerance of forces, in eV/Å; added to ``relative``.
        relative: Tolerance relative to the largest energy or force.
        slope: Tolerance of a difference quotient, relative to the largest force or 1 eV/Å.
        step: Step of a difference quotient, in Å.
        width: Width of the interval to which a jump is narrowed down, in Å.
    """

    energy: float
    forces: float
    relative: float
    slope: float
    step: float
    width: float


# Measured on trained models: 1e-12 eV and eV/Å, difference quotients 5e-7. In float32 1e-6 of the energies.
TOLERANCES = {
    torch.float64: Tolerance(1e-8, 1e-8, 1e-11, 1e-6, 1e-4, 1e-9),
    torch.float32: Tolerance(1e-4, 1e-3, 1e-5, 2e-2, 1e-2, 1e-3),
}
