"""Go or no-go: validate a training's log against the profile for its length (100, 500, 5 000 or 50 000 steps)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sb3_carla.diagnostics import checks
from sb3_carla.diagnostics.checks import FAIL, PASS, UNJUDGED, Check, CheckResult, Limits
from sb3_carla.diagnostics.event_logs import RunLog

__all__ = ["PROFILES", "Limits", "Profile", "Report", "validate"]

LONG_ENOUGH = 0.8
"""Share of a profile's steps that a log must reach, because dumps come at the ends of episodes."""


@dataclass(frozen=True)
class Profile:
    """
    The checks for a training of a certain length.

    :param steps: expected length of the training
    :param checks: each yields one result or several
    """

    steps: int
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Report:
    """
    Results of all checks of a profile.

    :param run: path of the log
    :param profile: name of the profile
    :param results: one line each
    :param notes: parts of the log that could not be read
    """

    run: str
    profile: str
    results: list[CheckResult]
    notes: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        """0 for go, 1 for no-go, 2 if nothing failed but a required tag is missing or the log is too short."""
        verdicts = {result.verdict for result in self.results}
        return 1 if FAIL in verdicts else 2 if UNJUDGED in verdicts else 0

    def to_dict(self) -> dict[str, Any]:
        """:return: all fields and the status, for JSON"""
        return {**asdict(self), "status": self.status}

    def __str__(self) -> str:
        rows = [("check", "observed", "limit", "verdict")]
        rows += [(result.check, result.observed, result.limit, result.verdict) for result in self.results]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        verdict = {0: "GO", 1: "NO-GO", 2: "CANNOT BE JUDGED"}[self.status]
        return "\n".join([f"{self.run}: profile {self.profile}", *lines, *(f"note: {n}" for n in self.notes), verdict])


PROFILES = {
    "smoke": Profile(100, checks.SMOKE),
    "gradients": Profile(500, checks.GRADIENTS),
    "5k": Profile(5_000, checks.FIVE_K),
    "50k": Profile(50_000, checks.FIFTY_K),
}


def validate(log: RunLog, profile: str, limits: Limits | None = None) -> Report:
    """
    Run the checks of a profile.

    :param log: result of :func:`sb3_carla.diagnostics.event_logs.read_run`
    :param profile: one of ``PROFILES``
    :param limits: None for the defaults
    :return: the results, and whether they are good enough
    :raises ValueError: if there is no such profile
    """
    if profile not in PROFILES:
        raise ValueError(f"profile: expected one of {', '.join(PROFILES)}, got {profile!r}")
    chosen, limits = PROFILES[profile], limits or Limits()
    enough = log.last_step >= LONG_ENOUGH * chosen.steps
    needed = f">= {LONG_ENOUGH * chosen.steps:.0f}"
    results = [CheckResult("steps in the log", str(log.last_step), needed, PASS if enough else UNJUDGED)]
    for check in chosen.checks:
        results += check(log, limits)
    return Report(str(log.path), profile, results, log.notes)
