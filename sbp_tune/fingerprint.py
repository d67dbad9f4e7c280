"""What of a config decides its results: two runs of one fingerprint are the same run."""

from __future__ import annotations

import json
from typing import Any

from sbp_tune.config import is_meaningless

_MACHINE = ("energy", "device", "cpu_threads")  # where it runs and how its energy is told, not what is trained


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain data to dotted keys; empty mappings and lists are values."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def fingerprint(config: dict[str, Any]) -> str:
    """JSON of all that has an effect in a complete config, the seed included, sorted by dotted key."""
    values = flat({key: value for key, value in config.items() if key not in _MACHINE})
    return json.dumps({key: value for key, value in sorted(values.items()) if not is_meaningless(key, values)})
