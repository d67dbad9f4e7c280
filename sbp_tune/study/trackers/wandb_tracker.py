"""Weights & Biases: a group named after the study in the project WANDB_PROJECT, a run a trial."""

from __future__ import annotations

import os

from sbp_tune.errors import InputError

_PROJECT = "sbp-tune"
_OFFLINE = ("offline", "dryrun", "disabled")


def check() -> None:
    """InputError where wandb is not installed, or has no key that its server takes, unless it is offline."""
    try:
        import wandb
    except ImportError as error:
        raise InputError(f"not installed ({error}): pip install 'sbp-tune[wandb]'") from error
    if os.environ.get("WANDB_MODE") in _OFFLINE:
        return
    ...
