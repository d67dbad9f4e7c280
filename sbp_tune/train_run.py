"""`sbp-tune train`: one config to its end, with files that keep it and a table on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from sbp_tune.config import TrainConfig, load_config
from sbp_tune.errors import InputError
from sbp_tune.files import write_atomic, write_text_atomic, yaml_text
from sbp_tune.profiling import ProfiledTraining
from sbp_tune.training import Training
from sbp_tune.units import readable_energy

_CHECKPOINT = "checkpoint.pt"


def train_run(
    config: TrainConfig,
    output: Path,
    resume: bool = False,
    console: Console | None = None,
    profile: bool = False,
) -> dict[str, Any]:
    """Trains, tests, and writes into `output`; the last epoch's row with the test metrics.

    Files: config.yaml, epochs.csv (a row per epoch), checkpoint.pt (after every epoch), at the end model.pt
    (state_dict), result.json and, with `profile`, profile.json (where the time of the second epoch went). InputError
    where `output` holds another run already.
    """
    console = console or Console()
    checkpoint = output / _CHECKPOINT
    if checkpoint.exists() and not resume:
        raise InputError(f"{output}: holds a run already; continue it with --resume, or give another -o")
    if checkpoint.exists() and load_config(output / "config.yaml") != config:
        raise InputError(f"{output}: holds a run of another config ({output / 'config.yaml'}); give another -o")
    training, rows = (ProfiledTraining if profile else Training)(config), []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=training.device)
        rows = state.pop("rows")
        training.load_state_dict(state)
    write_text_atomic(output / "config.yaml", yaml_text(config.model_dump(mode="json")))
    while not training.finished:
        row = training.run_epoch()
        rows.append(row)
        write_atomic(checkpoint, lambda file: torch.save({**training.state_dict(), "rows": rows}, file))
        write_atomic(output / "epochs.csv", lambda file: pd.DataFrame(rows).to_csv(file, index=False))
        figures = f"loss {row['loss']:.4f}  val_accuracy {100 * row['val_accuracy']:.2f} %"
        cost = f"{readable_energy(row['kwh'])}  {row['train_time_s']:.1f} s"
        console.print(f"epoch {row['epoch']}/{config.epochs}  {figures}  {cost}", highlight=False)
        found = training.profile if isinstance(training, ProfiledTraining) else None
        if found is not None and found.epoch == training.epoch:
            write_text_atomic(output / "profile.json", json.dumps(found.as_dict(), indent=2))
            console.print(found.table(), highlight=False)
    training.close()
    test, confusion = training.test()
    result = {**rows[-1], **test, "classes": list(training.data.classes), "confusion": confusion.tolist()}
    write_atomic(output / "model.pt", lambda file: torch.save(training.model.state_dict(), file))
    write_text_atomic(output / "result.json", json.dumps(result, indent=2))
    console.print(f"test_accuracy {100 * test['test_accuracy']:.2f} %; model and metrics in {output}", highlight=False)
    return result
