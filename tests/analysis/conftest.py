"""Small studies written by hand: a list of trials, each a few values on top of a complete trial."""

import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sbp_tune.study.results import METRICS, SOURCES, StudyResults, flat_columns

NAN = float("nan")


def trial(estimator: str = "batch_slice", state: str = "complete", kind: str = "search", **values: Any) -> dict:
    """One trial: metrics by name, anything else is a config value with '__' for the dot."""
    metrics = {name: values.pop(name, NAN) for name in METRICS}
    fixed = {name: values.pop(name, None) for name in ("error", "device", *SOURCES)}
    config: dict[str, Any] = {"sparsity": {"estimator": estimator}}
    for name, value in values.items():
        *sections, key = name.split("__")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return {"state": state, "kind": kind, **fixed, "metrics": metrics, "config": config}


def control(val_accuracy: float, kwh: float, **values: Any) -> dict:
    return trial("dense", kind="baseline", val_accuracy=val_accuracy, kwh=kwh, **values)


def sparse(val_accuracy: float, kwh: float, **values: Any) -> dict:
    return trial(val_accuracy=val_accuracy, kwh=kwh, **values)


def study_of(*trials: dict, name: str = "demo", objectives: dict[str, str] | None = None) -> StudyResults:
    """StudyResults as `load_study` makes them; trial ids are t0, t1, ..."""
    rows = [
        {"trial": number, "trial_id": f"t{number}"}
        | {key: one[key] for key in ("state", "kind", "error", "device", *SOURCES)}
        | one["metrics"]
        | flat_columns(one["config"])
        for number, one in enumerate(trials)
    ]
    return StudyResults(
        name=name,
        path=Path("results") / "demo",
        study={"name": name, "search": {"trials": len(trials)}},
        objectives=objectives or {"val_accuracy": "max", "kwh": "min"},
        versions={"sbp-tune": "0.1.0", "torch": "2.11.0"},
        trials=pd.DataFrame(rows, columns=None if rows else ["trial", "state", "kind", *METRICS]),
        epochs=pd.DataFrame(columns=["trial", *METRICS]),
        configs={number: one["config"] for number, one in enumerate(trials)},
    )


@pytest.fixture
def build():
    """`build.study(build.control(...), build.sparse(...))`; importlib mode has no module to import these from."""

    class Builders:
        study = staticmethod(study_of)
        trial = staticmethod(trial)
        control = staticmethod(control)
        sparse = staticmethod(sparse)

    return Builders


@pytest.fixture(scope="session")
def fake_node():
    """The node of the attribution's tests, whose records make a ledger; importlib mode has no module to import."""
    place = Path(__file__).parents[1] / "sbp_tune" / "energy" / "attribution" / "conftest.py"
    spec = importlib.util.spec_from_file_location("attribution_conftest", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FakeNode
