"""What every trainable must do. A new one is tested by standing in this list."""

import math
import time

import pytest
import torch

from sbp_tune.config import TrainConfig
from sbp_tune.errors import InputError
from sbp_tune.study.preflight import load_trainable

TRAINABLES = ["trainables.sparse_backprop:SparseBackprop", "trainables.replay:Replay"]
TRAINING = TRAINABLES[:1]  # those that need the data and the network


def config_of(**values):
    base = {"data": {"subset": 256}, "model": {"args": {"width": 4}}, "epochs": 3, "cpu_threads": 1, "device": "cpu"}
    return TrainConfig.model_validate({**base, **values}).model_dump(mode="json")


@pytest.fixture(params=TRAINABLES)
def trainable(request):
    return load_trainable(request.param)


def finish(trial):
    rows = [trial.train()]
    while not rows[-1]["done"]:
        rows.append(trial.train())
    return rows


def test_a_step_is_an_epoch_with_the_objectives_and_an_end(trainable):
    rows = finish(trainable(config_of()))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["fully_trained"] for row in rows] == [False, False, True]
    assert all(math.isfinite(row["val_accuracy"]) and row["kwh"] > 0 for row in rows)


def test_the_last_result_holds_the_test_metrics_where_they_are_asked_for(trainable):
    plain, tested = finish(trainable(config_of())), finish(trainable({**config_of(), "test": True}))
    names = {f"test_{name}" for name in ("accuracy", "f1", "precision", "recall", "roc_auc", "loss")}
    assert set(tested[-1]) - set(plain[-1]) == names
    assert set(tested[0]) == set(plain[0]) and not any(name.startswith("test_") for name in plain[-1])
    assert all(0 <= tested[-1][name] <= 1 for name in names - {"test_loss"})
    assert tested[-1]["test_accuracy"] != tested[-1]["val_accuracy"]
    assert [row["loss"] for row in tested] == [row["loss"] for row in plain]  # the training is the same


def test_rows_have_the_same_columns(trainable):
    real = finish(load_trainable(TRAINABLES[0])(config_of(epochs=1, energy={"country": "IRL"})))
    (row,) = finish(trainable(config_of(epochs=1, energy={"country": "IRL"})))
    assert set(row) == set(real[0])
    assert row["kwh"] == pytest.approx(sum(row[f"kwh_{name}"] or 0 for name in ("gpu", "cpu", "ram")))
    assert row["co2_kg"] > 0 and row["device"] != "" and 0 <= row["kwh_measured_share"] <= 1


def test_a_restored_trial_continues(trainable, tmp_path):
    whole = trainable(config_of())
    rows = [whole.train()]
    whole.save(str(tmp_path))
    rows += [whole.train(), whole.train()]
    other = trainable(config_of())
    other.restore(str(tmp_path))
    continued = [other.train(), other.train()]
    for mine, theirs in zip(continued, rows[1:], strict=True):
        for name in ("epoch", "loss", "val_accuracy", "tflop", "done"):
            assert mine[name] == theirs[name]
    assert continued[0]["kwh"] > rows[0]["kwh"]


def test_an_attempt_goes_on_from_the_newest_checkpoint_that_is_whole(trainable, tmp_path):
    first = trainable(config_of())
    for index in range(2):
        first.train()
        first.save(str(tmp_path / f"checkpoint_{index}"))
    last = first.train()
    (cut,) = (file for file in (tmp_path / "checkpoint_1").iterdir() if not file.name.startswith("."))
    checkpoints = [str(tmp_path / f"checkpoint_{index}") for index in (1, 0)]
    whole = trainable({**config_of(), "resume_from": checkpoints})
    assert (row := whole.train())["epoch"] == 3 and row["loss"] == last["loss"]
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with pytest.warns(UserWarning, match="cannot be read, going on from an older one"):
        row = trainable({**config_of(), "resume_from": checkpoints}).train()
    assert row["epoch"] == 2


def test_a_checkpoint_of_another_network_is_an_error(trainable, tmp_path):
    first = trainable(config_of())
    first.train()
    first.save(str(tmp_path))
    other = trainable({**config_of(model={"args": {"width": 8}}), "resume_from": [str(tmp_path)]})
    with pytest.raises(RuntimeError, match=r"size mismatch|another network"):
        other.train()


def test_a_reused_process_gives_what_a_fresh_one_gives(trainable):
    fresh = finish(trainable(config_of(seed=7)))
    reused = trainable(config_of(epochs=40))  # which take longer than all that follows
    earlier = finish(reused)
    start = time.perf_counter()
    assert reused.reset(config_of(seed=7))
    again = finish(reused)
    assert [row["loss"] for row in again] == [row["loss"] for row in fresh]
    assert again[0]["epoch"] == 1
    if type(reused).__name__ == "Replay":  # in simulated time
        assert again[0]["kwh"] < earlier[-1]["kwh"]
    else:  # not by its energy: a moment in which the machine did something else can cost more than 40 epochs
        assert again[-1]["train_time_s"] <= time.perf_counter() - start
    reused.stop()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"model": {"name": "resnet19"}}, "resnet19"),
        ({"data": {"name": "image_folder", "root": "/nowhere"}}, "/nowhere"),
        ({"model": {"name": "alexnet"}}, "alexnet"),
        pytest.param(
            {"device": "cuda"}, "no GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
        ),
    ],
)
@pytest.mark.parametrize("name", TRAINING)
def test_unusable_input_is_found_before_training(name, values, problem):
    with pytest.raises(InputError, match=problem):
        load_trainable(name).check_input(config_of(**values))


def test_a_place_that_is_in_no_table_is_found_before_training(trainable):
    with pytest.raises(InputError, match="IRE"):
        trainable.check_input(config_of(energy={"country": "IRE"}))


def test_usable_input_passes(trainable):
    trainable.check_input(config_of(energy={"country": "IRL"}))
