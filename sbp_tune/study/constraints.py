"""Constraints of a search: what a trial must meet to be on the front, in absolute numbers or against the baseline.

A constraint is a column, <= or >=, and a bound: a number, or a multiple of the baseline's value plus or minus a
number. It is told to Optuna as a number that must not be above 0. What is relative is known when the baseline has
been trained to its end.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from sbp_tune.section import near

COLUMNS = (
    *("val_accuracy", "f1", "roc_auc", "precision", "recall", "loss", "val_loss"),
    *("kwh", "kwh_gpu", "kwh_cpu", "kwh_ram", "co2_kg", "mean_power_w", "train_time_s", "epoch_time_s"),
    *("tflop", "gpu_util", "peak_gpu_gb", "peak_rss_gb"),
)
"""Columns of a trial's last epoch that can be constrained."""

_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?"
_FORM = re.compile(
    rf"""\s*(?P<column>\w+)\s*(?P<relation><=|>=)\s*
    (?: (?P<number>[+-]?\s*(?:{_NUMBER}))
      | (?:(?P<before>{_NUMBER})\s*\*\s*)? baseline (?:\s*\*\s*(?P<after>{_NUMBER}))?
        (?:\s*(?P<sign>[+-])\s*(?P<offset>{_NUMBER}))?
    )\s*""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Constraint:
    """column <= factor x baseline + offset, or >=."""

    text: str
    column: str
    at_most: bool
    factor: float
    offset: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """ValueError that says what is allowed, where a text is no constraint."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(
                "needs COLUMN <= or >= a bound: a number, or [NUMBER *] baseline [+ or - NUMBER], "
                "such as val_accuracy >= baseline - 0.01"
            )
        part = match.groupdict()
        if part["column"] not in COLUMNS:
            raise ValueError(
                f"{part['column']} is no column that can be constrained; allowed: {', '.join(COLUMNS)}"
                f"{near(part['column'], list(COLUMNS))}"
            )
        if part["number"] is not None:
            factor, offset = 0.0, float(part["number"].replace(" ", ""))
        else:
            factor = float(part["before"] or 1) * float(part["after"] or 1)
            offset = float((part["sign"] or "") + (part["offset"] or "0"))
        if not (math.isfinite(factor) and math.isfinite(offset)):
            raise ValueError("needs a bound that is a finite number")
        return cls(" ".join(text.split()), part["column"], part["relation"] == "<=", factor, offset)

    @property
    def is_relative(self) -> bool:
        """Whether it compares with the baseline."""
        return self.factor != 0

    def excess(self, result: dict[str, Any], baseline: dict[str, Any]) -> float:
        """By what part of the bound a trial's result is beyond it; 0 or less: the constraint is met.

        A part, so that the excesses of several constraints, which samplers add up, compare; of a bound of 0 the
        excess itself. ValueError, with the reason, where a column that it needs was not measured.
        """
        bound = self.offset + (self.factor * self._value(baseline, "the baseline") if self.is_relative else 0.0)
        beyond = (self._value(result, "the trial") - bound) / (abs(bound) or 1.0)
        return beyond if self.at_most else -beyond

    def _value(self, row: dict[str, Any], whose: str) -> float:
        value = row.get(self.column)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{self.column} of {whose} is {value}, and {self.text} needs it")
        return float(value)
