"""Confirmations worked out by hand."""

import io
import math
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from analysis.conclusion import conclusion
from analysis.confirmed import (
    MEASURED,
    confirmed_points,
    confirmed_runs,
    interval,
    points_to_confirm,
    read_confirmed,
    write_confirmed,
)
from analysis.confirmed_table import confirmed_table, pairing, print_confirmed, sentences
from analysis.figures import pareto_front_info, plot_front
from analysis.report import write_report
from sbp_tune.errors import InputError
from sbp_tune.files import write_atomic

NAN = math.nan
SEEDS = (11, 12, 13)
T2 = 4.302653  # Student's t, 2 degrees of freedom, 97.5 %
CHEAP, FULL = [(1.0, 0.70), (1.0, 0.72), (1.0, 0.74)], [(3.0, 0.80), (3.0, 0.82), (3.0, 0.84)]  # dense halfway: .75 ...
LEADS = [(2.0, 0.77), (2.0, 0.78), (2.0, 0.81)]  # by .02, .01, .02


def runs_of(points, **changes):
    """Runs [(kwh, accuracy) by seed] of points by number; a run that is None has failed."""
    rows = [
        {
            "point": point,
            "seed": seed,
            "state": "failed" if run is None else "complete",
            "gpu_uuid": None,
            **dict.fromkeys(MEASURED, NAN),
            **({} if run is None else {"kwh": run[0], "test_accuracy": run[1], "val_accuracy": run[1] + 0.01}),
            **({} if run is None else {"train_time_s": 10 * run[0]}),
            **changes,
        }
        for point, of_seeds in points.items()
        for seed, run in zip(SEEDS, of_seeds, strict=False)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def study(build, tmp_path):
    """Two dense controls, 1 the cheaper, and two sparse trials."""
    trials = [
        *(build.control(0.82, 3.0, epochs=8), build.control(0.72, 1.0, epochs=4)),
        *(build.sparse(0.9, 2.0, epochs=8), build.sparse(0.5, 2.0, epochs=8)),
    ]
    return replace(build.study(*trials), path=tmp_path)


def row_of(study, points, trial=2):
    table = confirmed_points(study, runs_of(points))
    return table[table["trial"] == trial].iloc[0]


def test_interval():
    assert interval(pd.Series([1.0, 2.0, 6.0, NAN])) == pytest.approx(
        (3, 3.0, math.sqrt(7 / 3), 3 - T2 * math.sqrt(7 / 3), 3 + T2 * math.sqrt(7 / 3)), rel=1e-6
    )
    assert interval(pd.Series([4.0])) == pytest.approx((1, 4.0, NAN, NAN, NAN), nan_ok=True)
    assert interval(pd.Series([NAN])) == pytest.approx((0, NAN, NAN, NAN, NAN), nan_ok=True)
    assert interval(pd.Series([2.0, 2.0]))[1:] == (2, 0, 2, 2)


def test_lead_and_differences_are_paired_by_seed(study):
    row = row_of(study, {0: FULL, 1: CHEAP, 2: LEADS})
    se = 0.01 / math.sqrt(3) / math.sqrt(3)  # of .02, .01, .02
    lead = [row[f"lead_test_accuracy_{key}"] for key in ("mean", "se", "low", "high")]
    assert lead == pytest.approx([0.05 / 3, se, 0.05 / 3 - T2 * se, 0.05 / 3 + T2 * se], rel=1e-6)
    assert (row["verdict"], row["seeds"], row["failed"], row["dense"]) == ("above", 3, 0, 0)
    assert row["test_accuracy_mean"] == pytest.approx(2.36 / 3)
    assert row["vs_dense_test_accuracy_mean"] == pytest.approx(-0.1 / 3)  # -.03, -.04, -.03
    assert row["vs_dense_kwh_mean"] == -1 and row["vs_dense_train_time_s_high"] == pytest.approx(-10)
    assert row["kwh_change_mean"] == pytest.approx(-1 / 3) and row["kwh_change_se"] == pytest.approx(0)
    assert math.isnan(row["same_gpu"]) and "paired by seed alone" in pairing(row.to_frame().T)


def test_seeds_move_together_so_pairing_sees_what_plain_means_do_not(study):
    """The interval of the accuracy itself is wider than the lead: only the pairs tell."""
    row = row_of(study, {0: FULL, 1: CHEAP, 2: LEADS})
    assert row["test_accuracy_high"] - row["test_accuracy_low"] > 2 * row["lead_test_accuracy_mean"]
    assert row["lead_test_accuracy_low"] > 0


@pytest.mark.parametrize(
    ("runs", "verdict", "lead"),
    [
        ([(2.0, 0.73), (2.0, 0.75), (2.0, 0.77)], "below", -0.02),
        ([(2.0, 0.77), (2.0, 0.77), (2.0, 0.78)], "undecided", 0.01 / 3),
        ([(2.0, 0.90)], "undecided", 0.15),  # one seed has no interval
        ([(4.0, 0.90), (4.0, 0.92), (4.0, 0.94)], "no control", 0.10),  # more dense training might do it too
        ([(4.0, 0.70), (4.0, 0.72), (4.0, 0.74)], "below", -0.10),
        ([(0.5, 0.75), (0.5, 0.77), (0.5, 0.79)], "above", 0.05),  # better than dense of twice the energy
        ([(0.5, 0.60), (0.5, 0.62), (0.5, 0.64)], "no control", -0.10),
        ([(2.0, NAN), (2.0, NAN), (2.0, NAN)], "undecided", NAN),
    ],
)
def test_verdict(study, runs, verdict, lead):
    row = row_of(study, {0: FULL, 1: CHEAP, 2: runs})
    assert row["verdict"] == verdict
    assert row["lead_test_accuracy_mean"] == pytest.approx(lead, nan_ok=True)


def test_without_test_accuracy_the_validation_decides(study):
    runs = runs_of({0: FULL, 1: CHEAP, 2: LEADS}).assign(test_accuracy=NAN)
    row = confirmed_points(study, runs).set_index("trial").loc[2]
    assert row["verdict"] == "above" and math.isnan(row["lead_test_accuracy_mean"])
    assert "percentage points of val accuracy" in " ".join(sentences(confirmed_points(study, runs)))


def test_a_failed_run_and_one_that_is_missing_are_not_zero(study):
    row = row_of(study, {0: FULL, 1: [CHEAP[0], None], 2: [None, *LEADS[1:]]})
    assert (row["seeds"], row["failed"]) == (2, 1)
    # of seed 12 the full baseline alone is left: cheaper than it, and worse
    assert row["lead_test_accuracy_mean"] == pytest.approx((0.78 - 0.82 + 0.81 - 0.84) / 2)
    assert row["vs_dense_kwh_mean"] == -1


def test_the_full_baseline_is_the_control_of_most_epochs(build):
    study = build.study(build.control(0.7, 1.0, epochs=4), build.control(0.8, 3.0, epochs=8), build.sparse(0.9, 2.0))
    table = confirmed_points(study, runs_of({0: CHEAP, 1: FULL, 2: LEADS})).set_index("trial")
    assert table["dense"].tolist() == [1, 1, 1] and list(table.index) == [0, 1, 2]  # controls first, by energy
    assert table.loc[0, "vs_dense_kwh_mean"] == -2 and math.isnan(table.loc[1, "vs_dense_kwh_mean"])
    assert table["role"].tolist() == ["control", "control", "point"] and table["verdict"].tolist()[:2] == ["", ""]


def test_same_gpu_counts_seeds(study):
    runs = runs_of({0: FULL, 1: CHEAP, 2: LEADS})
    runs["gpu_uuid"] = ["A", "B", "A", *"AAA", "A", "A", "A"]
    table = confirmed_points(study, runs).set_index("trial")
    assert table["same_gpu"].to_dict() == {0: 3, 1: 2, 2: 2}
    assert pairing(table).startswith("2 runs had another GPU than their full dense baseline")
    assert "Every run had the very GPU" in pairing(table[1:2])


def test_sentences_say_above_only_beyond_the_interval(study):
    everything = {0: FULL, 1: CHEAP, 2: LEADS, 3: [(2.0, 0.73), (2.0, 0.75), (2.0, 0.77)]}
    text = " ".join(sentences(confirmed_points(study, runs_of(everything))))
    assert (
        "Of 2 confirmed sparse points, against dense training of equal energy: 1 above it by more than the interval, "
        "1 below it by more than the interval." in text
    )
    assert "trial 2 (batch_slice): +1.67 (+0.23 to +3.10) percentage points of test accuracy with 3 fresh seeds" in text
    assert "(trial 0): energy -33.3 % (-33.3 to -33.3), that accuracy -3.33 (-4.77 to -1.90) points" in text
    del everything[2]
    text = " ".join(sentences(confirmed_points(study, runs_of(everything))))
    assert "No confirmed sparse point lies above dense training of equal energy by more than its interval." in text
    assert sentences(confirmed_points(study, runs_of({0: FULL}))) == []


@pytest.fixture
def confirmed(study):
    """The study with its table of confirmed points on the disk, as `write_confirmed` leaves it."""
    table = confirmed_points(study, runs_of({0: FULL, 1: CHEAP, 2: LEADS}))
    write_atomic(study.path / "confirmed.parquet", lambda file: table.to_parquet(file))
    return study


def test_the_conclusion_says_what_is_confirmed(study, confirmed):
    text = " ".join(conclusion(confirmed))
    assert "The surest lead has trial 2" in text and "Each other point is one run with one seed." in text
    assert "not yet confirmed" not in text


def test_the_report_shows_confirmed_points(confirmed, tmp_path):
    text = write_report(confirmed, tmp_path / "report.html").read_text()
    assert "<h2>Confirmed points</h2>" in text and "confirmed test accuracy" in text
    assert "78.67 ± 5.17 %" in text and "+1.67 (+0.23 to +3.10)" in text


def test_the_figure_has_error_bars_in_its_own_units(confirmed):
    info = pareto_front_info(confirmed)
    assert info.confirmed["trial"].tolist() == [1, 0, 2] and info.confirmed["y"].tolist()[0] == pytest.approx(0.73)
    assert info.confirmed["x_half"].tolist() == [0, 0, 0]
    traces = {trace.name: trace for trace in plot_front(confirmed).data}
    sparse = traces["sparse, confirmed (95 %)"]
    assert list(sparse.x) == [2.0] and list(sparse.y) == pytest.approx([100 * (2.36 / 3 + 0.01)])
    half = 100 * T2 * math.sqrt(((0.77**2 + 0.78**2 + 0.81**2) - 2.36**2 / 3) / 2 / 3)
    assert list(sparse.error_y.array) == pytest.approx([half], rel=1e-5)
    assert len(traces["dense control, confirmed (95 %)"].x) == 2
    on_test = pareto_front_info(confirmed, y="test_accuracy")
    assert on_test.points.empty and on_test.confirmed["y"].tolist()[0] == pytest.approx(0.72)
    assert plot_front(confirmed, y="test_accuracy").data
    assert pareto_front_info(confirmed, y="f1").confirmed.empty


def test_nothing_confirmed_changes_nothing(study):
    assert confirmed_runs(study).empty and read_confirmed(study).empty
    assert write_confirmed(study).empty and read_confirmed(study).empty
    assert confirmed_table(read_confirmed(study)).empty
    assert "not yet confirmed" in " ".join(conclusion(study))
    assert not any("confirmed" in trace.name for trace in plot_front(study).data)
    write_report(study, study.path / "report.html")


def test_the_terminal_table(confirmed):
    console = Console(width=160, file=io.StringIO())
    print_confirmed(confirmed, console, interrupted=False)
    text = " ".join(console.file.getvalue().split())
    assert "batch_slice 78.67 ± 5.17 % 2.00 kWh ± 0.0 % +1.67 (+0.23 to +3.10) -33.3 %" in text and "above" in text
    assert "dense (control)" in text and "nan" not in text


@pytest.mark.parametrize(
    ("points", "expected"),
    [("front", [2]), ("knee", [2]), ("trial=3", [3]), ("trial=3,2, 3,0", [3, 2])],
)
def test_points_to_confirm(study, points, expected):
    assert points_to_confirm(study, points) == (expected, [0, 1])


@pytest.mark.parametrize(
    ("points", "problems"),
    [
        ("best", ["points: found 'best'; possible: front, knee, trial=ID[,ID]"]),
        ("knee=1", ["points: found 'knee=1'; possible: front, knee, trial=ID[,ID]"]),
        ("trial", ["points: found 'trial'; possible: front, knee, trial=ID[,ID]"]),
        (
            "trial=9,4,2",
            [
                "trial=9: no such trial; complete trials: 0, 1, 2, 3",
                "trial=4: this trial is failed; only a complete trial can be picked",
            ],
        ),
        ("trial=0", ["points: trial=0 means dense trials alone, and controls run in any case; others: 2, 3"]),
    ],
)
def test_points_that_cannot_be_confirmed(build, points, problems):
    trials = [build.control(0.82, 3.0), build.control(0.72, 1.0), build.sparse(0.9, 2.0), build.sparse(0.5, 2.0)]
    with pytest.raises(InputError) as error:
        points_to_confirm(build.study(*trials, build.sparse(0.5, 2.0, state="failed")), points)
    assert error.value.problems == problems


def test_of_proposed_dense_trials_those_on_the_control_curve_are_controls(build):
    proposed = [build.trial("dense", val_accuracy=accuracy, kwh=2.0) for accuracy in (0.85, 0.75)]
    study = build.study(build.control(0.9, 3.0), build.control(0.6, 2.5), *proposed, build.sparse(0.9, 2.0))
    assert points_to_confirm(study, "trial=4") == ([4], [0, 1, 2])
    with pytest.raises(InputError, match="trial=3 means dense trials alone, and controls run in any case; others: 4"):
        points_to_confirm(study, "trial=3")


def test_what_has_nothing_to_confirm(build):
    with pytest.raises(InputError, match="no complete dense control to compare with"):
        points_to_confirm(build.study(build.sparse(0.9, 2.0), build.control(0.9, 1.0, state="failed")), "front")
    with pytest.raises(InputError, match="front means dense trials alone"):
        points_to_confirm(build.study(build.control(0.9, 1.0), build.sparse(0.5, 2.0)), "front")
