import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from sbp_tune import numerics
from sbp_tune.config import TrainConfig
from sbp_tune.numerics import computes_in_bf16, resolved_memory_format, resolved_precision, set_kernels
from sbp_tune.training import Training

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),  # bfloat16 would be imitated
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"architecture": "aarch64", "bf16": True}, "bf16"),
        ({}, "fp32"),
    ],
)
def test_auto_is_bf16_where_the_cpu_computes_in_it(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolved_precision("auto", CPU) == expected
    assert [resolved_precision(name, CPU) for name in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_is_bf16_on_a_gpu_from_ampere_on(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolved_precision("auto", GPU) == expected


@pytest.mark.parametrize(
    ("name", "device", "precision", "expected"),
    [
        ("auto", CPU, "fp32", torch.channels_last),
        ("auto", GPU, "fp32", torch.contiguous_format),
        ("auto", GPU, "bf16", torch.channels_last),
        ("contiguous", CPU, "bf16", torch.contiguous_format),
        ("channels_last", GPU, "fp32", torch.channels_last),
    ],
)
def test_layouts(name, device, precision, expected):
    assert resolved_memory_format(name, device, precision, nn.Linear(1, 1)) is expected


def test_a_run_is_the_one_with_what_auto_stands_for():
    base = {"data": {"name": "digits", "subset": 64}, "model": {"args": {"width": 4}}, "device": "cpu", "epochs": 1}
    auto = Training(TrainConfig.model_validate({**base, "precision": "auto"}))
    assert auto.precision == ("bf16" if computes_in_bf16(CPU) else "fp32")
    written = Training(
        TrainConfig.model_validate({**base, "precision": auto.precision, "memory_format": "channels_last"})
    )
    assert auto.run_epoch()["loss"] == written.run_epoch()["loss"]
    auto.close(), written.close()
    assert (
        numerics.resolved_memory_format(TrainConfig().memory_format, CPU, "fp32", nn.Linear(1, 1))
        is torch.channels_last
    )


@pytest.mark.parametrize(
    ("tf32", "convolutions", "products"), [(None, "tf32", "ieee"), (True, "tf32", "tf32"), (False, "ieee", "ieee")]
)
@pytest.mark.parametrize("benchmark", [False, True])
def test_every_run_says_all_of_the_kernels_of_its_process(tf32, convolutions, products, benchmark):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    try:
        set_kernels(not tf32, not benchmark)  # a run before it, in the same process
        set_kernels(tf32, benchmark)
        assert (cudnn.conv.fp32_precision, matmul.fp32_precision) == (convolutions, products)
        assert cudnn.benchmark is benchmark and cudnn.deterministic
    finally:
        set_kernels(None, False)


def test_a_run_without_a_word_of_it_computes_as_torch_does():
    script = "import torch; print(torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "True False\n"
    set_kernels(None, False)
    assert torch.backends.cudnn.conv.fp32_precision == "tf32" and torch.backends.cuda.matmul.fp32_precision == "ieee"


@pytest.mark.parametrize(
    ("capability", "channels", "stride", "expected"),
    [
        ("AVX2", 4, 2, torch.contiguous_format),
        ("AVX2", 8, 2, torch.channels_last),
        ("AVX2", 4, 1, torch.channels_last),
        ("AVX512", 4, 2, torch.channels_last),
    ],
)
def test_a_network_that_onednn_trains_wrongly_in_channels_last_stays_contiguous(
    capability, channels, stride, expected, monkeypatch
):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    model = nn.Sequential(nn.Conv2d(channels, 8, 1, stride=stride))
    assert resolved_memory_format("auto", CPU, "fp32", model) is expected
    assert resolved_memory_format("channels_last", CPU, "fp32", model) is torch.channels_last


def test_a_narrow_network_trains_on_this_cpu():
    model = {"name": "small_resnet", "args": {"width": 4}}
    data = {"name": "digits", "subset": 128}
    training = Training(TrainConfig.model_validate({"model": model, "data": data, "device": "cpu", "epochs": 2}))
    assert all(math.isfinite(training.run_epoch()["loss"]) for _ in range(2))
