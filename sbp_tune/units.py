"""Units in which numbers are readable: a run on a processor costs 1e-5 kWh, a study may cost 10."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

# unit and its size in the base unit, largest first
_ENERGY = (("kWh", 1.0), ("Wh", 1e-3), ("mWh", 1e-6))
_MASS = (("kg", 1.0), ("g", 1e-3), ("mg", 1e-6))
_TIME = (("h", 3600.0), ("min", 60.0), ("s", 1.0))
_ENERGY_COLUMNS = ("kwh", "kwh_gpu", "kwh_cpu", "kwh_ram")

# Titles of metrics, with the unit in which they are stored; energies and accuracies choose their own.
_TITLES = {
    "kwh": "Energy",
    "kwh_gpu": "GPU energy",
    "kwh_cpu": "CPU energy",
    "kwh_ram": "RAM energy",
    "val_accuracy": "Validation accuracy",
    "test_accuracy": "Test accuracy",
    "co2_kg": "CO₂ equivalent (kg)",
    "mean_power_w": "Mean power (W)",
    "train_time_s": "Training time (s)",
    "epoch_time_s": "Time per epoch (s)",
    "tflop": "Executed compute (TFLOP)",
    "peak_gpu_gb": "Peak GPU memory (GB)",
    "peak_rss_gb": "Peak memory (GB)",
}


class Axis(NamedTuple):
    """Title of an axis with its unit, and what stored values are multiplied by to be in that unit."""

    title: str
    factor: float


def axis_of(metric: str, values: Iterable[float]) -> Axis:
    """Axis for a metric of trials: energies in the unit of the largest value, accuracies in percent."""
    title = _TITLES.get(metric, metric)
    if metric in _ENERGY_COLUMNS:
        unit, size = _unit(max((abs(value) for value in values if math.isfinite(value)), default=1.0), _ENERGY)
        return Axis(f"{title} ({unit})", 1 / size)
    return Axis(f"{title} (%)", 100.0) if metric.endswith("accuracy") else Axis(title, 1.0)


def readable_energy(kwh: float) -> str:
    """Energy in kWh as text in kWh, Wh or mWh with 3 significant digits ('12.3 mWh'); '–' for NaN."""
    return _readable(kwh, _ENERGY)


def readable_metric(metric: str, value: float) -> str:
    """A stored value of a metric as text with its unit; '–' for NaN.

    Energies, CO2 (kg) and times (s) in a readable unit; accuracies and shares in percent; the rest as
    4 significant digits.
    """
    if not math.isfinite(value):
        return "–"
    if metric in _ENERGY_COLUMNS:
        return readable_energy(value)
    if metric.endswith("accuracy"):
        return f"{100 * value:.2f} %"
    if metric.endswith("_share"):
        return f"{100 * value:.0f} %"
    if metric.endswith("_kg"):
        return _readable(value, _MASS)
    if metric.endswith("_time_s"):
        return _readable(value, _TIME)
    return f"{value:.4g}"


def _unit(value: float, units: tuple[tuple[str, float], ...]) -> tuple[str, float]:
    """The largest unit in which the value is at least 1, else the smallest; nothing at all is 0 of the middle."""
    if value == 0:
        return units[1]
    return next((unit for unit in units if abs(value) >= unit[1]), units[-1])


def _readable(value: float, units: tuple[tuple[str, float], ...]) -> str:
    if not math.isfinite(value):
        return "–"
    value = float(f"{value:.3g}")  # rounded first: 0.9996 kWh is 1.00 kWh, not 1000 Wh
    unit, size = _unit(value, units)
    number = value / size
    text = f"{number:,.0f}" if abs(number) >= 100 else f"{number:#.3g}" if number else "0"
    return f"{text} {unit}"
