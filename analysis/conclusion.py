"""What a study shows, in plain sentences computed from its data."""

from __future__ import annotations

import math

from analysis.confirmed import read_confirmed
from analysis.confirmed_table import sentences as confirmed_sentences
from analysis.controls import compare_with_dense, dense_curve
from analysis.energy_bill import energy_bill_info
from analysis.text import one_line
from analysis.trials import (
    estimator,
    is_candidate,
    is_compared,
    is_dense_control,
    metric,
    records,
    useful,
    varying_config,
)
from sbp_tune.study.results import StudyResults
from sbp_tune.units import readable_energy, readable_metric


def conclusion(study: StudyResults) -> list[str]:
    """Sentences, plain text: trials, most accurate trial, sparse against dense, source of the energy figures."""
    sentences = [*([study.simulation] if study.simulation else []), _trials(study)]
    if (is_compared(study) & metric(study, "val_accuracy").notna()).any():
        sentences += [_most_accurate(study), *against_dense(study)]
        sentences += _confirmation(study)
    return [*sentences, *_constraints(study), *_caution(study)]


def _trials(study: StudyResults) -> str:
    states = study.trials["state"].value_counts()
    always = {"complete": "complete", "stopped": "stopped early", "failed": "failed"}
    unfinished = {"running": "still running", "interrupted": "interrupted"}
    counts = [f"{states.get(state, 0)} {word}" for state, word in always.items()]
    counts += [f"{states[state]} {word}" for state, word in unfinished.items() if state in states]
    return f"{_count(len(study.trials), 'trial')}: {', '.join(counts)}."


def _most_accurate(study: StudyResults) -> str:
    accuracy = metric(study, "val_accuracy").where(is_compared(study))
    # of equally accurate trials the one that cost least
    trials = study.trials[["trial"]].assign(
        estimator=estimator(study), accuracy=accuracy, loss=-accuracy, kwh=useful(study, "kwh")
    )
    best = records(trials.sort_values(["loss", "kwh"]))[0]
    cost = readable_energy(best["kwh"]) if best["kwh"] == best["kwh"] else "an energy that was not recorded"
    return (
        f"The most accurate complete trial is trial {best['trial']} ({best['estimator']}): "
        f"{_percent(best['accuracy'])} validation accuracy for {cost}."
    )


def against_dense(study: StudyResults) -> list[str]:
    sparse = compare_with_dense(study)
    if dense_curve(study).empty:
        return ["There is no complete dense control, so nothing can be said of sparse against dense training."]
    if sparse.empty:
        return ["No sparse trial is complete with its accuracy and energy."]
    above = sparse[sparse["verdict"] == "above"]
    if above.empty:
        sentences = ["No sparse trial lies above the dense control curve."]
    else:
        verb = "lies" if len(above) == 1 else "lie"
        best = records(above.sort_values("lead"))[-1]
        sentences = [
            f"{_count(len(above), 'sparse trial')} {verb} above the dense control curve.",
            f"The largest lead has trial {best['trial']} ({best['estimator']}): {_percent(best['val_accuracy'])} "
            f"for {readable_energy(best['kwh'])}, {100 * best['lead']:.2f} percentage points more than dense "
            f"training with at least that energy ({_percent(best['dense_accuracy'])}).",
        ]
        if also := _differs_from_controls(study, best["trial"]):
            sentences.append(
                f"That trial differs from every dense control in {', '.join(also)} too, so its lead need not come from "
                "sparsity."
            )
    alone = int((sparse["verdict"] == "no control").sum())
    if alone:
        sentences.append(
            f"{_count(alone, 'sparse trial')} used less or more energy than any dense control and cannot be compared."
        )
    return sentences


def _constraints(study: StudyResults) -> list[str]:
    """How many trials meet the study's constraints, which decide who may be on the front."""
    texts = study.study.get("search", {}).get("constraints") or []
    complete = is_compared(study, study.objectives)
    if not texts or not complete.any() or "feasible" not in study.trials:
        return []
    met, total = int((is_candidate(study) & complete).sum()), int(complete.sum())
    unknown = int(study.trials.loc[complete, "feasible"].isna().sum())
    words = f"{met} of {_count(total, 'complete trial')} {'meets' if met == 1 else 'meet'}"
    sentence = f"{words} the study's constraints ({'; '.join(map(one_line, texts))}); only these can be on the front."
    return [sentence, f"Of {_count(unknown, 'trial')} that is not known."] if unknown else [sentence]


def _confirmation(study: StudyResults) -> list[str]:
    confirmed = confirmed_sentences(read_confirmed(study))
    others = "Each other point" if confirmed else "Each point"
    end = "." if confirmed else ", so differences are not yet confirmed."
    return [*confirmed, f"{others} is one run with one seed{end}"]


def _differs_from_controls(study: StudyResults, trial: int) -> list[str]:
    """Searched keys, sparsity and epochs apart, in which no dense control has the trial's value."""
    config, controls = varying_config(study), is_dense_control(study)
    mine = config[study.trials["trial"] == trial].iloc[0]
    keys = [key for key in map(str, config) if key != "epochs" and not key.startswith("sparsity.")]
    return [key for key in keys if mine[key] not in config.loc[controls, key].tolist()]


def _caution(study: StudyResults) -> list[str]:
    total = energy_bill_info(study).total
    sentences = [_source(total["measured_kwh"], total["kwh"])]
    if total["unrecorded"]:
        sentences.append(f"The energy of {_count(int(total['unrecorded']), 'trial')} is not known.")
    return sentences


def _source(measured_kwh: float, kwh: float) -> str:
    if not kwh > 0:
        return "No energy was recorded."
    if math.isnan(measured_kwh):
        return "Which part of the energy was measured is not known."
    if measured_kwh == 0:
        return "No energy was measured: all of it comes from a model."
    if measured_kwh >= kwh * (1 - 1e-9):
        return "All energy was measured."
    return f"{100 * measured_kwh / kwh:.1f} % of the energy was measured, the rest comes from a model."


def _percent(accuracy: float) -> str:
    return readable_metric("val_accuracy", accuracy)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
