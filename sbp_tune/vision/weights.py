"""Weights of an earlier run as the start of another: fine-tuning."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from sbp_tune.errors import InputError

_NAMED = 3  # tensors named in a message


def load_weights(model: nn.Module, path: str, num_classes: int) -> None:
    """Copies the state_dict in `path` into the model; layers for another number of classes stay as they are new.

    path: model.pt of `sbp-tune train`, or any file that torch.save wrote of a state_dict. InputError where it
    cannot be read, or where a name or a shape does not fit.
    """
    state, own = _read(path), model.state_dict()
    # A head has one row for each class; with another number of rows it is of other classes.
    heads = {
        name
        for name, tensor in state.items()
        if name in own and own[name].shape != tensor.shape and own[name].shape[:1] == (num_classes,)
        if own[name].shape[1:] == tensor.shape[1:]
    }
    problems = {
        "lacks": own.keys() - state.keys(),
        "has, unknown to the model,": state.keys() - own.keys(),
        "has in another shape": {
            name for name in own.keys() & state.keys() if own[name].shape != state[name].shape and name not in heads
        },
    }
    lines = [f"model.weights: {path}: {what} {_listed(sorted(names))}" for what, names in problems.items() if names]
    if lines:
        raise InputError(lines)
    model.load_state_dict({name: own[name] if name in heads else tensor for name, tensor in state.items()})


def _read(path: str) -> dict[str, Tensor]:
    file = Path(path).expanduser()
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"model.weights: {path}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"model.weights: {path}: holds no state_dict; needs tensors by name")
    return state


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
