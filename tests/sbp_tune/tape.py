"""A stand-in for a CUDA graph on a CPU: what a capture keeps, and what it forgets, is the same.

A capture of the stand-in notes each of torch's operators with the very tensors that it read and wrote, and takes back
what it changed; a replay runs those operators on those tensors again. So, as in a CUDA graph, memory is fixed, a
decision of Python is frozen, and what Python notes at the side does not happen again. Asking a tensor for its value is
an error, as on a GPU.
"""

from contextlib import nullcontext
from weakref import WeakSet

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

_ASKS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "_unique2", "masked_select"}
_UNSAID = {"running_mean", "running_var"}  # written by native_batch_norm, whose schema does not say so


class Tape(TorchDispatchMode):
    """The operators of one capture."""

    def __init__(self):
        super().__init__()
        self._calls = []
        self._before = {}  # what was written over: tensor and contents by address

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs, schema = kwargs or {}, operator._schema
        if schema.name.removeprefix("aten::") in _ASKS:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        given = [*args, *(kwargs.get(argument.name) for argument in schema.arguments[len(args) :])]
        for argument, value in zip(schema.arguments, given, strict=True):
            written = argument.name in _UNSAID or (argument.alias_info and argument.alias_info.is_write)
            if written and isinstance(value, torch.Tensor):
                self._before.setdefault((value.data_ptr(), value.numel()), (value.data, value.detach().clone()))
        outputs = operator(*args, **kwargs)
        # `.data`: a graph writes into memory, of which autograd's version counters know nothing.
        fixed = tree_map_only(torch.Tensor, lambda tensor: tensor.data, (args, kwargs))
        self._calls.append((operator, *fixed, _new(schema, outputs)))
        return outputs

    def undo(self):
        for tensor, contents in self._before.values():
            tensor.copy_(contents)

    @torch.no_grad()
    def replay(self):
        for operator, args, kwargs, made in self._calls:
            for target, source in zip(made, _new(operator._schema, operator(*args, **kwargs)), strict=True):
                target.copy_(source)


def _new(schema, outputs):
    """The tensors that an operator has made, and not only changed or viewed."""
    if len(schema.returns) == 1:
        outputs = (outputs,)
    fresh = [out for out, returned in zip(outputs, schema.returns, strict=True) if not returned.alias_info]
    return [tensor.data for tensor in tree_leaves(fresh) if isinstance(tensor, torch.Tensor)]


class TapeRecorder:
    """Takes the place of `GpuRecorder`."""

    def __init__(self):
        self.forget()

    def active(self):
        return nullcontext()

    def forget(self):
        self._is_used, self._tapes = False, WeakSet()

    def capture(self, work):
        assert self._tapes or not self._is_used, "a pool without graphs takes no others"
        tape, drawn = Tape(), torch.get_rng_state()
        with tape:
            work()
        tape.undo()
        self._is_used = True
        self._tapes.add(tape)
        torch.set_rng_state(drawn)
        return tape.replay
