"""Recorded trials as a table: a row per trial and epoch, and how one of them is found that stands for a config.

`sbp-tune record` writes it. Columns: study, trial, the metrics and energy sources of a results table, device,
versions and config_json as JSON text, and the config once more in columns `config.<dotted key>` for people to
read; a reader goes by config_json, which keeps every type.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from sbp_tune.config import is_meaningless
from sbp_tune.errors import InputError
from sbp_tune.fingerprint import fingerprint, flat

Domains = dict[str, dict[str, Any] | None]
"""Searched dotted key to its range (low, high, log), or None for one of a list of options."""

_NEEDED = ("study", "trial", "epoch", "config_json")
_NOT_PLAYED = ("study", "trial", "kind", "device", "versions", "config_json")
_THE_SAME = ("data.name", "model.name", "epochs")  # a neighbour must share them, unless they are searched


class ReplayTable:
    """The trials of a replay table; InputError where a file is none."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        table = _read(path)
        self._curves: list[list[dict[str, Any]]] = []
        self._configs: list[dict[str, Any]] = []
        for _, trial in table.groupby(["study", "trial"], sort=True):
            rows = trial.sort_values("epoch").drop(columns=[name for name in trial if _is_not_played(str(name))])
            self._curves.append([_row(row) for row in rows.to_dict("records")])
            self._configs.append(_config(path, trial["config_json"].iloc[0]))
        self._flat = [flat(config) for config in self._configs]
        self._exact = {fingerprint(config): index for index, config in reversed(list(enumerate(self._configs)))}

    def __len__(self) -> int:
        return len(self._curves)

    def curve(self, config: dict[str, Any], match: str, searched: Domains) -> list[dict[str, Any]]:
        """Rows, one per epoch, of the recorded trial that stands for a complete config.

        exact: the one of the same config, the seed included, whatever the machine. nearest: the one with the
        least sum of squared differences over the searched keys, each range scaled to [0, 1], on a log scale
        where the domain is; options, and a key that means something in one of the two alone, count 0 or 1.
        Data set, network and epochs must be equal unless they are searched. Of several as near the one of
        the same seed, else another for each seed. InputError where there is none.
        """
        if match == "nearest":
            return self._curves[self._nearest(config, searched)]
        found = self._exact.get(fingerprint(config))
        if found is None:
            raise InputError(f"{self._path}: none of {len(self)} recorded trials has exactly this config")
        return self._curves[found]

    def _nearest(self, config: dict[str, Any], searched: Domains) -> int:
        wanted, same = flat(config), [key for key in _THE_SAME if not _is_searched(key, searched)]
        candidates = [
            index for index, values in enumerate(self._flat) if all(values.get(key) == wanted[key] for key in same)
        ]
        if not candidates:
            values = ", ".join(f"{key} {wanted[key]}" for key in same)
            raise InputError(f"{self._path}: none of {len(self)} recorded trials has {values}")
        active = {key: not is_meaningless(key, wanted) for key in searched}
        distances = {
            index: math.fsum(
                _difference(
                    (active[key], _at(config, key)),
                    (not is_meaningless(key, self._flat[index]), _at(self._configs[index], key)),
                    domain,
                )
                ** 2
                for key, domain in searched.items()
            )
            for index in candidates
        }
        least = min(distances.values())
        ties = [index for index, distance in distances.items() if distance <= least + 1e-12]
        seed = wanted.get("seed", 0)
        same_seed = [index for index in ties if self._flat[index].get("seed") == seed]
        return (same_seed or ties)[0 if same_seed else seed % len(ties)]


def _read(path: Path | str) -> pd.DataFrame:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; `sbp-tune record` writes replay tables")
    try:
        table = pd.read_parquet(path)
    except Exception as error:  # Arrow's own errors, or those of whatever it finds in the file
        raise InputError(f"{path}: not a parquet file: {' '.join(str(error).split())}") from error
    missing = [name for name in _NEEDED if name not in table]
    if missing or table.empty:
        problem = f"it has no {', '.join(missing)}" if missing else "it has no rows"
        raise InputError(f"{path}: not a replay table: {problem}; `sbp-tune record` writes them")
    return table


def _config(path: Path | str, text: Any) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (TypeError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise InputError(f"{path}: config_json: found {str(text)[:60]!r}; needs a config as JSON")
    return config


def _is_not_played(column: str) -> bool:
    return column in _NOT_PLAYED or column.startswith("config.")


def _row(row: dict[Any, Any]) -> dict[str, Any]:
    plain = {str(name): None if pd.isna(value) else value for name, value in row.items()}
    return {**plain, "epoch": int(row["epoch"])}


def _is_searched(key: str, searched: Domains) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in searched)


def _at(config: dict[str, Any], key: str) -> Any:
    """What stands at a dotted key: a whole section too, where its options are mappings."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _difference(one: tuple[bool, Any], other: tuple[bool, Any], domain: dict[str, Any] | None) -> float:
    """Of (means something, value) at a key: 0 where equal, 1 for the whole width of a range or other options."""
    (is_active, a), (other_is_active, b) = one, other
    if not (is_active and other_is_active):
        return float(is_active != other_is_active)
    if domain is None or not (isinstance(a, int | float) and isinstance(b, int | float)):
        return float(a != b)
    low, high = domain["low"], domain["high"]
    if domain["log"]:
        return abs(math.log(a / b)) / math.log(high / low) if a > 0 and b > 0 else 1.0
    return abs(a - b) / (high - low)
