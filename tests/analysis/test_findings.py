"""The sentence of each figure, on data worked out by hand; and of none where there is nothing to say."""

import math

import numpy as np
import pandas as pd

from analysis import figures, findings
from analysis.figures.confusion import ConfusionInfo
from analysis.figures.importance import ImportanceInfo
from analysis.figures.machine_bill import MachineBillInfo
from analysis.figures.training_curves import TrainingCurvesInfo
from analysis.figures.usage import UsageInfo

NAN = math.nan


def test_saving(build):
    controls = [build.control(0.80, 1.0), build.control(0.90, 3.0)]
    better = figures.saving_info(build.study(*controls, build.sparse(0.90, 1.5)))
    # up to 1.5 kWh dense training has .825
    assert findings.saving_finding(better) == (
        "At equal accuracy the largest saving is 50 % (trial 2, batch_slice, 90.00 %: 1.50 kWh instead of 3.00 kWh). "
        "At equal energy the largest gain is 7.50 percentage points (trial 2, batch_slice, for at most 1.50 kWh)."
    )
    worse = figures.saving_info(build.study(*controls, build.sparse(0.81, 2.5)))
    assert findings.saving_finding(worse) == (
        "At no accuracy does sparse training use less energy than dense training. At no energy is sparse training more "
        "accurate than dense training."
    )
    assert findings.saving_finding(figures.saving_info(build.study())) == ""


def test_hypervolume(build):
    study = build.study(build.control(0.5, 2.0), build.sparse(0.9, 1.0), build.sparse(0.4, 3.0))
    text = findings.hypervolume_finding(figures.hypervolume_info(study))
    assert text.startswith("After 2 of 3 trials and 3.00 kWh (50 % of what was spent) the front had 95 %")
    assert text.endswith("trial 1 was the last to improve it.")
    assert findings.hypervolume_finding(figures.hypervolume_info(build.study())) == ""


def test_strategies(build):
    study = build.study(
        build.control(0.9, 2.0),
        build.trial("grid", val_accuracy=0.8, kwh=1.0, sparsity__schedule="linear", seed=1),
        build.trial("grid", val_accuracy=0.84, kwh=1.2, sparsity__schedule="linear", seed=2),
    )
    assert findings.strategies_finding(figures.strategies_info(study)) == (
        "The most accurate strategy is dense with 90.00 % (1 seed) validation accuracy; the one of least energy is "
        "grid linear with 1.10 kWh (standard error 9.1 %, 2 seeds)."
    )
    assert findings.strategies_finding(figures.strategies_info(build.study())) == ""


def test_power_of_dense_and_sparse():
    curves = pd.DataFrame({"trial": [0, 0, 1, 2], "power_w": [NAN, 10.0, 8.0, 9.0]})
    info = TrainingCurvesInfo(curves, {0: "dense", 1: "mask", 2: "mask"})
    assert findings.training_curves_finding(info) == (
        "Mean power: 10 W in dense training, 8 to 9 W in the sparse trials drawn."
    )
    assert findings.training_curves_finding(TrainingCurvesInfo(curves[:0], {})) == ""


def test_kept_fractions(build):
    study = build.study(build.control(0.5, 1.0), build.sparse(0.9, 0.5))
    study.configs[1] = {"epochs": 2, "sparsity": {"estimator": "mask", "p0": 0.5}}
    text = findings.keep_fractions_finding(figures.keep_fractions_info(study, [1]))
    assert text == "Kept on average over the epochs: trial 1 (batch_slice) 50 %."


def test_slices_and_parallel(build):
    trials = [build.sparse(0.5 + n / 100, 1.0, sparsity__p0=n / 20, optimizer__lr=0.1 * (n % 2)) for n in range(1, 21)]
    study = build.study(*trials)
    assert findings.slices_finding(figures.slices_info(study)).startswith(
        "sparsity.p0 goes most with the accuracy: rank correlation +1.00 over 20 trials."
    )
    info = figures.parallel_info(study)
    assert findings.parallel_finding(info, study.objectives) == (
        "What the best 3 trials in val_accuracy have in common: sparsity.p0 0.9 to 1."
    )
    few = build.study(*trials[:4])
    assert findings.slices_finding(figures.slices_info(few)) == ""
    assert findings.parallel_finding(figures.parallel_info(few), few.objectives) == ""


def test_importance():
    table = pd.DataFrame({"val_accuracy": [0.7, 0.3], "kwh": [0.1, 0.9]}, index=["p0", "epochs"])
    text = "For val_accuracy, p0 matters most (70 %) and for kwh, epochs matters most (90 %)."
    assert findings.importance_finding(ImportanceInfo(table, {}, {}, None)) == text


def test_flops(build):
    work = {"epoch": 1.0, "device": "cpu"}
    study = build.study(
        build.control(0.9, 1.0, tflop=1.0, **work),
        build.trial("mask", val_accuracy=0.9, kwh=1.2, tflop=1.0, **work),
        build.trial("grid", val_accuracy=0.9, kwh=0.9, tflop=0.75, **work),
    )
    assert findings.flop_saving_finding(figures.flop_saving_info(study)) == (
        "mask leaves out 0 % of the FLOPs and saves -20 % of the energy of an epoch (1 trial); grid leaves out 25 % of "
        "the FLOPs and saves 10 % of the energy of an epoch (1 trial). mask saves no compute."
    )


def test_machine_bill():
    lines = pd.DataFrame({"measured": [2.0, 1.0], "modelled": [1.0, 0.0], "unknown": 0.0}, index=["trials", "idle"])
    assert findings.machine_bill_finding(MachineBillInfo(lines, True, None)) == (
        "Of 4.00 kWh, the machines' energy, 75 % is measured. It went to: trials 75 % and idle 25 %."
    )
    assert findings.machine_bill_finding(MachineBillInfo(lines[:0], False, "no")) == ""


def test_usage_is_weighed_by_time():
    rows = pd.DataFrame({"quantity": "cpu_busy", "start": [0.0, 1.0], "time": [1.0, 4.0], "value": [1.0, 0.2]})
    assert findings.usage_finding(UsageInfo(rows, 1)) == (
        "On average over the search: cores busy 40 %. Lines of the ledger that cannot be read: 1."
    )


def test_confusions():
    counts = np.array([[8, 2], [0, 0]])
    info = ConfusionInfo(["cat", "dog"], counts, counts / 10)
    assert findings.confusion_finding(info) == (
        "8 of 10 test images are classified correctly (80.00 %); the most frequent confusion is cat taken for dog "
        "(2 of 10)."
    )
    right = np.diag([1, 1])
    assert findings.confusion_finding(ConfusionInfo(["cat", "dog"], right, right)).endswith("(100.00 %).")
    assert findings.confusion_finding(ConfusionInfo(["cat"], np.zeros((1, 1), int), np.zeros((1, 1)))) == ""


def test_attainment(build):
    repeats = [build.study(build.sparse(0.9, 1.0)), build.study(build.sparse(0.8, 1.0))]
    assert findings.attainment_finding(figures.attainment_info(repeats)) == (
        "Of 2 repeats at least one reaches 90.00 %; what all of them reach ends at 80.00 %."
    )
    assert findings.attainment_finding(figures.attainment_info(repeats[:1])) == ""
