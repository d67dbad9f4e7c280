"""What each figure shows, in a plain sentence or two computed from its data. Empty where there is nothing to say."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.figures.attainment import AttainmentInfo
from analysis.figures.confusion import ConfusionInfo
from analysis.figures.flop_saving import FlopSavingInfo
from analysis.figures.hypervolume import HypervolumeInfo
from analysis.figures.importance import ImportanceInfo
from analysis.figures.keep_fractions import KeepFractionsInfo
from analysis.figures.machine_bill import MachineBillInfo
from analysis.figures.parallel import ParallelInfo
from analysis.figures.saving import SavingInfo
from analysis.figures.slices import SlicesInfo
from analysis.figures.strategies import StrategiesInfo
from analysis.figures.training_curves import TrainingCurvesInfo
from analysis.figures.usage import UsageInfo
from sbp_tune.units import readable_energy, readable_metric

_LEAST = 8
"""Fewer trials than these have no trend worth a sentence."""


def saving_finding(info: SavingInfo) -> str:
    """The largest saving at equal accuracy, and the largest gain at equal energy."""
    lines = []
    if len(info.saving):
        best = _largest(info.saving, "saving")
        if best["saving"] > 0:
            lines.append(
                f"At equal accuracy the largest saving is {100 * best['saving']:.0f} % (trial {best['trial']}, "
                f"{best['estimator']}, {readable_metric('val_accuracy', best['val_accuracy'])}: "
                f"{readable_energy(best['kwh'])} instead of {readable_energy(best['dense_kwh'])})."
            )
        else:
            lines.append("At no accuracy does sparse training use less energy than dense training.")
    if len(info.gain):
        best = _largest(info.gain, "gain")
        if best["gain"] > 0:
            lines.append(
                f"At equal energy the largest gain is {100 * best['gain']:.2f} percentage points (trial "
                f"{best['trial']}, {best['estimator']}, for at most {readable_energy(best['kwh'])})."
            )
        else:
            lines.append("At no energy is sparse training more accurate than dense training.")
    return " ".join(lines)


def hypervolume_finding(info: HypervolumeInfo) -> str:
    """When the front was nearly as good as at the end, by energy; of the first study."""
    rows = info.history[info.history["study"] == 0]
    last = rows.iloc[-1]
    if not last["hypervolume"] > 0:
        return ""
    nearly = rows[rows["hypervolume"] >= 0.95 * last["hypervolume"]].iloc[0]
    final = rows[rows["hypervolume"] >= last["hypervolume"] * (1 - 1e-9)].iloc[0]
    share = f" ({100 * nearly['kwh'] / last['kwh']:.0f} % of what was spent)" if last["kwh"] > 0 else ""
    return (
        f"After {nearly['trials']:.0f} of {last['trials']:.0f} trials and {readable_energy(nearly['kwh'])}{share} the "
        f"front had 95 % of its final hypervolume; trial {final['trial']:.0f} was the last to improve it."
    )


def strategies_finding(info: StrategiesInfo) -> str:
    """The most accurate strategy and the cheapest one."""
    bars = info.bars.dropna(subset=[info.accuracy])
    if bars.empty:
        return ""
    models = bars["model"].nunique() > 1
    best = _largest(bars, info.accuracy)
    name = info.accuracy.replace("_", " ").replace("val ", "validation ")
    accuracy = f"{_spread(best, info.accuracy)} {name}"
    text = f"The most accurate strategy is {best['strategy']}{_on(best, models)} with {accuracy}"
    priced = bars.dropna(subset=["kwh"])
    if len(priced):
        least = _largest(priced.assign(less=-priced["kwh"]), "less")
        same = least.name == best.name
        text += (
            ", also the one of least energy"
            if same
            else f"; the one of least energy is {least['strategy']}{_on(least, models)} with {_spread(least, 'kwh')}"
        )
    return f"{text}."


def training_curves_finding(info: TrainingCurvesInfo) -> str:
    """Mean power of dense against sparse training: what it saves, a schedule saves by time or by power."""
    power = info.curves.groupby("trial")["power_w"].mean().dropna()
    dense = power[[info.estimators[trial] == "dense" for trial in power.index]]
    sparse = power[[info.estimators[trial] != "dense" for trial in power.index]]
    if dense.empty or sparse.empty:
        return ""
    return f"Mean power: {_range(dense, 'W')} in dense training, {_range(sparse, 'W')} in the sparse trials drawn."


def keep_fractions_finding(info: KeepFractionsInfo) -> str:
    """What the trials drawn keep, on average over their epochs."""
    kept = info.epochs["recorded"].astype(float).fillna(info.epochs["planned"].astype(float))
    means = kept.groupby(info.epochs["trial"]).mean().dropna()
    if means.empty:
        return ""
    pairs = zip(map(int, means.index), means, strict=True)
    texts = [f"trial {trial} ({info.estimators[trial]}) {100 * mean:.0f} %" for trial, mean in pairs]
    return f"Kept on average over the epochs: {_list(texts)}."


def slices_finding(info: SlicesInfo) -> str:
    """The numeric value that goes most with the metric, by rank correlation."""
    found: dict[str, tuple[float, int]] = {}
    for key, scale in info.scales.items():
        rows = info.points[[key, "y"]].dropna()
        if scale != "category" and len(rows) >= _LEAST and rows[key].nunique() > 1 and rows["y"].nunique() > 1:
            found[key] = (float(rows[key].astype(float).rank().corr(rows["y"].rank())), len(rows))
    if not found:
        return ""
    key, (correlation, trials) = max(found.items(), key=lambda item: abs(item[1][0]))
    return (
        f"{key} goes most with the accuracy: rank correlation {correlation:+.2f} over {trials} trials. That is no "
        "proof of a cause: a search moves several values at once."
    )


def importance_finding(info: ImportanceInfo) -> str:
    """The most important key of each objective."""
    texts = []
    for objective in info.importance:
        column = info.importance[objective].dropna()
        if len(column):
            texts.append(f"for {objective}, {column.idxmax()} matters most ({100 * column.max():.0f} %)")
    return f"{_list(texts)[0].upper()}{_list(texts)[1:]}." if texts else ""


def parallel_finding(info: ParallelInfo, directions: dict[str, str]) -> str:
    """Where the searched numbers of the best tenth lie, within what was tried."""
    objective = info.objectives[0]
    values = info.values.sort_values(objective, ascending=directions[objective] == "min")
    best = values.head(max(3, len(values) // 10))
    if len(values) < _LEAST:
        return ""
    texts = []
    for key, scale in info.scales.items():
        mine, all_of_them = best[key].dropna(), values[key].dropna()
        if scale == "category":
            if len(mine) == len(best) and mine.nunique() == 1:
                texts.append(f"{key} {mine.iloc[0]}")
        elif len(mine) and mine.max() - mine.min() < 0.5 * (all_of_them.max() - all_of_them.min()):
            ends = "" if mine.min() == mine.max() else f" to {mine.max():.3g}"
            texts.append(f"{key} {mine.min():.3g}{ends}")
    if not texts:
        return f"The best {len(best)} trials in {objective} have no range of a searched value to themselves."
    return f"What the best {len(best)} trials in {objective} have in common: {_list(texts)}."


def flop_saving_finding(info: FlopSavingInfo) -> str:
    """Both savings of each estimator, and which saves under half of what its FLOPs promise."""
    texts = [
        f"{name} leaves out {100 * row['flop_saving']:.0f} % of the FLOPs and saves {100 * row['energy_saving']:.0f} % "
        f"of the energy of an epoch ({row['trials']:.0f} {'trial' if row['trials'] == 1 else 'trials'})"
        for name, row in info.estimators.iterrows()
    ]
    if not texts:
        return ""
    none = info.estimators.index[info.estimators["flop_saving"] <= 1e-6]
    said = f" {_list(none)} saves no compute." if len(none) else ""
    return f"{'; '.join(texts)}.{said}"


def machine_bill_finding(info: MachineBillInfo) -> str:
    """Which part of the energy went into trials that were trained to their end, and what is measured."""
    totals = info.lines.sum(axis=1)
    total = totals.sum()
    if not total > 0:
        return ""
    whole = "the machines'" if info.overhead else "the trials'"
    parts = [f"{name} {100 * value / total:.0f} %" for name, value in totals.sort_values(ascending=False).items()]
    measured = 100 * info.lines["measured"].sum() / total
    return f"Of {readable_energy(total)}, {whole} energy, {measured:.0f} % is measured. It went to: {_list(parts)}."


def usage_finding(info: UsageInfo) -> str:
    """How busy the hardware was on average."""
    names = {"gpu_busy": "GPUs busy", "cpu_busy": "cores busy", "ram": "memory used"}
    texts = []
    for quantity, name in names.items():
        rows = info.usage[info.usage["quantity"] == quantity]
        seconds = rows["time"] - rows["start"]
        if seconds.sum() > 0:
            texts.append(f"{name} {100 * (rows['value'] * seconds).sum() / seconds.sum():.0f} %")
    damage = f" Lines of the ledger that cannot be read: {info.damage}." if info.damage else ""
    return (f"On average over the search: {_list(texts)}." if texts else "") + damage


def confusion_finding(info: ConfusionInfo) -> str:
    """How many test images were right, and the most frequent confusion."""
    counts = info.counts
    total, right = int(counts.sum()), int(np.trace(counts))
    if not total:
        return ""
    wrong = counts - np.diag(np.diag(counts))
    text = f"{right} of {total} test images are classified correctly ({100 * right / total:.2f} %)"
    if not wrong.any():
        return f"{text}."
    true, guess = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return (
        f"{text}; the most frequent confusion is {info.classes[true]} taken for {info.classes[guess]} "
        f"({wrong[true, guess]} of {int(counts[true].sum())})."
    )


def attainment_finding(info: AttainmentInfo) -> str:
    """How far the repeats are apart: the best accuracy of one, and of all."""
    best = info.surfaces.groupby("level")["y"].max()
    if len(best) < 2:
        return ""
    one, every = (readable_metric(info.y, float(best[level])) for level in (best.index[0], best.index[-1]))
    return f"Of {info.studies} repeats at least one reaches {one}; what all of them reach ends at {every}."


def _largest(rows: pd.DataFrame, column: str) -> pd.Series:
    """The row of the largest value; of several, the first."""
    return rows.iloc[int(rows[column].to_numpy(dtype=float).argmax())]


def _on(bar: pd.Series, models: bool) -> str:
    return f" on {bar['model']}" if models else ""


def _spread(bar: pd.Series, name: str) -> str:
    mean, se = bar[name], bar[f"{name}_se"]
    text = readable_metric(name, mean)
    if np.isnan(se):
        return f"{text} ({'1 seed' if bar['seeds'] == 1 else f'{bar.seeds} seeds'})"
    spread = f"{100 * se:.2f} pp" if name.endswith("accuracy") else f"{100 * se / mean:.1f} %"
    return f"{text} (standard error {spread}, {bar['seeds']} seeds)"


def _range(values: pd.Series, unit: str) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _list(texts: Iterable[object]) -> str:
    words = [str(text) for text in texts]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
