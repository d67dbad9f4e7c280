"""The report of several studies side by side."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis.conclusion import conclusion
from analysis.figures import (
    attainment_info,
    hypervolume_info,
    plot_attainment,
    plot_fronts,
    plot_hypervolume,
    plot_strategies,
    strategies_info,
)
from analysis.figures.style import study_names
from analysis.findings import attainment_finding, strategies_finding
from analysis.page import contents, folded, page, paragraph, section, table
from analysis.pareto import trial_front
from analysis.recommendation import Recommendation, recommendation, words_of
from analysis.report.answer import answer, percent, points, seeds
from analysis.report.energy import ledger_bill
from analysis.report.gallery import Gallery
from analysis.text import escaped
from analysis.trials import devices, is_complete, useful
from sbp_tune import __version__
from sbp_tune.errors import InputError
from sbp_tune.files import write_text_atomic, yaml_text
from sbp_tune.study.device_types import mixed_devices, shown_device
from sbp_tune.study.results import StudyResults
from sbp_tune.units import readable_energy, readable_metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def write_comparison(studies: Sequence[StudyResults], output: Path) -> Path:
    """Writes the report of several studies in any state to `output`, as `write_report` does of one; that path.

    InputError where a study is given twice.
    """
    paths = [study.path.resolve() for study in studies]
    if twice := {str(study.path) for study in studies if paths.count(study.path.resolve()) > 1}:
        raise InputError(f"report: found {', '.join(sorted(twice))} more than once; needs different studies")
    gallery, found = Gallery(), [recommendation(study) for study in studies]
    names = study_names(studies)
    sections = {
        ("Fronts", "fronts"): _fronts(studies, gallery),
        ("Hypervolume", "hypervolume"): _hypervolume(studies, gallery),
        ("Repeats", "repeats"): _repeats(studies, gallery),
        ("Strategies", "strategies"): gallery.show(
            "Accuracy, energy and time",
            lambda: (plot_strategies(*studies), strategies_finding(strategies_info(*studies))),
        ),
        **{
            (f"Study {name}", f"study-{place}"): _study(study, best)
            for place, (name, study, best) in enumerate(zip(names, studies, found, strict=True))
        },
        ("About", "about"): [*_about(studies), *gallery.notes()],
    }
    sections = {title: parts for title, parts in sections.items() if parts}
    body = [
        f"<h1>{escaped(' · '.join(names))}</h1>",
        *(paragraph(f"{study.name}: {study.simulation}", "problem") for study in studies if study.simulation),
        *_caution(studies),
        table(_conclusions(studies, found)),
        contents(sections),
        *(section(title, anchor, parts) for (title, anchor), parts in sections.items()),
    ]
    write_text_atomic(output, page(f"{', '.join(names)} · sbp-tune", "\n".join(body)))
    return Path(output)


def _caution(studies: Sequence[StudyResults]) -> list[str]:
    """What forbids to compare the studies' energies."""
    within = [
        paragraph(f"{name}: {text}", "problem")
        for name, text in zip(study_names(studies), map(mixed_devices, studies), strict=True)
        if text
    ]
    types = [shown_device(study) for study in studies]
    if len(set(types)) < 2:
        return within
    said = "; ".join(f"{name}: {found}" for name, found in zip(study_names(studies), types, strict=True))
    text = f"The studies ran on different types of device ({said}). kWh of different device types are not comparable"
    return [*within, paragraph(f"{text}: compare each study with its own dense controls only.", "problem")]


def _conclusions(studies: Sequence[StudyResults], found: Sequence[Recommendation | None]) -> pd.DataFrame:
    rows = []
    for name, study, best in zip(study_names(studies), studies, found, strict=True):
        complete = is_complete(study)
        accuracy = useful(study, "val_accuracy").where(complete).max()
        rows.append(
            {
                "study": name,
                "device": ", ".join(devices(study)) or "not recorded",
                "trials": f"{len(study.trials)}, {int(complete.sum())} complete",
                "best val. accuracy": readable_metric("val_accuracy", float(accuracy)),
                "take": "–" if best is None else f"trial {best.trial}: {words_of(study, best.trial)}",
                "less energy": "–" if best is None or best.saving.mean != best.saving.mean else percent(best.saving),
                "than": "–" if best is None else _than(best),
                "lead": "–" if best is None or best.is_dense else points(best.lead),
                "confirmed": f"yes, {seeds(best.seeds)}" if best is not None and best.confirmed else "no",
                "energy of all trials": readable_energy(float(study.trials["kwh"].sum(min_count=1))),
            }
        )
    return pd.DataFrame(rows)


def _than(best: Recommendation) -> str:
    return "the dearest dense control" if best.is_dense or best.beyond else "dense of equal accuracy"


def _fronts(studies: Sequence[StudyResults], gallery: Gallery) -> list[str]:
    return gallery.show(
        "The fronts", lambda: (plot_fronts(*studies), _sizes(studies)),
        note="Full lines and points: the front of each study. Dashed, with rings: its dense controls.",
    )  # fmt: skip


def _sizes(studies: Sequence[StudyResults]) -> str:
    pairs = zip(study_names(studies), studies, strict=True)
    texts = [f"{name} {len(trial_front(study))} of {len(study.trials)} trials" for name, study in pairs]
    return f"On the front: {'; '.join(texts)}."


def _hypervolume(studies: Sequence[StudyResults], gallery: Gallery) -> list[str]:
    def make() -> tuple[Figure, str]:
        history = hypervolume_info(*studies).history
        last = history.groupby("study").tail(1).set_index("study")
        texts = [
            f"{name} {100 * last['share'][place]:.1f} % for {readable_energy(last['kwh'][place])}"
            for place, name in enumerate(study_names(studies))
        ]
        said = f"Hypervolume at the end, from one reference point for all: {'; '.join(texts)}."
        return plot_hypervolume(*studies), said

    return gallery.show("Hypervolume of the fronts", make)


def _repeats(studies: Sequence[StudyResults], gallery: Gallery) -> list[str]:
    """Attainment surfaces, where all studies search the same space."""
    spaces = [(study.study.get("config"), study.study.get("baselines"), study.objectives) for study in studies]
    if any(space != spaces[0] for space in spaces):
        gallery.left_out["Attainment surfaces"] = "the studies search different spaces, so they are no repeats"
        return []
    return gallery.show(
        "Attainment surfaces",
        lambda: (plot_attainment(studies), attainment_finding(attainment_info(studies))),
    )


def _study(study: StudyResults, found: Recommendation | None) -> list[str]:
    bill, problems = ledger_bill(study)
    return [
        *answer(study, found, bill),
        *(paragraph(line, "problem") for line in problems),
        paragraph(" ".join(conclusion(study)), "conclusion"),
        folded("Study file", yaml_text(study.study)),
    ]


def _about(studies: Sequence[StudyResults]) -> list[str]:
    versions = [", ".join(f"{name} {version}" for name, version in study.versions.items()) for study in studies]
    rows = pd.DataFrame(
        {"study": study_names(studies), "directory": [str(study.path) for study in studies], "versions": versions}
    )
    return [table(rows), paragraph(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, sbp-tune {__version__}", "note")]
