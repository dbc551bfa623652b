"""What checks find: numbers beside bounds, and verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

PASS, FAIL, LIMIT, SKIP = "pass", "fail", "limit", "skip"


@dataclass(frozen=True)
class CheckResult:
    """One number, and whether it is within its bound.

    Attributes:
        check: What was looked at, as "rotation".
        quantity: Of what the number is, as "energy".
        verdict: "pass"; "fail"; "limit" where the model is by construction not made for it, which is no
            failure; or "skip" where it could not be looked at.
        value: The number; ``None`` where there is none.
        bound: How large it may be.
        unit: Of both.
        note: Why, where it is not "pass".
        at_least: Whether the bound is how small it may be.
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
        """Compare a number with its bound; what is not a number fails.

        The arguments are the attributes; ``note`` says what it means if it fails, and what to do.
        """
        good = value >= bound if at_least else value <= bound
        verdict, note = (PASS, "") if good else (FAIL, note)
        return cls(check, quantity, verdict, float(value), float(bound), unit, note, at_least)

    @property
    def name(self) -> str:
        """Check and quantity."""
        return f"{self.check}, {self.quantity}" if self.quantity else self.check

    def as_dict(self) -> dict[str, Any]:
        """Give what JSON can hold: a number that is none becomes ``None``."""
        values = asdict(self)
        finite = self.value is not None and math.isfinite(self.value)
        return values | {"value": self.value if finite else None}


@dataclass(frozen=True)
class Report:
    """All findings about a model.

    Attributes:
        model: Its name.
        precision: The floating-point type of what is exact but for rounding.
        findings: In the order of the checks.
        why_single: Why that is not float64; empty if it is.
    """

    model: str
    precision: str
    findings: Sequence[CheckResult]
    why_single: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def failures(self) -> list[CheckResult]:
        """What failed."""
        return [finding for finding in self.findings if finding.verdict == FAIL]

    def __getitem__(self, name: str) -> CheckResult:
        """Give a finding by its name, as ``report["rotation, energy"]``."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"{name!r}; there are {', '.join(repr(finding.name) for finding in self.findings)}")

    def assert_passed(self) -> None:
        """Fail as a test fails, with what failed.

        Raises:
            AssertionError: If something failed.
        """
        if not self.passed:
            raise AssertionError(f"{self.model} fails:\n{self.text(self.failures)}")

    def text(self, findings: Sequence[CheckResult] | None = None) -> str:
        """Write findings, a line each; all by default."""
        return "\n".join(_line(finding) for finding in (self.findings if findings is None else findings))

    def __str__(self) -> str:
        return self.text()

    def as_dict(self) -> dict[str, Any]:
        """Give what JSON can hold."""
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
