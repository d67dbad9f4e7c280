"""The report: one HTML file that opens from disk, without a network; of one study, or of several side by side."""

from analysis.report.comparison import write_comparison
from analysis.report.one_study import write_report

__all__ = ["write_comparison", "write_report"]
