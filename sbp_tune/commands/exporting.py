"""Commands that hand on what a study has found: export, compare, pack."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from sbp_tune.commands import (
    DEFAULT_RESULTS,
    DeviceOption,
    ResultsOption,
    StudyArgument,
    app,
    errors_as_lines,
    study_path,
)

# As in analysis.picks.RULES, which takes pandas to import.
_PICKS = """What to pick:

- [bold]knee[/]: the point of the front that bulges furthest towards the ideal
- [bold]max-accuracy[/]: the highest val_accuracy
- [bold]min-energy[/]: the least kWh on the front
- [bold]max-drop=1.0[/]: the least kWh at most so many percentage points of val_accuracy below the best dense control
- [bold]budget=0.3[/]: the highest val_accuracy for at most so many kWh
- [bold]weights=0.7,0.3[/]: the point of the front nearest to the ideal, a weight for each objective
- [bold]trial=ID[/]: that trial, by its number, Ray id, or the beginning of one
"""


class Form(str, Enum):  # noqa: UP042 - typer shows the values of a str Enum
    """What export can write."""

    YAML = "yaml"
    PYTHON = "python"
    JSON = "json"


@app.command(
    epilog="Example:  sbp-tune export results/quickstart --pick max-drop=1.0 -o best.yaml",
    help=f"Write the config of a chosen trial, ready for `sbp-tune train`, and where it is from.\n\n{_PICKS}",
)
def export(
    study: StudyArgument,
    pick: Annotated[str, typer.Option(help="A rule of those above.")] = "knee",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write.", show_default="best.yaml, .py or .json")
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--as", help="A config, or a script that trains it.", show_default="by the file's name, else yaml"
        ),
    ] = None,
    device: DeviceOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Write the config of a chosen trial."""
    with errors_as_lines():
        from analysis.export import export_config
        from sbp_tune.study.device_types import with_device
        from sbp_tune.study.results import load_study

        output = output or Path({Form.PYTHON: "best.py", Form.JSON: "best.json"}.get(form or Form.YAML, "best.yaml"))
        loaded = with_device(load_study(study_path(study, results)), device)
        typer.echo(export_config(loaded, pick, output, form and form.value))


@app.command(epilog="Example:  sbp-tune compare best.yaml results/quickstart:max-accuracy")
def compare(
    configs: Annotated[
        list[str],
        typer.Argument(metavar="CONFIG CONFIG...", help="Config files, or STUDY:PICK, as results/quickstart:trial=7."),
    ],
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Show the keys in which configs differ, and the metrics that `export` wrote with them beside these."""
    with errors_as_lines():
        from rich.console import Console

        from analysis.compare import compare_info, print_comparison

        print_comparison(compare_info([_found(name, results) for name in configs]), Console())


def _found(name: str, results: str) -> str:
    """A config's file as it is; of STUDY:PICK the study by its directory."""
    study, given, pick = name.rpartition(":")
    return f"{study_path(study, results)}:{pick}" if given and not Path(name).exists() else name


@app.command(epilog="Example:  sbp-tune pack results/quickstart -o shared/quickstart")
def pack(
    study: StudyArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to make.")],
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Copy a study without checkpoints, logs and machine names: small enough to hand on, and read as the study is."""
    with errors_as_lines():
        from sbp_tune.study.pack import pack as pack_study

        typer.echo(pack_study(study_path(study, results), output))
