"""A search that has run out of memory proposes nothing that needs no less."""

from types import SimpleNamespace

import pytest
from optuna.trial import TrialState
from ray import cloudpickle
from ray.tune.search import Searcher

from sbp_tune.config import TrainConfig
from sbp_tune.errors import OutOfMemory
from sbp_tune.files import parse_yaml
from sbp_tune.study.duplicates import needs_no_less
from sbp_tune.study.file import Study
from sbp_tune.study.recorder import Recorder
from sbp_tune.study.results import load_study
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study, number_of, open_study

DONE = {"val_accuracy": 0.9, "kwh": 1e-6, "fully_trained": True}
TEXT = """
name: demo
config:
  data: {{name: digits, batch_size: {{choice: [16, 32, 64, 128, 256]}}}}
  optimizer: {{lr: {lr}}}
baselines: [{{data.batch_size: 64}}]
search: {{trials: {trials}, sampler: {sampler}}}
"""


@pytest.fixture
def run(tmp_path, storage_in_memory):
    """run(sampler, trials, lr) -> batch sizes that ran, on a device that holds 32 images; the searcher."""

    def train(sampler, trials, lr="{log_uniform: [0.01, 1.0]}"):
        study = Study(parse_yaml(TEXT.format(sampler=sampler, trials=trials, lr=lr), "s.yaml"), "s.yaml")
        enqueue_fixed_points(create_study(tmp_path, study.file.name, study.objectives, {}), study)
        (tmp_path / "study.db").touch()
        (tmp_path / "study.yaml").write_text("name: demo\nobjectives: {val_accuracy: max, kwh: min}\n")
        searcher, ran = OptunaSearcher(study, tmp_path), []
        recorder = Recorder(study, tmp_path, stop=lambda: None)
        while (config := searcher.suggest(f"t{len(ran)}")) != Searcher.FINISHED:
            name, batch_size = f"t{len(ran)}", config["data"]["batch_size"]
            ran.append(batch_size)
            if batch_size <= 32:
                searcher.on_trial_complete(name, DONE)
                continue
            searcher.on_trial_complete(name, error=True)
            file = tmp_path / f"{name}.pkl"
            file.write_bytes(cloudpickle.dumps(OutOfMemory(f"out of memory at batch size {batch_size}: peak ...")))
            trial = str(number_of(open_study(tmp_path), name))
            recorder.on_trial_error(
                0, [], SimpleNamespace(trial_id=name, config={"lease": {"trial": trial}}, pickled_error_file=str(file))
            )
        return ran, searcher

    return train


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_no_larger_batch_is_tried_again(run, sampler, tmp_path):
    ran, _ = run(sampler, trials=24)
    assert ran[0] == 64 and len(ran) == 25  # the baseline, and so many proposals that ran
    assert set(ran[1:]) == {16, 32}
    trials = open_study(tmp_path).get_trials()
    assert trials[0].state == TrialState.FAIL
    assert trials[0].user_attrs["error"] == "out of memory at batch size 64: peak ..."
    left_out = [trial for trial in trials if "no_smaller_than" in trial.user_attrs]
    assert left_out and {trial.state for trial in left_out} == {TrialState.FAIL}
    assert left_out[0].user_attrs["error"] == "not tried: trial 0 ran out of memory, and this needs no less"
    assert len(load_study(tmp_path).trials) == 25


def test_it_ends_and_says_so_where_nothing_else_is_left(run):
    ran, searcher = run("random", trials=20, lr="0.1")
    assert sorted(ran) == [16, 32, 64]
    assert "nothing is left to propose" in searcher.ended_early and "do not fit into memory" in searcher.ended_early


def config_of(**values):
    base = {"data": {"batch_size": 64, "image_size": 32}, "sparsity": {"estimator": "mask", "p0": 0.5}}
    base = {name: {**section, **values.pop(name, {})} for name, section in base.items()}
    return TrainConfig.model_validate({**base, **values}).model_dump(mode="json")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"data": {"batch_size": 128}}, True),
        ({"data": {"batch_size": 32}}, False),
        ({"data": {"image_size": 64}}, True),
        ({"data": {"image_size": 16}}, False),
        ({"data": {"image_size": None}}, False),  # as stored: not known here
        ({"sparsity": {"p0": 0.9}}, True),
        ({"sparsity": {"p0": 0.4}}, False),  # perhaps it cuts the graph
        ({"sparsity": {"schedule": "linear", "k": 0.1}}, False),
        ({"sparsity": {"estimator": "grid"}}, False),
        ({"optimizer": {"lr": 0.5, "weight_decay": 0.1}, "seed": 3, "epochs": 7}, True),
        ({"optimizer": {"momentum": 0.5}}, True),
        ({"optimizer": {"momentum": 0.0}}, False),  # no buffer
        ({"optimizer": {"name": "adam"}}, False),
        ({"model": {"args": {"width": 8}}}, False),
        ({"precision": "bf16"}, False),
        ({"early_stopping": {"patience": 3}}, True),
    ],
)
def test_what_needs_no_less(changed, expected):
    assert needs_no_less(config_of(**changed), config_of()) is expected
