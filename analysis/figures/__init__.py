"""The figures, one a file: an `_info` function gives plain data without Plotly, a `plot_` function draws it."""

from analysis.energy_bill import energy_bill_info
from analysis.figures.attainment import attainment_info, plot_attainment
from analysis.figures.confusion import confusion_info, plot_confusion
from analysis.figures.energy_bill import plot_energy_bill
from analysis.figures.flop_saving import flop_saving_info, plot_flop_saving
from analysis.figures.front import pareto_front_info, plot_front
from analysis.figures.fronts import fronts_info, plot_fronts
from analysis.figures.hypervolume import hypervolume_info, plot_hypervolume
from analysis.figures.importance import importance_info, plot_importance
from analysis.figures.keep_fractions import keep_fractions_info, plot_keep_fractions
from analysis.figures.machine_bill import machine_bill_info, plot_machine_bill
from analysis.figures.parallel import parallel_info, plot_parallel
from analysis.figures.saving import plot_saving, saving_info
from analysis.figures.slices import plot_slices, slices_info
from analysis.figures.strategies import plot_strategies, strategies_info
from analysis.figures.training_curves import plot_training_curves, training_curves_info
from analysis.figures.usage import plot_usage, usage_info

__all__ = [
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
]
