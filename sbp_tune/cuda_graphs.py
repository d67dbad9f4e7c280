"""A step's forward and backward pass as CUDA graphs, launched whole: small images leave a GPU waiting for launches.

A graph repeats the kernels that it was captured with. What the host decides from step to step (the layers, the window
of the batch) is the name of a step, `SparsityHandle.graph_key`: each name has graphs of its own, and steps that have
none run eagerly. Data, selection and the update stay outside, so a step is the same step with and without graphs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sbp_tune.errors import SbpTuneError
from sbp_tune.memory import is_out_of_memory
from sbp_tune.sparsity import SparsityHandle
from sbp_tune.sparsity.handle import Counted

EAGER_STEPS = 2
"""Of a name before it is captured: cuDNN and `auto_dense` choose by trying; a name that never returns gains nothing."""

MOST_GRAPHS = 16
"""Names that are captured. The graphs share their memory, but for the gradients, which each holds for itself."""

Replay = Callable[[], object]


class Recorder(Protocol):
    """Where steps run, and how the work of one is captured."""

    def active(self) -> Any:
        """Context in which all steps of an epoch run, eager ones too."""

    def capture(self, work: Callable[[], None]) -> Replay:
        """Captures the kernels of the work without running them; what it gives runs them."""

    def forget(self) -> None:
        """All that was captured has been given up."""


class GpuRecorder:
    """CUDA graphs of one memory pool, captured on a stream of its own.

    Eager steps run on that stream too: autograd accumulates a gradient, and libraries keep their handles, by the stream
    of the first use, and a capture may wait for no other.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self.forget()

    @contextmanager
    def active(self) -> Iterator[None]:
        around = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(around)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            around.wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Replay:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            work()
        return graph.replay

    def forget(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()  # a pool without graphs takes no others


def recorder_for(device: torch.device) -> Recorder | None:
    """None where there is nothing to launch."""
    return GpuRecorder(device) if device.type == "cuda" else None


class _Pass(NamedTuple):
    """A captured pass: what runs it, and what it counts."""

    replay: Replay
    counted: Counted


@dataclass
class _Step:
    """The graphs of a name, with the tensors that they read and write."""

    x: Tensor
    y: Tensor
    losses: Tensor
    forward: _Pass
    backward: _Pass | None = None
    gradients: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)
    notes: Any = None  # of the estimator, in the backward pass


class StepGraphs:
    """`forward` and `backward` in the place of the eager ones, which they call where a step has no graphs.

    forward: from inputs [N, ...] and labels [N] the loss of each image [N]. backward: of these losses.
    """

    def __init__(
        self,
        forward: Callable[[Tensor, Tensor], Tensor],
        backward: Callable[[Tensor], None],
        model: nn.Module,
        sparsity: SparsityHandle,
        recorder: Recorder,
    ) -> None:
        self._eager_forward, self._eager_backward = forward, backward
        self._parameters = list(model.parameters())
        self._sparsity, self._recorder = sparsity, recorder
        self._steps: dict[Hashable, _Step] = {}
        self._met: Counter[Hashable] = Counter()
        self._fractions: Hashable = None
        self._current: _Step | None = None  # None: the present step is an eager one

    @property
    def captured(self) -> int:
        """How many names have graphs now."""
        return len(self._steps)

    def active(self) -> Any:
        """Context in which all steps of an epoch run."""
        return self._recorder.active()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Losses [N]; those of a captured step are overwritten by its next."""
        key = self._key(x)
        step = self._current = self._steps.get(key)
        if step is not None:
            step.x.copy_(x)
            step.y.copy_(y)
        elif self._is_due(key):
            step = self._current = self._steps[key] = self._captured(x, y)
        else:
            return self._eager_forward(x, y)
        self._run(step.forward)
        return step.losses

    def backward(self, losses: Tensor) -> None:
        """Gradients of the parameters. losses: what `forward` gave last."""
        step = self._current
        if step is None:
            self._eager_backward(losses)
            return
        if step.backward is None:
            step.backward = self._pass(lambda: self._eager_backward(step.losses))
            step.gradients = [
                (parameter, parameter.grad) for parameter in self._parameters if parameter.grad is not None
            ]
            step.notes = self._sparsity.estimator.notes()
            step.losses = step.losses.detach()  # nothing else of autograd's graph is needed again
        self._run(step.backward)
        for parameter, gradient in step.gradients:
            parameter.grad = gradient
        self._sparsity.estimator.take_notes(step.notes)

    def _key(self, x: Tensor) -> Hashable | None:
        """The name of the coming step. Fractions that have changed seldom come back: their graphs are given up."""
        fractions = (self._sparsity.keep_fraction, *self._sparsity.keep_fractions.values())
        if fractions != self._fractions:
            self._current = None
            self._steps.clear()
            self._met.clear()
            self._recorder.forget()
            self._fractions = fractions
        decided = self._sparsity.graph_key(len(x))
        return None if decided is None else (decided, x.shape)

    def _is_due(self, key: Hashable | None) -> bool:
        """Whether a step of a name without graphs is to be captured."""
        if key is None:
            return False
        self._met[key] += 1
        return self._met[key] > EAGER_STEPS and len(self._steps) < MOST_GRAPHS

    def _captured(self, x: Tensor, y: Tensor) -> _Step:
        x, y = x.clone(), y.clone()
        found: list[Tensor] = []
        forward = self._pass(lambda: found.append(self._eager_forward(x, y)))
        return _Step(x, y, found[0], forward)

    def _pass(self, work: Callable[[], None]) -> _Pass:
        with self._sparsity.capturing() as counted:
            try:
                replay = self._recorder.capture(work)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
                raise SbpTuneError(
                    f"cuda_graphs: found true, but a step cannot be captured ({reason}); allowed: false"
                ) from error
        return _Pass(replay, counted)

    def _run(self, captured: _Pass) -> None:
        captured.replay()
        self._sparsity.ran_again(captured.counted)
