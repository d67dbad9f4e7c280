"""Commands without a study: train, spaces, plot-schedule, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sbp_tune.commands import DEFAULT_RESULTS, app, errors_as_lines, study_file
from sbp_tune.errors import InputError


@app.command(epilog="Example:  sbp-tune train best.yaml -o runs/best")
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A config, such as `export` writes.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="[default: results/train/CONFIG's name]")
    ] = None,
    again: Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch in the output.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time of the second epoch goes, and write profile.json.")
    ] = False,
) -> None:
    """Train one config to its end, test it, and keep the model."""
    with errors_as_lines():
        from sbp_tune.config import load_config

        parsed = load_config(config)
        from sbp_tune.train_run import train_run

        train_run(parsed, output or Path(DEFAULT_RESULTS) / "train" / config.stem, resume=again, profile=profile)


@app.command(epilog="Example:  sbp-tune spaces")
def spaces() -> None:
    """List the shipped study files."""
    from search_spaces import shipped_spaces, summary

    for name, path in shipped_spaces().items():
        typer.echo(f"{name:24} {summary(path)}")


@app.command("plot-schedule", epilog="Example:  sbp-tune plot-schedule best.yaml -o schedule.html")
def plot_schedule(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A config, such as `export` writes.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Plot to write: .html or .png.")] = Path(
        "schedule.html"
    ),
) -> None:
    """Plot the keep fraction of a config over its epochs and layers."""
    with errors_as_lines():
        from sbp_tune.config import load_config
        from sbp_tune.schedule_plot import write_schedule_plot

        write_schedule_plot(load_config(config), output)
        typer.echo(output)


@app.command(epilog="Example:  sbp-tune doctor --study sparse_backprop_2025 --set config.data.root=~/data")
def doctor(
    study: Annotated[
        str | None, typer.Option(metavar="FILE", help="Say what a study file needs, and whether it is here.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of --study: override a dotted key.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure idle power, update periods and the spread of identical runs.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=0.5, help="Of --calibrate: length of each run, and of being idle.")
    ] = 60,
    repeats: Annotated[int, typer.Option(min=2, help="Of --calibrate: identical runs.")] = 4,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Of --calibrate: JSON file to write.")] = None,
) -> None:
    """Say what this machine can measure, and what will therefore be modelled; or what a study needs of it."""
    with errors_as_lines():
        from rich.console import Console

        if overrides and study is None:
            raise InputError(f"--set {overrides[0]}: is for --study")
        if study is not None and calibrate:
            raise InputError("--study: found beside --calibrate; leave out one of the two")
        if study is not None:
            from sbp_tune.doctor import print_study_doctor

            print_study_doctor(study_file(study), overrides, Console())
            return
        if not calibrate:
            from sbp_tune.doctor import print_doctor

            print_doctor(Console())
            return
        from sbp_tune.calibrate import calibration, print_calibration, write_calibration

        found = calibration(seconds, repeats, say=lambda line: typer.echo(line, err=True))
        print_calibration(found, Console())
        if output is not None:
            write_calibration(found, output)
            typer.echo(output)
