import json
import math
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sbp_tune.config import TrainConfig
from sbp_tune.study.epochs import append_row
from sbp_tune.study.lock import only_writer
from sbp_tune.study.results import load_study
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.settle import outcome
from sbp_tune.study.storage import create_study, number_of, open_study

OBJECTIVES = {"val_accuracy": "max", "kwh": "min"}
DONE = {"val_accuracy": 0.9, "kwh": 1e-6, "fully_trained": True}


@pytest.fixture
def start(tmp_path, make_study):
    """start(*replacements) -> (study, directory, searcher), as `search` starts one."""

    def begin(*replacements):
        study = make_study(*replacements)
        enqueue_fixed_points(create_study(tmp_path, study.file.name, study.objectives, {}), study)
        return study, tmp_path, OptunaSearcher(study, tmp_path)

    return begin


def states(path):
    return [trial.state for trial in open_study(path).get_trials()]


def run_all(searcher, result=DONE):
    configs = []
    while (config := searcher.suggest(f"t{len(configs)}")) != Searcher.FINISHED:
        configs.append(config)
        searcher.on_trial_complete(f"t{len(configs) - 1}", result)
    return configs


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_baselines_come_first_then_exactly_so_many_proposals(start, sampler):
    study, path, searcher = start(("{trials: 6}", f"{{trials: 6, sampler: {sampler}}}"))
    configs = run_all(searcher)
    assert len(configs) == study.total_trials == 8
    assert [config["sparsity"]["estimator"] for config in configs[:3]] == ["dense", "dense", "mask"]
    assert [config["epochs"] for config in configs[:2]] == [8, 2]
    assert configs[0]["optimizer"]["lr"] == pytest.approx(0.1) and configs[1]["optimizer"]["lr"] == 0.5
    for number, config in enumerate(configs):
        assert config.pop("lease") == {"folder": str(path / "energy"), "trial": str(number), "attempt": 0}
        assert TrainConfig.model_validate(config).model_dump(mode="json") == config  # complete
    assert states(path) == [TrialState.COMPLETE] * 8


def test_the_sampler_learns_of_a_baseline_what_lies_in_the_space(start):
    _, path, searcher = start()
    run_all(searcher)
    baseline = open_study(path).get_trials()[0]
    assert baseline.params == pytest.approx({"optimizer.lr": 0.1, "epochs": 8, "seed": 1})
    assert baseline.values == [0.9, 1e-6]


def test_a_restarted_searcher_proposes_only_what_is_left(start):
    study, path, searcher = start()
    for name in ("a", "b", "c"):
        searcher.suggest(name)
        searcher.on_trial_complete(name, DONE)
    assert len(run_all(OptunaSearcher(study, path))) == study.total_trials - 3
    assert sum("baseline" in trial.user_attrs for trial in open_study(path).get_trials()) == 2


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (DONE, (TrialState.COMPLETE, [0.9, 1e-6], None)),
        ({**DONE, "fully_trained": False}, (TrialState.PRUNED, None, None)),
        (None, (TrialState.PRUNED, None, None)),
        ({**DONE, "val_accuracy": math.nan}, (TrialState.FAIL, None, "val_accuracy is nan")),
        ({**DONE, "kwh": 0.0}, (TrialState.FAIL, None, "no energy was measured (kwh is 0)")),
        ({**DONE, "kwh": None}, (TrialState.FAIL, None, "kwh is None")),
        ({"kwh": 1.0, "fully_trained": True}, (TrialState.FAIL, None, "val_accuracy is None")),
    ],
)
def test_only_a_fully_trained_trial_with_finite_objectives_is_complete(result, expected):
    assert outcome(result, OBJECTIVES) == expected


def test_no_ending_leaves_a_trial_running(start):
    _, path, searcher = start()
    for name, result in {"nan": {**DONE, "kwh": math.nan}, "stopped": {"val_accuracy": 0.1}, "none": None}.items():
        searcher.suggest(name)
        searcher.on_trial_complete(name, result)
    assert states(path)[:3] == [TrialState.FAIL, TrialState.PRUNED, TrialState.PRUNED]
    assert open_study(path).get_trials()[0].user_attrs["error"] == "kwh is nan"
    assert open_study(path).best_trials == []


@pytest.mark.parametrize("tie", [0.05, 0.2])
def test_energies_that_differ_by_less_than_a_tie_are_told_as_equal(tie, start):
    _, path, searcher = start(("{trials: 6}", f"{{trials: 6, tie: {tie}}}"))
    exact = [  # of one step, from its bottom to nearly its top
        (1 + tie) ** round(math.log(1e-6) / math.log1p(tie)) * factor for factor in (1.001, 1 + 0.9 * tie)
    ] + [4e-6]
    for name, kwh in zip("abc", exact, strict=True):
        searcher.suggest(name)
        searcher.on_trial_complete(name, {**DONE, "kwh": kwh})
    told = [trial.values for trial in open_study(path).get_trials()[:3]]
    assert told[0] == told[1] and told[2][1] > told[1][1]
    assert told[0][0] == 0.9  # an accuracy is no energy
    assert all(value[1] <= kwh < value[1] * (1 + tie) for value, kwh in zip(told, exact, strict=True))
    values = [trial.user_attrs["values"] for trial in open_study(path).get_trials()[:3]]
    assert values == [{"val_accuracy": 0.9, "kwh": kwh} for kwh in exact]


def test_without_ties_energies_are_told_as_they_are(start):
    _, path, searcher = start()
    searcher.suggest("a")
    searcher.on_trial_complete("a", DONE)
    trial = open_study(path).get_trials()[0]
    assert trial.values == [0.9, 1e-6] and "values" not in trial.user_attrs


def test_a_second_telling_changes_nothing(start):
    _, path, searcher = start()
    searcher.suggest("a")
    searcher.on_trial_complete("a", DONE)
    searcher.on_trial_complete("a", None)
    searcher.on_trial_complete("a", None, error=True)
    searcher.on_trial_complete("never heard of", DONE)
    assert states(path)[0] == TrialState.COMPLETE


def test_what_a_crash_left_unfinished_is_the_first_to_run_again(start):
    study, path, searcher = start()
    configs = {name: searcher.suggest(name) for name in ("done", "cut", "begun")}
    searcher.on_trial_complete("done", DONE)
    for checkpoint in ("checkpoint_000000", "checkpoint_000001"):
        (path / "ray" / "cut" / checkpoint).mkdir(parents=True)
    append_row(path, {"trial_id": "cut", "epoch": 1})
    again = OptunaSearcher(study, path)
    checkpoints = [str(path / "ray" / "cut" / name) for name in ("checkpoint_000001", "checkpoint_000000")]
    second = {name: {**config, "lease": {**config["lease"], "attempt": 1}} for name, config in configs.items()}
    cut = {**second["cut"], "lease": {**second["cut"]["lease"], "reported": 1}, "resume_from": checkpoints}
    assert again.suggest("cut-2") == cut
    assert again.suggest("begun-2") == second["begun"]  # no checkpoint yet
    assert number_of(open_study(path), "cut-2") == number_of(open_study(path), "cut") == 1
    for name in ("cut-2", "begun-2"):
        again.on_trial_complete(name, DONE)
    assert len(run_all(again)) == study.total_trials - 3
    assert states(path) == [TrialState.COMPLETE] * study.total_trials


def test_a_crash_between_asking_and_noting_loses_no_proposal(start):
    study, path, searcher = start()
    searcher.suggest("baseline")
    storage = open_study(path)
    storage.ask()  # the second baseline, asked for and not noted
    half = open_study(path).ask()
    half.suggest_categorical("sparsity.estimator", ["mask"])
    again = OptunaSearcher(study, path)
    configs = [again.suggest(name) for name in ("b", "second", "half")]
    assert [config["epochs"] for config in configs[:2]] == [8, 2]
    assert configs[2]["sparsity"]["estimator"] == "mask"
    for name in ("b", "second", "half"):
        again.on_trial_complete(name, DONE)
    assert len(run_all(again)) == study.total_trials - 3


def test_values_that_do_not_go_together_fail_that_trial_only(start):
    study, path, searcher = start(
        ("  seed: {int: [0, 3]}", "  lr_schedule: {warmup_epochs: {int: [0, 3]}}"),
        ("{choice: [2, 4, 8]}", "{choice: [8, 2, 4]}"),
        ("{trials: 6}", "{trials: 20}"),
    )
    finished = len(run_all(searcher))
    failed = [trial for trial in open_study(path).get_trials() if trial.state == TrialState.FAIL]
    assert failed and finished + len(failed) == study.total_trials
    assert "warmup_epochs" in failed[0].user_attrs["error"] and "must be below epochs" in failed[0].user_attrs["error"]
    assert load_study_trials(path) == study.total_trials


def load_study_trials(path):
    (path / "study.yaml").write_text(f"name: demo\nobjectives: {json.dumps(OBJECTIVES)}")
    return len(load_study(path).trials)


def test_a_restarted_sampler_does_not_draw_the_same_numbers_again(start):
    study, path, searcher = start(("{trials: 6}", "{trials: 6, sampler: random}"))
    drawn = []
    for index in range(study.total_trials):
        searcher = OptunaSearcher(study, path)
        drawn.append(searcher.suggest(f"t{index}"))
        searcher.on_trial_complete(f"t{index}", DONE)
    rates = [config["optimizer"]["lr"] for config in drawn]
    assert len(set(rates)) == len(rates)


def test_a_grid_is_enqueued_whole(start):
    study, _, searcher = start(("{choice: [2, 4, 8]}", "{grid: [2, 4, 8]}"), ("trials: 6", "trials: 2"))
    epochs = [config["epochs"] for config in run_all(searcher)]
    assert epochs == [8, 2, 2, 4, 8, 2, 4, 8]
    assert study.total_trials == 8


def test_results_of_a_study_in_every_state(start, study_text):
    _, path, searcher = start()
    (path / "study.yaml").write_text(f"{study_text}\nobjectives: {json.dumps(OBJECTIVES)}")
    for name in ("ok", "bad", "on"):
        searcher.suggest(name)
        rows = [{"epoch": epoch, "val_accuracy": 0.1 * epoch, "kwh": 1e-6 * epoch, "device": "cpu"} for epoch in (1, 2)]
        # An epoch run again after a resume comes later in the file; a crash leaves half a line.
        for row in [rows[1] | {"val_accuracy": 0.0}, *rows] if name == "ok" else rows[:1]:
            append_row(path, {**row, "trial_id": name})
        with (path / "epochs.jsonl").open("a") as log:
            log.write('{"trial_id": "' + name + '", "epoch": 3, "val')
    searcher.on_trial_complete("ok", DONE)
    searcher.on_trial_complete("bad", {**DONE, "kwh": math.nan})
    results = load_study(path)
    assert results.trials["state"].tolist() == ["complete", "failed", "interrupted"]
    with only_writer(path):
        assert load_study(path).trials["state"].tolist() == ["complete", "failed", "running"]
    assert results.trials["kind"].tolist() == ["baseline", "baseline", "search"]
    assert results.trials["epoch"].tolist() == [2, 1, 1]
    assert results.trials["val_accuracy"].tolist() == pytest.approx([0.2, 0.1, 0.1])
    assert results.trials["error"].isna().tolist() == [True, False, True]
    assert results.epochs[["trial", "epoch"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1], [2, 1]]
    assert results.config_of(0)["epochs"] == 8
    assert results.trials["config.epochs"].tolist()[:2] == [8, 2]
    assert len(results.trials) == 3  # the rest only waits


def test_as_many_run_as_the_nodes_hold_whatever_comes_and_goes(start):
    study, path, _ = start()
    nodes = SimpleNamespace(holds=2, avoids=[], room=lambda: nodes.holds, avoided=lambda: nodes.avoids)
    searcher = OptunaSearcher(study, path, nodes=nodes)
    assert searcher.set_max_concurrency(100)  # Ray leaves it to the searcher
    assert all(searcher.suggest(name) for name in ("a", "b")) and searcher.suggest("c") is None
    nodes.holds = 3  # one has joined
    assert searcher.suggest("c") and searcher.suggest("d") is None
    nodes.holds = 0  # all are lost
    for name in ("a", "b", "c"):
        searcher.on_trial_complete(name, DONE)
    assert searcher.suggest("d") is None
    nodes.holds, nodes.avoids = 8, ["0a1b"]
    rest = [searcher.suggest(f"t{number}") for number in range(5)]
    assert [config["lease"]["avoided"] for config in rest] == [["0a1b"]] * 5
    nodes.holds = 0
    assert searcher.suggest("e") is None  # some run
    for number in range(5):
        searcher.on_trial_complete(f"t{number}", DONE)
    assert searcher.suggest("e") == Searcher.FINISHED  # nothing is left that a node would be needed for


def test_a_closed_searcher_keeps_nobody_waiting(start):
    _, _, searcher = start()
    searcher.close()
    assert searcher.suggest("a") == Searcher.FINISHED
