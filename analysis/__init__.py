"""Reads finished studies: Pareto fronts, figures, the report and exported configs. Knows no Ray.

`from analysis import load_study, plot_front` is all a notebook needs, or another figure of `analysis.figures`. Names
are resolved on first use, so that importing the package costs nothing and Plotly is loaded only to draw.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.bill import bill_info as bill_info
    from analysis.compare import compare_info as compare_info
    from analysis.confirmed import confirmed_points as confirmed_points
    from analysis.confirmed import confirmed_runs as confirmed_runs
    from analysis.confirmed import read_confirmed as read_confirmed
    from analysis.controls import compare_with_dense as compare_with_dense
    from analysis.export import export_config as export_config
    from analysis.figures import *  # noqa: F403 - its __all__
    from analysis.pareto import front_mask as front_mask
    from analysis.pareto import hypervolume as hypervolume
    from analysis.pareto import knee as knee
    from analysis.pareto import study_hypervolume as study_hypervolume
    from analysis.pareto import trial_front as trial_front
    from analysis.picks import pick_trial as pick_trial
    from analysis.provenance import provenance as provenance
    from analysis.recommendation import recommendation as recommendation
    from analysis.report import write_comparison as write_comparison
    from analysis.report import write_report as write_report
    from sbp_tune.study.device_types import with_device as with_device
    from sbp_tune.study.results import StudyResults as StudyResults
    from sbp_tune.study.results import load_study as load_study

_FIGURES = "analysis.figures"
_HOMES = {
    "sbp_tune.study.device_types": ("with_device",),
    "sbp_tune.study.results": ("StudyResults", "load_study"),
    "analysis.bill": ("bill_info",),
    "analysis.confirmed": ("confirmed_points", "confirmed_runs", "read_confirmed"),
    "analysis.controls": ("compare_with_dense",),
    "analysis.compare": ("compare_info",),
    "analysis.export": ("export_config",),
    "analysis.pareto": ("front_mask", "hypervolume", "knee", "study_hypervolume", "trial_front"),
    "analysis.picks": ("pick_trial",),
    "analysis.provenance": ("provenance",),
    "analysis.recommendation": ("recommendation",),
    "analysis.report": ("write_comparison", "write_report"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return [*_HOME_OF, *import_module(_FIGURES).__all__]
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    if not name.startswith("_") and name in import_module(_FIGURES).__all__:
        return getattr(import_module(_FIGURES), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__getattr__("__all__")])
