"""Steps as graphs are the same steps: captured for real on a GPU, and on a CPU by a stand-in (`tape`)."""

import io

import pytest
import torch
from torch import nn

from sbp_tune.config import TrainConfig, check_config, plugin_names
from sbp_tune.cuda_graphs import MOST_GRAPHS
from sbp_tune.errors import InputError, OutOfMemory, SbpTuneError
from sbp_tune.training import Training
from tests.sbp_tune.tape import TapeRecorder

EAGER = {"grid", "variance"}
"""Estimators whose steps hardly repeat, or ask the device."""


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
)
def config_of(request, monkeypatch):
    """Makes configs with graphs; on a CPU the stand-in captures them."""
    if request.param == "cpu":
        monkeypatch.setattr("sbp_tune.training.recorder_for", lambda device: TapeRecorder())

    def config_of(**values):
        base = {
            "data": {"name": "digits", "subset": 320, "augment": "crop", "batch_size": 32},
            "model": {"name": "small_resnet", "args": {"width": 8}},
            "optimizer": {"lr": 0.05, "weight_decay": 5e-4},
            "epochs": 3,
            "cpu_threads": 1,
            "device": request.param,
            "cuda_graphs": True,
        }
        return TrainConfig.model_validate({**base, **values})

    return config_of


def both(config, epochs=2):
    """The run with graphs and the run without, and their rows."""
    runs = [Training(config), Training(config.model_copy(update={"cuda_graphs": False}))]
    return *runs, *([run.run_epoch() for _ in range(epochs)] for run in runs)


def told(rows):
    return [(row["loss"], row["val_loss"], row["val_accuracy"], row["tflop"]) for row in rows]


@pytest.mark.parametrize("estimator", plugin_names("sparsity/estimators"))
def test_steps_as_graphs_are_the_same_steps(estimator, config_of, monkeypatch):
    budget = "sbp_tune.sparsity.estimators.budget"  # chooses by measured times: here all take alike
    monkeypatch.setattr(f"{budget}.least_seconds", lambda *works, device: [1e-3] * len(works))
    monkeypatch.setattr(f"{budget}.Budget._time_next_step", lambda *_: None)
    sparsity = {"estimator": estimator, "p0": 0.5, "auto_dense": False}
    graphs, eager, mine, theirs = both(config_of(sparsity=sparsity))
    assert told(mine) == told(theirs)
    assert graphs.sparsity.executed_flops_by_layer == eager.sparsity.executed_flops_by_layer
    assert graphs.sparsity.flops_of_layer == eager.sparsity.flops_of_layer
    assert bool(graphs._graphs.captured) == (estimator not in EAGER)


@pytest.mark.parametrize(
    "sparsity",
    [
        {"estimator": "channel_block", "select": "norm", "p0": 0.5, "auto_dense": False},
        {"estimator": "channel_block", "reselect_every": 3, "p0": 0.5, "auto_dense": False},
        {"estimator": "channel_topk", "schedule": "linear", "p0": 0.5, "k": 0.1, "auto_dense": False},
        {"estimator": "layer", "reselect_every": "epoch", "select": "random", "scaled": True, "p0": 0.5},
        {"estimator": "mask", "scope": "global", "reselect_every": 2, "p0": 0.3},
        {"estimator": "batch_slice", "p0": 0.5, "state": "zero_grad", "auto_dense": False},
    ],
)
def test_in_every_setting(sparsity, config_of):
    config = config_of(sparsity=sparsity, optimizer={"name": "adamw", "lr": 1e-3})
    graphs, _, mine, theirs = both(config)
    assert told(mine) == told(theirs)
    assert graphs._graphs.captured


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("estimator", ["dense", "channel_topk"])
def test_in_half_precision(estimator, precision, config_of):
    config = config_of(sparsity={"estimator": estimator, "p0": 0.5, "auto_dense": False}, precision=precision)
    graphs, _, mine, theirs = both(config)
    assert told(mine) == told(theirs)
    assert graphs._graphs.captured


def test_random_numbers_inside_a_step_are_those_of_an_eager_one(config_of, monkeypatch):
    def with_dropout(*args):
        from sbp_tune.vision import build_model

        return nn.Sequential(build_model(*args), nn.Dropout(0.5))

    monkeypatch.setattr("sbp_tune.training.build_model", with_dropout)
    graphs, _, mine, theirs = both(config_of())
    assert told(mine) == told(theirs) and graphs._graphs.captured


def test_a_step_is_captured_after_those_that_measure(config_of):
    training = Training(config_of(sparsity={"estimator": "batch_slice", "p0": 0.25}))
    training.run_epoch()
    assert training._graphs.captured and training.sparsity.auto_dense.times


def test_a_run_resumes_bit_for_bit(config_of):
    config = config_of(sparsity={"estimator": "channel_block", "p0": 0.5, "auto_dense": False})
    whole, first, resumed = (Training(config) for _ in range(3))
    rows = [whole.run_epoch() for _ in range(3)]
    first.run_epoch()
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    assert told([resumed.run_epoch(), resumed.run_epoch()]) == told(rows[1:])


def test_what_hardly_repeats_fills_no_memory(config_of):
    sparsity = {"estimator": "channel_block", "select": "random", "block": 1, "p0": 0.5, "auto_dense": False}
    training = Training(config_of(sparsity=sparsity))
    training.run_epoch()
    assert training._graphs.captured <= MOST_GRAPHS
    training.close()
    assert training._graphs is None


def test_a_new_keep_fraction_gives_up_the_graphs_of_the_last(config_of):
    sparsity = {"estimator": "batch_slice", "schedule": "linear", "p0": 0.5, "k": 0.4, "auto_dense": False}
    training = Training(config_of(sparsity=sparsity))
    counts = [training.run_epoch() and training._graphs.captured for _ in range(3)]
    assert max(counts) <= 4, "those of one epoch, not of three"


def test_a_network_that_asks_the_device_cannot_be_captured(config_of, monkeypatch):
    class Asks(nn.Module):
        def forward(self, x):
            return x if x.detach().sum().item() < 1e9 else -x

    from sbp_tune.vision import build_model

    monkeypatch.setattr("sbp_tune.training.build_model", lambda *args: nn.Sequential(build_model(*args), Asks()))
    with pytest.raises(
        SbpTuneError, match=r"cuda_graphs: found true, but a step cannot be captured \(.*\); allowed: false"
    ):
        Training(config_of()).run_epoch()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDNN_STATUS_ALLOC_FAILED")]
)
def test_memory_that_is_refused_in_a_capture_is_said_to_be(error, config_of, monkeypatch):
    def refuse(self, work):
        raise error

    monkeypatch.setattr(TapeRecorder, "capture", refuse)
    with pytest.raises(OutOfMemory, match="out of memory at batch size 32"):
        Training(config_of(device="cpu")).run_epoch()


def test_a_compiled_network_has_no_graphs():
    with pytest.raises(InputError, match="cuda_graphs: found true with compile: true; allowed: one of the two"):
        check_config({"cuda_graphs": True, "compile": True}, source="config.yaml")


def test_on_a_cpu_there_is_nothing_to_launch():
    training = Training(TrainConfig.model_validate({"cuda_graphs": True, "device": "cpu", "data": {"name": "digits"}}))
    assert training._graphs is None
