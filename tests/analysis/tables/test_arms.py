"""Arms of small studies, worked out by hand."""

import math
from dataclasses import replace

import pytest

from analysis.tables.arms import METRICS, arms_info, factor_keys

NAN = math.nan
NET = {"model__name": "resnet18", "data__name": "cifar10"}


def run(build, estimator="mask", accuracy=0.9, kwh=1.0, seed=0, **values):
    return build.trial(estimator, val_accuracy=accuracy, kwh=kwh, seed=seed, **{**NET, **values})


def with_grid(study, **config):
    return replace(study, study={**study.study, "config": config})


def confirmation(study, points):
    """As `load_study` gives the confirmation of a study; points: of each run the trial that it repeats."""
    return replace(study, study={**study.study, "confirm": {"runs": [{"point": str(point)} for point in points]}})


def test_mean_and_standard_error_over_seeds(build):
    study = build.study(
        run(build, accuracy=0.80, kwh=1.0, seed=0, f1=0.7, train_time_s=60.0),
        run(build, accuracy=0.90, kwh=3.0, seed=1, f1=0.8, train_time_s=NAN),
    )
    row = arms_info(study).rows.iloc[0]
    assert (row["runs"], row["split"], row["strategy"]) == (2, "validation", "mask")
    assert (row["accuracy"], row["accuracy_se"]) == (pytest.approx(0.85), pytest.approx(0.05))
    assert (row["kwh"], row["kwh_se"], row["f1_se"]) == (2.0, pytest.approx(1.0), pytest.approx(0.05))
    assert row["train_time_s"] == 60 and math.isnan(row["train_time_s_se"])  # one of two was recorded
    assert math.isnan(row["roc_auc"]) and math.isnan(row["saved"])


def test_one_run_has_no_error_and_runs_of_one_seed_count_once(build):
    assert math.isnan(arms_info(build.study(run(build))).rows["accuracy_se"][0])
    same = build.study(*(run(build, accuracy=accuracy, seed=0) for accuracy in (0.7, 0.9)))
    row = arms_info(same).rows.iloc[0]
    assert (row["runs"], row["accuracy"]) == (1, pytest.approx(0.8)) and math.isnan(row["accuracy_se"])


def test_seeds_of_several_studies_are_repeats_of_one_config(build):
    studies = [build.study(run(build, kwh=kwh, seed=seed), name=f"s{seed}") for seed, kwh in enumerate((1.0, 2.0, 3.0))]
    rows = arms_info(*studies).rows
    assert rows["runs"].tolist() == [3] and rows["kwh_se"][0] == pytest.approx(1 / math.sqrt(3))


def test_trials_without_a_seed_are_not_taken_for_one(build):
    trials = [build.trial("mask", val_accuracy=accuracy) for accuracy in (0.8, 0.9)]
    row = arms_info(build.study(*trials)).rows.iloc[0]
    assert (row["model"], row["data"], row["runs"]) == ("demo", "", 2)


def test_what_was_searched_is_shown_by_its_best_config_and_of_ties_the_cheaper(build):
    study = build.study(
        run(build, accuracy=0.9, kwh=3.0, optimizer__lr=0.1),
        run(build, accuracy=0.9, kwh=2.0, optimizer__lr=0.2),
        run(build, accuracy=0.8, kwh=1.0, optimizer__lr=0.3),
        run(build, accuracy=NAN, kwh=0.1, optimizer__lr=0.4),
        run(build, accuracy=0.99, kwh=0.1, optimizer__lr=0.5, state="stopped"),
    )
    info = arms_info(study)
    assert info.rows[["kwh", "configs", "trial"]].values.tolist() == [[2.0, 4, 1]]
    assert info.left_out == {"stopped": 1}


def test_a_grid_is_a_factor_of_which_each_value_is_shown(build):
    trials = [
        run(build, name, kwh=kwh, model__init=init)
        for name, kwh in (("dense", 2.0), ("mask", 1.0))
        for init in ("default", "he")
    ]
    study = build.study(*trials)
    assert arms_info(study).rows["others"].tolist() == ["", ""]  # searched: the best alone
    rows = arms_info(with_grid(study, model={"init": {"grid": ["default", "he"]}})).rows
    assert rows[["strategy", "others"]].values.tolist() == [
        *(["dense", "init default"], ["dense", "init he"]),
        *(["mask", "init default"], ["mask", "init he"]),
    ]
    assert rows["saved"].tolist()[2:] == [0.5, 0.5]


def test_strategies_are_told_apart_by_what_differs_between_them(build):
    sparsity = {"sparsity__schedule": "constant", "sparsity__state": "zero_grad"}
    steps = {"sparsity__schedule": "step", "sparsity__steps": {"10": 0.1}}
    trials = [
        run(build, "dense"),
        *(run(build, sparsity__p0=p, **sparsity) for p in (0.25, 0.1)),
        run(build, sparsity__p0=0.25, **{**sparsity, **steps}),
    ]
    rows = arms_info(with_grid(build.study(*trials), sparsity={"grid": [{}, {}]})).rows
    assert rows["strategy"].tolist() == [
        "dense",
        "mask, p = 0.25",
        "mask, p = 0.1",
        "mask step, p0 = 0.25, 0.1 from epoch 10",
    ]
    assert rows["p"].tolist()[:3] == [1.0, 0.25, 0.1] and math.isnan(rows["p"][3])


def test_factors_that_the_data_set_decides_are_not_said(build):
    cases = {"a": {"data": {"name": "cifar10"}, "epochs": 100}, "b": {"data.name": "flowers102", "epochs": 200}}
    trials = [run(build, epochs=100), run(build, epochs=200, data__name="flowers102")]
    study = build.study(*trials)
    study = replace(study, study={**study.study, "cases": cases})
    assert factor_keys(study.study) == ["data.name", "epochs"]
    assert arms_info(study).rows["others"].tolist() == ["", ""]


def test_networks_and_data_sets_come_as_they_ran_and_dense_first(build):
    trials = [run(build, model__name=model) for model in ("vgg19", "alexnet")]
    rows = arms_info(build.study(*trials, run(build, "dense", model__name="alexnet"))).rows
    assert rows[["model", "estimator"]].values.tolist() == [
        ["vgg19", "mask"],
        ["alexnet", "dense"],
        ["alexnet", "mask"],
    ]


def test_saved_by_the_seeds_that_both_have(build):
    study = build.study(
        *(run(build, "dense", kwh=kwh, seed=seed) for seed, kwh in ((0, 2.0), (1, 4.0))),
        *(run(build, "mask", kwh=kwh, seed=seed) for seed, kwh in ((0, 1.0), (1, 3.0), (2, 9.0))),
        *(run(build, "layer", kwh=kwh, seed=seed) for seed, kwh in ((5, 1.0), (6, 2.0))),
    )
    rows = arms_info(study).rows.set_index("estimator")
    assert (rows.loc["mask", "saved"], rows.loc["mask", "saved_se"]) == (pytest.approx(0.375), pytest.approx(0.125))
    assert rows.loc["layer", "saved"] == pytest.approx(0.5) and math.isnan(rows.loc["layer", "saved_se"])
    assert math.isnan(rows.loc["dense", "saved"])


@pytest.mark.parametrize("dense_kwh", [NAN, 0.0])
def test_no_saving_where_the_dense_energy_is_not_known(build, dense_kwh):
    rows = arms_info(build.study(run(build, "dense", kwh=dense_kwh), run(build, "mask"))).rows
    assert rows["saved"].isna().all()


def test_savings_are_within_one_kind_of_device(build):
    trials = [run(build, "dense", kwh=2.0, device="T4"), run(build, "mask", kwh=1.0, device="cpu")]
    assert arms_info(build.study(*trials)).rows["saved"].isna().all()


def test_a_confirmed_config_counts_by_its_fresh_seeds(build):
    best = {"optimizer__lr": 0.1}
    search = build.study(
        run(build, accuracy=0.95, kwh=1.0, **best), run(build, accuracy=0.90, kwh=0.5, optimizer__lr=0.2)
    )
    repeats = build.study(
        *(
            run(build, accuracy=0.5, test_accuracy=accuracy, kwh=3.0, seed=seed, **best)
            for seed, accuracy in ((7, 0.7), (8, 0.9))
        )
    )
    rows = arms_info(search, confirmation(repeats, [0, 0])).rows
    assert rows[["strategy", "runs", "split", "kwh", "confirmed"]].values.tolist() == [["mask", 2, "test", 3.0, True]]
    assert (rows["accuracy"][0], rows["accuracy_se"][0]) == (pytest.approx(0.8), pytest.approx(0.1))


def test_what_was_confirmed_besides_the_best_has_a_row_that_names_its_trial(build):
    search = build.study(run(build, accuracy=0.95, optimizer__lr=0.1), run(build, accuracy=0.9, optimizer__lr=0.2))
    repeats = build.study(run(build, accuracy=0.5, test_accuracy=0.99, seed=7, optimizer__lr=0.2))
    rows = arms_info(search, confirmation(repeats, [1])).rows
    assert rows[["strategy", "best", "accuracy"]].values.tolist() == [
        ["mask", True, 0.95],
        ["mask, trial 1", False, 0.99],
    ]


@pytest.mark.parametrize("trials", [[], ["running"], ["failed", "interrupted"]])
def test_nothing_finished(build, trials):
    info = arms_info(build.study(*(run(build, state=state) for state in trials)))
    assert info.rows.empty and set(METRICS) <= set(info.rows) and info.left_out == dict.fromkeys(trials, 1)


def test_every_p_is_an_arm(build):
    study = build.study(
        *(run(build, kwh=p, sparsity__p0=p, sparsity__schedule="constant") for p in (0.5, 0.25, 0.125)),
        run(build, sparsity__p0=0.5, sparsity__schedule="linear"),
    )
    assert arms_info(study).rows["p"].dropna().tolist() == [0.125]  # equal accuracy: the cheapest
    assert arms_info(study, every_p=True).rows["p"].dropna().tolist() == [0.5, 0.25, 0.125]
