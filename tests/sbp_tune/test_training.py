import copy
import io
import math
import time

import numpy as np
import pytest
import torch

from sbp_tune.config import TrainConfig, plugin_names
from sbp_tune.energy.devices import cpu_name
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.numerics import resolve_device
from sbp_tune.training import Training


def config_of(**values):
    base = {
        "data": {"name": "digits", "subset": 256, "augment": "crop"},
        "model": {"args": {"width": 8}},
        "optimizer": {"lr": 0.1, "weight_decay": 5e-4},
        "epochs": 4,
        "cpu_threads": 1,
        "device": "cpu",
    }
    return TrainConfig.model_validate({**base, **values})


def run(training, epochs):
    return [training.run_epoch() for _ in range(epochs)]


def losses(rows):
    return [(row["loss"], row["val_loss"], row["val_accuracy"]) for row in rows]


SPARSE = {"estimator": "mask", "schedule": "linear", "p0": 0.5, "k": 0.1}


def test_one_seed_one_result():
    first, again = (losses(run(Training(config_of(sparsity=SPARSE)), 2)) for _ in range(2))
    assert first == again
    assert losses(run(Training(config_of(sparsity=SPARSE, seed=1)), 1)) != first[:1]


def test_it_learns_and_reports_every_column():
    training = Training(config_of(data={"name": "digits"}))
    start = time.perf_counter()
    rows = run(training, 4)
    wall, last = time.perf_counter() - start, rows[-1]
    assert last["val_accuracy"] > 0.9 and last["loss"] < rows[0]["loss"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["fully_trained"] for row in rows] == [False, False, False, True]
    assert last["kwh"] == pytest.approx(last["kwh_cpu"] + last["kwh_ram"]) and last["kwh_gpu"] is None
    assert 0 < rows[0]["kwh"] < rows[1]["kwh"] < last["kwh"]
    assert last["mean_power_w"] == pytest.approx(last["kwh"] * 3.6e6 / last["train_time_s"])
    assert rows[0]["train_time_s"] < rows[1]["train_time_s"] < last["train_time_s"] <= wall  # with what lies between
    assert sum(row["epoch_time_s"] for row in rows) <= wall and min(row["epoch_time_s"] for row in rows) > 0
    assert last["kwh_measured_share"] == 0 and last["co2_kg"] is None and last["device"] == cpu_name()
    assert last["tflop"] == pytest.approx(4 * rows[0]["tflop"])
    for name in ("f1", "precision", "recall", "roc_auc"):
        assert 0.9 < last[name] <= 1


def test_arms_share_initialisation_and_data_order():
    dense, sparse = Training(config_of()), Training(config_of(sparsity={**SPARSE, "p0": 1.0, "k": 0.0}))
    for mine, theirs in zip(dense.model.parameters(), sparse.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert losses(run(dense, 1)) == losses(run(sparse, 1))


def test_a_resumed_run_continues_bit_for_bit():
    config = config_of(sparsity=SPARSE, energy={"country": "IRL"}, early_stopping={"patience": 3})
    whole = Training(config)
    rows = run(whole, 2)
    buffer = io.BytesIO()
    torch.save(copy.deepcopy(whole.state_dict()), buffer)
    rows += run(whole, 2)
    buffer.seek(0)
    torch.rand(3)  # whatever else the process drew meanwhile
    resumed = Training(config)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    rest = run(resumed, 2)
    assert losses(rest) == losses(rows[2:])
    assert rest[-1]["tflop"] == rows[-1]["tflop"]
    assert rest[0]["kwh"] > rows[1]["kwh"] and rest[0]["co2_kg"] > rows[1]["co2_kg"]
    for mine, theirs in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_early_stopping_ends_a_run_that_no_longer_improves():
    training = Training(
        config_of(epochs=50, early_stopping={"metric": "val_accuracy", "patience": 2, "min_delta": 0.9})
    )
    rows = []
    while not training.finished:
        rows.append(training.run_epoch())
    assert len(rows) == 3 and rows[-1]["fully_trained"]


def test_a_run_that_diverges_is_an_error_with_the_epoch():
    training = Training(config_of(optimizer={"lr": 100.0, "momentum": 0.99, "weight_decay": 10.0}, epochs=20))
    rows = []
    with pytest.raises(SbpTuneError, match=r"diverged: the training loss was no longer a number in epoch \d+"):
        while not training.finished:
            rows.append(training.run_epoch())
    assert not math.isfinite(rows[-1]["loss"]) and not rows[-1]["fully_trained"]
    assert rows[-1]["kwh"] > rows[-2]["kwh"]  # what the lost epoch cost is told


def test_batches_of_one_image_are_trained_on():
    training = Training(config_of(data={"name": "digits", "subset": 32, "batch_size": 1}))
    before = [parameter.clone() for parameter in training.model.parameters()]
    row = training.run_epoch()
    assert row["loss"] > 0 and row["tflop"] > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, training.model.parameters(), strict=True))


def test_flops_are_not_claimed_where_products_run_outside_the_layers(tmp_path, monkeypatch):
    (tmp_path / "unusual_net.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n        super().__init__()\n"
        "        self.hidden = nn.Linear(64, 16)\n        self.out = nn.Parameter(torch.zeros(16, num_classes))\n\n"
        "    def forward(self, x):\n        return torch.relu(self.hidden(x.flatten(1))) @ self.out\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert run(Training(config_of(model={"name": "unusual_net:Net"})), 1)[0]["tflop"] is None
    assert run(Training(config_of()), 1)[0]["tflop"] > 0


def test_bf16_trains():
    assert run(Training(config_of(precision="bf16", data={"name": "digits"})), 2)[-1]["val_accuracy"] > 0.5


@pytest.mark.parametrize("estimator", ["dense", "mask", "channel_block"])
def test_channels_last_changes_only_rounding_and_resumes(estimator):
    config = {"sparsity": {"estimator": estimator, "p0": 0.5, "auto_dense": False}}
    plain = run(Training(config_of(**config, memory_format="contiguous")), 2)
    training = Training(config_of(**config, memory_format="channels_last"))
    formats = []
    training.model.register_forward_pre_hook(
        lambda _, inputs: formats.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    rows = run(training, 1)
    filters = [p for p in training.model.parameters() if p.dim() == 4]
    assert all(formats) and all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)
    resumed = Training(config_of(**config, memory_format="channels_last"))
    resumed.load_state_dict(copy.deepcopy(training.state_dict()))
    rows += run(training, 1)
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in plain], rel=0.02)
    assert losses(run(resumed, 1)) == losses(rows[1:])


def test_the_test_split_gives_metrics_and_a_confusion_matrix():
    training = Training(config_of())
    run(training, 1)
    metrics, confusion = training.test()
    assert set(metrics) >= {"test_accuracy", "test_f1", "test_roc_auc", "test_loss"}
    assert confusion.shape == (10, 10) and int(confusion.sum()) == len(training.data.test)
    assert metrics["test_accuracy"] == pytest.approx(confusion.diag().sum().item() / confusion.sum().item())


def test_a_last_batch_of_one_image_is_no_batch():
    subset = 64 + 1
    training = Training(config_of(data={"name": "digits", "subset": subset, "batch_size": 64}))
    assert math.isfinite(run(training, 1)[0]["loss"])


def test_the_learning_rate_and_the_keep_fraction_are_those_of_the_epoch():
    rows = run(Training(config_of(sparsity=SPARSE)), 4)
    assert [row["keep_fraction"] for row in rows] == pytest.approx([0.5, 0.4, 0.3, 0.2])
    assert [row["lr"] for row in rows] == pytest.approx(0.05 * (1 + np.cos(np.pi * np.arange(4) / 4)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_cuda_without_a_gpu():
    with pytest.raises(InputError, match="device: found cuda, but torch sees no GPU here; allowed: cpu, auto"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"


ESTIMATORS = plugin_names("sparsity/estimators")
# A choice by measured time differs from run to run; branches are what a residual network has.
BY_TIME = ("budget",)


def sparse_config(estimator):
    model = {"name": "resnet18", "stem": "cifar"} if estimator == "branch_drop" else {"args": {"width": 16}}
    sparsity = {"estimator": estimator, "schedule": "linear", "p0": 0.6, "k": 0.2, "auto_dense": False}
    return config_of(sparsity=sparsity, model=model, data={"name": "digits", "subset": 64, "batch_size": 16}, seed=3)


@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name not in BY_TIME])
def test_a_run_with_any_estimator_repeats_and_resumes_bit_for_bit(estimator):
    config = sparse_config(estimator)
    whole = Training(config)
    rows = [whole.run_epoch()]
    state = copy.deepcopy(whole.state_dict())
    rows += run(whole, 2)
    assert losses(run(Training(config), 3)) == losses(rows)
    resumed = Training(config)
    resumed.load_state_dict(state)
    assert losses(run(resumed, 2)) == losses(rows[1:])
    assert all(row["tflop"] > 0 for row in rows)


def test_branch_drop_says_that_a_network_has_no_branches():
    with pytest.raises(InputError, match="branch"):
        Training(config_of(sparsity={"estimator": "branch_drop", "p0": 0.5}))


def test_an_epoch_without_validation_trains_the_same() -> None:
    config = TrainConfig(epochs=2, data={"subset": 64}, model={"args": {"width": 4}})
    watched, quick = Training(config), Training(config)
    rows = [watched.run_epoch(), watched.run_epoch()]
    bare = [quick.run_epoch(validate=False), quick.run_epoch()]
    watched.close(), quick.close()
    assert "val_accuracy" not in bare[0] and [row["loss"] for row in bare] == [row["loss"] for row in rows]
    assert bare[1]["val_accuracy"] == rows[1]["val_accuracy"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_no_step_waits_for_the_gpu_wherever_the_images_lie(share, monkeypatch):
    monkeypatch.setattr("sbp_tune.training._RESIDENT_SHARE", share)
    training = Training(config_of(device="cuda", data={"name": "digits", "subset": 256, "augment": "crop_flip"}))
    assert training.train_split.images.is_cuda == (share > 0)
    run(training, 1)
    batch, augmenting = torch.arange(64), torch.Generator("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            x, y = training._batch(batch, augmenting)
            training._backward(training._forward(x, y))
            training._update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("estimator", ["dense", "mask", "channel_block", "layer"])
def test_a_fused_update_is_the_same_update(name, estimator):
    sparsity = {"estimator": estimator, "p0": 0.5, "auto_dense": False}
    optimizer = {"name": name, "lr": 0.05 if name == "sgd" else 1e-3, "weight_decay": 5e-4}
    runs = [Training(config_of(sparsity=sparsity, optimizer={**optimizer, "fused": fused})) for fused in (False, True)]
    assert [run.optimizer.defaults["fused"] for run in runs] == [None, True]
    plain, fused = (run(training, 2) for training in runs)
    assert [row["loss"] for row in plain] == pytest.approx([row["loss"] for row in fused], rel=1e-3)
    for training in runs:
        training.close()


@pytest.mark.slow  # the compiler takes most of a minute
@pytest.mark.parametrize("sparsity", [{}, {**SPARSE}, {"estimator": "batch_slice", "p0": 0.5, "auto_dense": False}])
def test_a_compiled_run_is_the_same_run_and_resumes_bit_for_bit(sparsity):
    config = config_of(sparsity=sparsity, compile=True)
    whole, eager = Training(config), Training(config_of(sparsity=sparsity))
    rows, plain = run(whole, 3), run(eager, 3)
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in plain], rel=2e-2)
    assert [row["tflop"] for row in rows] == [row["tflop"] for row in plain]
    first = Training(config)
    run(first, 1)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    resumed = Training(config)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    assert losses(run(resumed, 2)) == losses(rows[1:])
    assert all(key.startswith("_orig_mod") is False for key in resumed.model.state_dict())
