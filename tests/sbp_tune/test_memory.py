"""What does not fit is told as that, by allocations that are really refused."""

import pytest
import torch
from hungry import activations

from sbp_tune.config import ModelConfig, TrainConfig
from sbp_tune.errors import OutOfMemory, SbpTuneError
from sbp_tune.memory import is_out_of_memory, memory_gb
from sbp_tune.training import Training
from sbp_tune.vision import build_model


def config_of(batch_size):
    data = {"name": "digits", "subset": 128, "batch_size": batch_size}
    return TrainConfig.model_validate({"data": data, "model": {"name": "hungry:Hungry"}, "device": "cpu"})


def refused():
    torch.empty(2**50, dtype=torch.uint8)


def test_only_a_refused_allocation_is_one():
    with pytest.raises(RuntimeError) as error:
        refused()
    assert is_out_of_memory(error.value) and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(MemoryError) as plain:
        bytearray(2**62)
    assert is_out_of_memory(plain.value)
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2) @ torch.zeros(3)
    assert not is_out_of_memory(other.value) and not is_out_of_memory(OSError("not enough memory"))


def test_it_names_batch_size_and_peak_and_leaves_nothing_behind():
    training = Training(config_of(64))
    with pytest.raises(OutOfMemory) as error:
        training.run_epoch()
    total = f"{memory_gb(training.device):.1f}"
    assert str(error.value).startswith("out of memory at batch size 64: peak ")
    assert f" GB of {total} GB; a smaller data.batch_size" in str(error.value) and float(total) > 0
    assert isinstance(error.value, SbpTuneError) and error.value.__context__ is None
    assert not activations  # though the exception lives
    training.close("failed")
    fits = Training(config_of(16))  # whose validation, without gradients, sees 32 at once
    assert fits.run_epoch()["loss"] > 0
    fits.close()


def test_another_error_of_torch_stays_what_it_is(monkeypatch):
    training = Training(config_of(16))
    monkeypatch.setattr(training, "_backward", lambda losses: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        training.run_epoch()
    training.close("failed")


def test_building_a_network_too_large_is_no_matter_of_its_name(monkeypatch):
    monkeypatch.setattr("hungry.Hungry.forward", lambda self, x: refused())
    with pytest.raises(RuntimeError) as error:
        build_model(ModelConfig(name="hungry:Hungry"), 10, 1, 8)
    assert is_out_of_memory(error.value)
    with pytest.raises(OutOfMemory, match="out of memory at batch size 16"):
        Training(config_of(16))
