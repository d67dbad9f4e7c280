"""What computes, and how: the device, and what `precision: auto` and `memory_format: auto` stand for on it.

Measured with dense ResNet-18 (CIFAR stem): on a CPU channels-last takes 0.75 to 0.92 of the time, and bfloat16 makes a
step 2.6 times as fast with AMX, but takes two to three times as long where the CPU has to imitate it. Nothing was
measured on a GPU: in single precision the layout stays as torch has it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sbp_tune.errors import InputError


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; InputError where cuda is asked and is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device: found cuda, but torch sees no GPU here; allowed: cpu, auto")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)


def set_kernels(tf32: bool | None, benchmark: bool) -> None:
    """Which kernels this process takes on a GPU, always deterministic ones: one seed, one result.

    tf32: whether products of float32 may be rounded to TF32; None: as torch has it, convolutions may, matrix products
    may not. benchmark: cuDNN times its kernels and takes the fastest. Of the whole process, which may serve one run
    after another: so every run says all of it.
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.conv.fp32_precision = "ieee" if tf32 is False else "tf32"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "tf32" if tf32 else "ieee"


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The forward pass of a model by torch.compile, in one graph for all sizes of a batch.

    With a graph for each size, a run that resumes would not compute by the same one. What was compiled before in this
    process, for the trials before, is dropped: beyond eight networks of one class torch compiles no more.
    """
    torch.compiler.reset()
    return torch.compile(model, dynamic=True)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 itself: AMX, AVX512-BF16 or ARM's BF16; a GPU from Ampere on."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16"))


def resolved_precision(name: str, device: torch.device) -> str:
    """fp32, bf16 or fp16; `auto` is bf16 where the device computes in it, else fp32."""
    if name != "auto":
        return name
    return "bf16" if computes_in_bf16(device) else "fp32"


def resolved_memory_format(name: str, device: torch.device, precision: str, model: nn.Module) -> torch.memory_format:
    """`auto` is channels-last on a CPU, and on a GPU in half precision, whose tensor cores want it.

    precision: a resolved one. model: one that oneDNN would train wrongly in channels-last gets the other.
    """
    if name == "auto":
        wants_contiguous = precision == "fp32" if device.type == "cuda" else _overruns_in_channels_last(model)
        name = "contiguous" if wants_contiguous else "channels_last"
    return torch.channels_last if name == "channels_last" else torch.contiguous_format


def _overruns_in_channels_last(model: nn.Module) -> bool:
    """Whether this CPU's grad_weight of some layer would write beyond its memory.

    oneDNN's AVX2 kernel does so for strided 1x1 convolutions of fewer input channels than the eight of a block:
    gradients are wrong, or the process hangs or dies (uxlfoundation/oneDNN#6035, in torch 2.15).
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and any(
        set(module.kernel_size) == {1} and max(module.stride) > 1 and module.in_channels // module.groups < 8
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    )
