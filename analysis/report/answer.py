"""The first screen: which schedule to take, what it saves, how sure that is, and what the search itself cost."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable

from analysis.bill import BillInfo
from analysis.confirmed import Interval
from analysis.energy_bill import energy_bill_info
from analysis.page import paragraph
from analysis.recommendation import RULE, Recommendation, unconfirmed_leads, words_of
from analysis.text import escaped
from sbp_tune.study.results import StudyResults
from sbp_tune.units import readable_energy, readable_metric


def answer(study: StudyResults, found: Recommendation | None, bill: BillInfo | None) -> list[str]:
    """HTML of the four answers. bill: by the ledger of the study, where it has one."""
    cards = {
        "Take": take(study, found),
        "What it saves": [saves(found)],
        "How sure that is": how_sure(study, found, bill),
        "What the search cost": cost(study, found, bill),
    }
    html = "".join(
        f"<div><h2>{escaped(title)}</h2>{paragraph(first, 'main')}{''.join(map(_line, others))}</div>"
        for title, (first, *others) in cards.items()
    )
    return [f'<div class="answer">{html}</div>', paragraph(f"The rule: {RULE}.", "note")]


def take(study: StudyResults, found: Recommendation | None) -> list[str]:
    """The schedule in words, and the command that exports it."""
    if found is None:
        return ["Nothing yet", _nothing(study)]
    command = f"sbp-tune export {shlex.quote(str(study.path))} --pick trial={found.trial} -o best.yaml"
    words = words_of(study, found.trial)
    if found.is_dense:
        words = f"D{words[1:]}".replace("Dense", "Dense training", 1)
    return [f"{words} (trial {found.trial})", f"{_accuracy(found)} for {_energy(found.kwh)}.", command]


def saves(found: Recommendation | None) -> str:
    """What it saves against the dense control, in one sentence."""
    if found is None:
        return "–"
    if found.is_dense:
        text = f"No {'confirmed ' if found.confirmed else ''}sparse point lies above the dense control"
        if not found.saving.mean > 0:
            return f"{text}."
        return f"{text}. This control uses {percent(found.saving)} less energy than the dearest one."
    parts = []
    if not math.isnan(found.saving.mean):
        than = "the dearest dense control, and is more accurate" if found.beyond else "dense training of equal accuracy"
        parts.append(f"{percent(found.saving)} less energy than {than}")
    parts.append(f"{points(found.lead)} more accuracy than dense training of equal energy")
    text = "; ".join(parts) + f"; {seeds(found.seeds)}."
    return text if found.near else f"{text} It is less accurate than the best dense control by over a point."


def how_sure(study: StudyResults, found: Recommendation | None, bill: BillInfo | None) -> list[str]:
    """Whether it was confirmed, and how well its energy is known."""
    if found is None:
        return ["Nothing was compared."]
    if found.confirmed:
        on = "the test set" if found.accuracy_name == "test_accuracy" else "the validation set"
        lines = [f"Confirmed on {on} with {seeds(found.seeds, fresh=True)}."]
        if found.seeds > 1:
            lines.append("± and what is in brackets: 95 % intervals over the seeds, sparse paired with dense by seed.")
    else:
        points = "front" if found.is_dense else f"trial={found.trial}"
        lines = ["Not confirmed: one run with one seed."]
        lines.append(f"sbp-tune confirm {shlex.quote(str(study.path))} --points {points} --seeds 3")
    if found.confirmed and (leads := unconfirmed_leads(study)):
        lines.append(f"Above the curve with one seed, and not confirmed: {_trials(leads)}.")
    return [*lines, *_meter(study, found, bill)]


def cost(study: StudyResults, found: Recommendation | None, bill: BillInfo | None) -> list[str]:
    """Energy of the search, what it compares to, and that of the confirmation."""
    total = energy_bill_info(study).total
    kwh, measured = float(total["kwh"]), float(total["measured_kwh"])
    if not kwh > 0:
        return ["No energy was recorded."]
    number = f"{len(study.trials)} trials"
    if bill is None:
        lines = [f"{readable_energy(kwh)} for {number}."]
        lines.append("What idle machines and the search itself used is not known.")
        whole = kwh
    else:
        whole, measured = bill.machine.kwh, bill.machine.measured_kwh
        time = readable_metric("train_time_s", bill.seconds)
        lines = [f"{readable_energy(whole)} in {time}: {readable_energy(kwh)} for {number}, the rest beside them."]
    if not math.isnan(measured):
        share = f"{100 * measured / whole:.0f} % of it is measured, the rest modelled."
        lines.append(share if measured > 0 else "None of it is measured: all is modelled.")
    if bill is not None and bill.confirmation is not None:
        lines.append(f"Confirmation: {readable_energy(bill.confirmation.machine.kwh)} more.")
    if found is not None and found.dense_kwh > 0:
        text = f"As much as {whole / found.dense_kwh:.3g} trainings of the dearest dense control"
        spared = found.dense_kwh - found.kwh.mean
        regained = f"; regained after {math.ceil(whole / spared)} trainings by the one to take" if spared > 0 else ""
        lines.append(f"{text}{regained}.")
    return lines


def _line(text: str) -> str:
    return paragraph(text, "command" if text.startswith("sbp-tune ") else "")


def percent(value: Interval) -> str:
    """A share in percent with half its interval: '21 % (±4)'."""
    return _with_half(value, lambda number: f"{100 * number:.0f}", " %")


def points(value: Interval) -> str:
    """A difference of accuracies in percentage points with half its interval: '0.8 pp (±0.3)'."""
    return _with_half(value, lambda number: f"{100 * number:.2f}", " pp")


def seeds(number: int, fresh: bool = False) -> str:
    """'3 seeds'."""
    return f"{number} {'fresh ' if fresh else ''}seed{'' if number == 1 else 's'}"


def _with_half(value: Interval, text: Callable[[float], str], unit: str) -> str:
    half = value.high - value.mean
    return f"{text(value.mean)}{unit}" + ("" if math.isnan(half) else f" (±{text(half)})")


def _accuracy(found: Recommendation) -> str:
    name = found.accuracy_name.replace("_", " ").replace("val ", "validation ")
    half = found.accuracy.high - found.accuracy.mean
    spread = "" if math.isnan(half) else f" (±{100 * half:.2f})"
    return f"{100 * found.accuracy.mean:.2f} %{spread} {name}"


def _energy(kwh: Interval) -> str:
    half = kwh.high - kwh.mean
    return readable_energy(kwh.mean) + ("" if math.isnan(half) else f" (±{100 * half / kwh.mean:.1f} %)")


def _nothing(study: StudyResults) -> str:
    states = study.trials["state"].value_counts()
    if not states.get("complete", 0):
        return "No trial is complete."
    return "No dense control is complete with its accuracy and energy, so nothing can be said of sparse against dense."


def _meter(study: StudyResults, found: Recommendation, bill: BillInfo | None) -> list[str]:
    rows = {row.trial: row for row in bill.trials} if bill is not None else {}
    row = rows.get(str(found.trial))
    if row is None or row.uncertainty is None:
        return []
    return [
        f"The meter knows the kWh of this trial to ±{100 * row.uncertainty:.0f} % (standard uncertainty); what it gets "
        "wrong for sparse and dense alike cancels in a saving on one device."
    ]


def _trials(numbers: list[int]) -> str:
    listed = ", ".join(map(str, numbers[:8]))
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"trial {listed}" if len(numbers) == 1 else f"trials {listed}{more}"
