"""Reads finished studies: Pareto fronts, figures, the report and exported configs. Knows no Ray.

`from analysis import load_study, plot_front` is all a notebook needs, or another figure of `analysis.figures`. Names
are resolved on first use, so that importing the package costs nothing and Plotly is loaded only to draw.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.bill import bill_info
    from analysis.compare import compare_info
    from analysis.confirmed import confirmed_points, confirmed_runs, read_confirmed
    from analysis.controls import compare_with_dense
    from analysis.export import export_config
    from analysis.figures import (
        attainment_info,
        confusion_info,
        energy_bill_info,
        flop_saving_info,
        fronts_info,
        hypervolume_info,
        importance_info,
        keep_fractions_info,
        machine_bill_info,
        parallel_info,
        pareto_front_info,
        plot_attainment,
        plot_confusion,
        plot_energy_bill,
        plot_flop_saving,
        plot_front,
        plot_fronts,
        plot_hypervolume,
        plot_importance,
        plot_keep_fractions,
        plot_machine_bill,
        plot_parallel,
        plot_saving,
        plot_slices,
        plot_strategies,
        plot_training_curves,
        plot_usage,
        saving_info,
        slices_info,
        strategies_info,
        training_curves_info,
        usage_info,
    )
    from analysis.pareto import front_mask, hypervolume, knee, study_hypervolume, trial_front
    from analysis.picks import pick_trial
    from analysis.provenance import provenance
    from analysis.recommendation import recommendation
    from analysis.report import write_comparison, write_report
    from sbp_tune.study.results import StudyResults, load_study

__all__ = [
    "StudyResults",
    "attainment_info",
    "bill_info",
    "compare_info",
    "compare_with_dense",
    "confirmed_points",
    "confirmed_runs",
    "confusion_info",
    "energy_bill_info",
    "export_config",
    "flop_saving_info",
    "front_mask",
    "fronts_info",
    "hypervolume",
    "hypervolume_info",
    "importance_info",
    "keep_fractions_info",
    "knee",
    "load_study",
    "machine_bill_info",
    "parallel_info",
    "pareto_front_info",
    "pick_trial",
    "plot_attainment",
    "plot_confusion",
    "plot_energy_bill",
    "plot_flop_saving",
    "plot_front",
    "plot_fronts",
    "plot_hypervolume",
    "plot_importance",
    "plot_keep_fractions",
    "plot_machine_bill",
    "plot_parallel",
    "plot_saving",
    "plot_slices",
    "plot_strategies",
    "plot_training_curves",
    "plot_usage",
    "provenance",
    "read_confirmed",
    "recommendation",
    "saving_info",
    "slices_info",
    "strategies_info",
    "study_hypervolume",
    "training_curves_info",
    "trial_front",
    "usage_info",
    "write_comparison",
    "write_report",
]

_HOMES = {
    "sbp_tune.study.results": ("StudyResults", "load_study"),
    "analysis.bill": ("bill_info",),
    "analysis.confirmed": ("confirmed_points", "confirmed_runs", "read_confirmed"),
    "analysis.controls": ("compare_with_dense",),
    "analysis.compare": ("compare_info",),
    "analysis.export": ("export_config",),
    "analysis.figures": (
        "attainment_info",
        "confusion_info",
        "energy_bill_info",
        "flop_saving_info",
        "fronts_info",
        "hypervolume_info",
        "importance_info",
        "keep_fractions_info",
        "machine_bill_info",
        "parallel_info",
        "pareto_front_info",
        "plot_attainment",
        "plot_confusion",
        "plot_energy_bill",
        "plot_flop_saving",
        "plot_front",
        "plot_fronts",
        "plot_hypervolume",
        "plot_importance",
        "plot_keep_fractions",
        "plot_machine_bill",
        "plot_parallel",
        "plot_saving",
        "plot_slices",
        "plot_strategies",
        "plot_training_curves",
        "plot_usage",
        "saving_info",
        "slices_info",
        "strategies_info",
        "training_curves_info",
        "usage_info",
    ),
    "analysis.pareto": ("front_mask", "hypervolume", "knee", "study_hypervolume", "trial_front"),
    "analysis.picks": ("pick_trial",),
    "analysis.provenance": ("provenance",),
    "analysis.recommendation": ("recommendation",),
    "analysis.report": ("write_comparison", "write_report"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
