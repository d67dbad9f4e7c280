"""The report of one study."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis.conclusion import against_dense, conclusion
from analysis.figures import (
    confusion_info,
    flop_saving_info,
    hypervolume_info,
    importance_info,
    keep_fractions_info,
    parallel_info,
    plot_confusion,
    plot_flop_saving,
    plot_front,
    plot_hypervolume,
    plot_keep_fractions,
    plot_parallel,
    plot_saving,
    plot_slices,
    plot_training_curves,
    saving_info,
    slices_info,
    strategies_info,
    training_curves_info,
)
from analysis.figures.importance import draw_importance
from analysis.figures.strategies import draw_strategies
from analysis.findings import (
    confusion_finding,
    flop_saving_finding,
    hypervolume_finding,
    importance_finding,
    keep_fractions_finding,
    parallel_finding,
    saving_finding,
    slices_finding,
    strategies_finding,
    training_curves_finding,
)
from analysis.page import contents, folded, page, paragraph, section, table
from analysis.recommendation import recommendation
from analysis.report.answer import answer
from analysis.report.drawn import drawn_note, drawn_trials
from analysis.report.energy import energy_section, ledger_bill
from analysis.report.gallery import Gallery
from analysis.report.trial_tables import confirmed_section, control_table, failure_table, front_table
from analysis.text import escaped
from analysis.trials import devices
from sbp_tune import __version__
from sbp_tune.files import write_text_atomic, yaml_text
from sbp_tune.study.device_types import mixed_devices, shown_device
from sbp_tune.study.results import StudyResults, confirmation_path, load_study

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LINKS = (
    "Point at a trial for its config and its energy by component. Click a point or a row, or drag over points, to mark "
    "those trials in the other figures and tables; shift-click adds one, Escape clears."
)


def write_report(study: StudyResults, output: Path) -> Path:
    """Writes the report of a study in any state to `output` (HTML, under 8 MB for 1,000 trials), and returns that path.

    The file is replaced in one step. Energies are in kWh, Wh or mWh and say what part was measured; what was not
    recorded is a dash. All text of the study is escaped. A figure without data is left out and named at the end, one
    that fails is named in its place and logged.
    """
    study = dataclasses.replace(study, device=shown_device(study))  # a sample of it must not show another
    gallery, found = Gallery(), recommendation(study)
    drawn, (bill, problems) = drawn_trials(study, found), ledger_bill(study)
    sections = {
        ("Accuracy against energy", "front"): _front(study, drawn, gallery),
        ("Pareto front", "front-table"): front_table(study),
        ("Confirmed points", "confirmed"): confirmed_section(study),
        ("Dense controls", "dense"): _dense(study, drawn, gallery),
        ("What the search varied", "searched"): _searched(study, drawn, gallery),
        ("How the trials trained", "training"): _training(study, gallery),
        ("Energy bill", "energy"): energy_section(study, bill, problems, gallery),
        ("The search", "search"): _search(study, gallery),
        ("Test images", "test"): _tested(study, gallery),
        ("Failures", "failed"): failure_table(study),
        ("Study", "study"): [*_facts(study), *gallery.notes()],
    }
    sections = {title: parts for title, parts in sections.items() if parts}
    body = [
        f"<h1>{escaped(study.name)}</h1>",
        *(paragraph(text, "problem") for text in (study.simulation, mixed_devices(study)) if text),
        *answer(study, found, bill),
        paragraph(" ".join(conclusion(study)), "conclusion"),
        contents(sections),
        *(section(title, anchor, parts) for (title, anchor), parts in sections.items()),
    ]
    write_text_atomic(output, page(f"{study.name} · sbp-tune", "\n".join(body)))
    return Path(output)


def _front(study: StudyResults, drawn: StudyResults, gallery: Gallery) -> list[str]:
    note = drawn_note(study, drawn)
    return [
        *gallery.show(
            "The front", lambda: (plot_front(drawn), " ".join(against_dense(study))),
            link="points", tools=True, note=f"{_LINKS} {note}".strip(),
        ),
        *gallery.show(
            "All searched values at once",
            lambda: (plot_parallel(drawn), parallel_finding(parallel_info(drawn), study.objectives)),
            link="lines", tools=True,
            note="A line is a trial, lighter for a better first objective. Drag over an axis to mark trials.",
        ),
    ]  # fmt: skip


def _dense(study: StudyResults, drawn: StudyResults, gallery: Gallery) -> list[str]:
    return [
        *control_table(study),
        *gallery.show(
            "Sparse against dense", lambda: (plot_saving(study), saving_finding(saving_info(study))),
            note="Of single runs: the best of several trials is partly luck, which repeats with fresh seeds undo.",
        ),
        *gallery.show(
            "FLOPs saved and energy saved",
            lambda: (plot_flop_saving(drawn), flop_saving_finding(flop_saving_info(drawn))), link="points",
        ),
    ]  # fmt: skip


def _searched(study: StudyResults, drawn: StudyResults, gallery: Gallery) -> list[str]:
    def importance() -> tuple[Figure, str]:
        info = importance_info(study)
        return draw_importance(info), importance_finding(info)

    return [
        *gallery.show("Importance", importance),
        *gallery.show(
            "One value at a time", lambda: (plot_slices(drawn), slices_finding(slices_info(drawn))), link="points"
        ),
    ]


def _training(study: StudyResults, gallery: Gallery) -> list[str]:
    repeats = confirmation_path(study.path)
    repeated = (repeats / "study.db").is_file()

    def strategies() -> tuple[Figure, str]:
        info = strategies_info(load_study(repeats) if repeated else study)
        return draw_strategies(info), strategies_finding(info)

    return [
        *gallery.show(
            "Strategies", strategies,
            note="Of the confirmed points alone: their repeats with fresh seeds." if repeated else "",
        ),
        *gallery.show(
            "Kept fractions",
            lambda: (plot_keep_fractions(study), keep_fractions_finding(keep_fractions_info(study))), link="curves",
        ),
        *gallery.show(
            "Training curves",
            lambda: (plot_training_curves(study), training_curves_finding(training_curves_info(study))), link="curves",
        ),
    ]  # fmt: skip


def _search(study: StudyResults, gallery: Gallery) -> list[str]:
    return gallery.show("Hypervolume", lambda: (plot_hypervolume(study), hypervolume_finding(hypervolume_info(study))))


def _tested(study: StudyResults, gallery: Gallery) -> list[str]:
    """The confusion matrix of every run that `sbp-tune train -o` has put into the study's directory."""
    parts = []
    for file in sorted(study.path.glob("*/result.json")):
        make = partial(_confusion, file.parent)
        parts += gallery.show(f"Confusions of {file.parent.name}", make)
    return parts


def _confusion(run: Path) -> tuple[Figure, str]:
    return plot_confusion(run), confusion_finding(confusion_info(run))


def _facts(study: StudyResults) -> list[str]:
    facts = {
        "study directory": study.path,
        "devices": ", ".join(devices(study)) or "not recorded",
        **study.versions,
        "report": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, sbp-tune {__version__}",
    }
    rows = pd.DataFrame({"fact": list(facts), "value": [str(value) for value in facts.values()]})
    return [table(rows), folded("Study file", yaml_text(study.study))]
