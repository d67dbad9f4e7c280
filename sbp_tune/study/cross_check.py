"""One CodeCarbon tracker beside the ledger, on the driver's machine, as a second opinion that is never added."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sbp_tune.config import EnergyConfig
from sbp_tune.energy.carbon import intensity
from sbp_tune.energy.nvml import system_nvml
from sbp_tune.files import write_text_atomic
from sbp_tune.study.ledger import ledger_folder


@dataclass(frozen=True)
class CrossCheck:
    """What CodeCarbon said of one start of a search.

    node: the driver's, as the ledger names it; start, end: Unix time; kwh: by component, of the whole machine, None
    for a GPU that is not there; error: why there is no number.
    """

    version: str
    node: str
    start: float
    end: float
    kwh: dict[str, float | None]
    error: str | None = None


@contextlib.contextmanager
def cross_check(path: Path, energy: EnergyConfig, node: str) -> Iterator[None]:
    """Runs the tracker, and adds what it says to `energy/codecarbon.json` of the study, however the search ends.

    One tracker for the machine: several would each bill all of it. It asks no network and writes no file of its own.
    """
    import codecarbon

    logging.getLogger("codecarbon").setLevel(logging.ERROR)  # it speaks before it has read its log level
    gpus = [gpu.index for gpu in system_nvml().inventory()]
    start = time.time()
    tracker = codecarbon.OfflineEmissionsTracker(**_arguments(energy, gpus))
    tracker.start()
    try:
        yield
    finally:
        tracker.stop()
        said = getattr(tracker, "final_emissions_data", None)  # it keeps its errors to itself
        kwh: dict[str, float | None] = {}
        if said is not None:
            kwh = {"gpu": said.gpu_energy if gpus else None, "cpu": said.cpu_energy, "ram": said.ram_energy}
        found = CrossCheck(
            codecarbon.__version__, node, start, time.time(), kwh, None if said else "CodeCarbon gave no result"
        )
        runs = [asdict(run) for run in [*read_cross_checks(path), found]]
        write_text_atomic(_file(path), json.dumps({"runs": runs}, indent=2) + "\n")


def read_cross_checks(path: Path) -> list[CrossCheck]:
    """All of a study, in order; empty where none was asked for. A file that is none of ours counts as none."""
    try:
        return [CrossCheck(**run) for run in json.loads(_file(path).read_text(encoding="utf-8"))["runs"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _file(path: Path) -> Path:
    return ledger_folder(path) / "codecarbon.json"


def _arguments(energy: EnergyConfig, gpus: list[int]) -> dict[str, Any]:
    """Of CodeCarbon 3.3. Said in full: what is left out may come from the environment or a configuration file."""
    return {
        "country_iso_code": energy.country,
        "cloud_provider": energy.cloud,
        "cloud_region": energy.cloud_region,
        "tracking_mode": "machine",
        "gpu_ids": gpus,  # of NVML; none at all is an empty list, since without one it takes every GPU
        "pue": 1.0,  # it multiplies energies by it
        "output_methods": [],
        "emissions_endpoint": None,
        "electricitymaps_api_token": None,
        # With it, it need not look for one.
        "force_carbon_intensity_g_co2e_kwh": 1000 * intensity(**energy.place) if energy.has_place else 0.0,
        "allow_multiple_runs": True,
        "log_level": "error",
    }
