"""What is said of a study that only simulates."""

from __future__ import annotations

from typing import Any


def simulation_text(document: dict[str, Any]) -> str | None:
    """What was played instead of training, as a sentence, by the resolved study file; None of a real study."""
    simulate = document.get("simulate")
    if simulate is None:
        return None
    if simulate.get("table"):
        how = "nearest to" if simulate.get("match") == "nearest" else "of the same config as"
        source = f"the curves of trials recorded in {simulate['table']}, {how} each proposed one"
    else:
        source = "an analytic response, which no hardware gave"
    return f"Simulated, nothing was trained or measured: all accuracies, times and energies are those of {source}."
