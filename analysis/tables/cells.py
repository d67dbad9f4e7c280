"""Numbers as the cells of a table: mean and standard error with digits that mean something."""

from __future__ import annotations

import math
from collections.abc import Iterable

from analysis.tables.published import Number

NOTHING = "–"
# unit and its size in the stored one, the papers' own first
UNITS = {
    "kwh": (("kWh", 1.0), ("Wh", 1e-3), ("mWh", 1e-6)),
    "kj": (("kJ", 1 / 3600), ("J", 1 / 3.6e6)),
    "co2_kg": (("kg", 1.0), ("g", 1e-3), ("mg", 1e-6)),
    "co2_g": (("g", 1e-3), ("mg", 1e-6)),
}

Unit = tuple[str, float]


def unit_for(units: Iterable[Unit], values: Iterable[float]) -> Unit:
    """The first unit in which the largest value is at least 0.1, else the last; the first where there is no value."""
    units = list(units)
    largest = max((abs(value) for value in values if math.isfinite(value)), default=math.inf)
    return next((unit for unit in units if largest >= 0.1 * unit[1]), units[-1])


def percent(mean: float, se: float = math.nan, digits: int = 2) -> str:
    """A fraction as percent, without the sign: '94.20 ± 0.11'."""
    if math.isnan(mean):
        return NOTHING
    text = f"{100 * mean:.{digits}f}"
    return text if math.isnan(se) else f"{text} ± {100 * se:.{digits}f}"


def fixed(mean: float, se: float = math.nan, digits: int = 4) -> str:
    """With so many decimals: '0.9818 ± 0.0004'."""
    if math.isnan(mean):
        return NOTHING
    return f"{mean:.{digits}f}" if math.isnan(se) else f"{mean:.{digits}f} ± {se:.{digits}f}"


def amount(mean: float, se: float, unit: Unit) -> str:
    """A stored value in a unit: two digits of its standard error, or four of its own."""
    if math.isnan(mean):
        return NOTHING
    mean, se = mean / unit[1], se / unit[1]
    if se > 0:
        digits = min(9, max(0, 1 - math.floor(math.log10(se))))
        return f"{mean:.{digits}f} ± {se:.{digits}f}"
    text = _significant(mean)
    return text if math.isnan(se) else f"{text} ± 0"


def clock(mean: float, se: float = math.nan) -> str:
    """Seconds as h:mm:ss, with hundredths below a minute: '1:42:46 ± 31 s'."""
    if math.isnan(mean):
        return NOTHING
    seconds, rest = (round(mean, 2), f"{round(mean, 2) % 60:05.2f}") if mean < 60 else (round(mean), "")
    text = f"{seconds // 3600:.0f}:{seconds // 60 % 60:02.0f}:{rest or f'{seconds % 60:02.0f}'}"
    return text if math.isnan(se) else f"{text} ± {se:.2g} s"


def as_printed(number: Number | None, unit: Unit | None = None) -> str:
    """A published number: its own digits, or four in another unit than its own."""
    if number is None:
        return NOTHING
    if unit is None or number.unit == unit[0]:
        return number.printed
    return _significant(number.value / unit[1])


def _significant(value: float) -> str:
    """Four significant digits, trailing zeros kept; whole numbers above that."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 3 - math.floor(math.log10(abs(value)))
    return f"{value:.{digits}f}" if 0 <= digits <= 6 else f"{value:.0f}" if digits < 0 else f"{value:.3e}"
