"""sbp-tune: the commands. Each imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from sbp_tune.errors import InputError, SbpTuneError

app = typer.Typer(
    epilog="First steps:  sbp-tune search quickstart   |   sbp-tune spaces   |   sbp-tune doctor",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY", help="A study's directory, or its name in --results.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder in which studies lie.")]
AddressOption = Annotated[str | None, typer.Option(help="A running Ray cluster, as for ray.init: auto, or HOST:PORT.")]
CrossCheckOption = Annotated[
    bool, typer.Option("--cross-check", help="Run CodeCarbon beside our own ledger, for `sbp-tune energy` to compare.")
]
DEFAULT_RESULTS = Path("results")


@contextmanager
def _errors_as_lines() -> Iterator[None]:
    """Our own errors as lines on standard error and their exit code; anything else keeps its traceback."""
    try:
        yield
    except SbpTuneError as error:
        for line in str(error).splitlines() or [type(error).__name__]:
            typer.echo(f"error: {line}", err=True)
        raise typer.Exit(error.exit_code) from error
    except OSError as error:
        # A path that cannot be used is bad input; a disk that is full is not.
        bad_path = error.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EROFS)
        typer.echo(f"error: {error.filename or 'file'}: {error.strerror or error}", err=True)
        raise typer.Exit(2 if bad_path else 1) from error
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


@app.callback()
def main() -> None:
    """Search for the sparse-backpropagation schedule with the most accuracy per measured kWh."""
    # As for `python -m`: `module:Class` may name a model or a trainable of the working directory.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


@app.command(epilog="Example:  sbp-tune search quickstart --set search.trials=8 --name first-try")
def search(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A study file, or the name of a shipped one.")],
    table: Annotated[
        Path | None, typer.Argument(metavar="TABLE", help="With --simulate: recorded trials to play.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a dotted key of the study file.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study and of its directory.")] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    address: AddressOption = None,
    cross_check: CrossCheckOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and show what would run, and where.")
    ] = False,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Train nothing: play the curves of TABLE, or of an analytic response.")
    ] = False,
) -> None:
    """Run a search: dense controls first, then the trials that Optuna proposes."""
    with _errors_as_lines():
        if table is not None and not simulate:
            raise InputError(f"TABLE: found {table}; a table is for --simulate")
        from sbp_tune.study.file import SimulateConfig, load_study_file

        played = SimulateConfig() if table is None else SimulateConfig(table=str(table))
        study = load_study_file(_study_file(file), overrides, name, played if simulate else None)
        path = results / study.file.name
        if dry_run:
            from sbp_tune.study.preview import print_preview

            print_preview(study, path, address)
            return
        from sbp_tune.study.launch import search as run_search

        _conclude(path, run_search(study, path, address, cross_check))


@app.command(epilog="Example:  sbp-tune resume results/quickstart")
def resume(
    study: StudyArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    address: AddressOption = None,
    cross_check: CrossCheckOption = False,
) -> None:
    """Continue an interrupted search; finished trials are kept, running ones go on from their checkpoint."""
    with _errors_as_lines():
        from sbp_tune.study.launch import resume as run_resume

        path = _study_path(study, results)
        _conclude(path, run_resume(path, address, cross_check))


@app.command(epilog="Example:  sbp-tune record results/quickstart -o table.parquet")
def record(
    studies: Annotated[
        list[Path], typer.Argument(metavar="STUDY...", help="Finished studies: directories, or names in --results.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Table to write.")] = Path("table.parquet"),
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Record finished studies as a table that `search --simulate` plays."""
    with _errors_as_lines():
        from sbp_tune.study.record import record as write_record

        typer.echo(write_record([_study_path(study, results) for study in studies], output))


@app.command(epilog="Example:  sbp-tune report results/quickstart -o report.html")
def report(
    study: StudyArgument,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="[default: report.html in the study]")] = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Write the tables and the report of a study, whatever state it is in."""
    with _errors_as_lines():
        from analysis.report import write_report

        loaded, _ = _write_tables(_study_path(study, results))
        typer.echo(write_report(loaded, output or loaded.path / "report.html"))


@app.command(epilog="Example:  sbp-tune energy results/quickstart")
def energy(
    study: StudyArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the bill as JSON, energies in kWh.")] = False,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Show the energy bill of a study, whatever state it is in: trials, idle machines, waste, CO2."""
    with _errors_as_lines():
        from analysis.bill import bill_info, bill_json
        from sbp_tune.study.results import load_study

        info = bill_info(load_study(_study_path(study, results)))
        if as_json:
            typer.echo(bill_json(info))
            return
        from rich.console import Console

        from analysis.bill_tables import print_bill

        print_bill(info, Console())


@app.command(epilog="Example:  sbp-tune export results/quickstart --pick max-drop=1.0 -o best.yaml")
def export(
    study: StudyArgument,
    pick: Annotated[
        str, typer.Option(help="knee, max-accuracy, min-energy, max-drop=PP (points below dense), or trial=ID.")
    ] = "knee",
    output: Annotated[Path, typer.Option("-o", "--output", help="Config file to write.")] = Path("best.yaml"),
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Write the config of a trial on the front, ready for `sbp-tune train`."""
    with _errors_as_lines():
        from analysis.export import export_config
        from sbp_tune.study.results import load_study

        export_config(load_study(_study_path(study, results)), pick, output)
        typer.echo(output)


@app.command(epilog="Example:  sbp-tune train best.yaml -o runs/best")
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A config, such as `export` writes.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="[default: results/train/CONFIG's name]")
    ] = None,
    again: Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch in the output.")] = False,
) -> None:
    """Train one config to its end, test it, and keep the model."""
    with _errors_as_lines():
        from sbp_tune.config import load_config

        parsed = load_config(config)
        from sbp_tune.train_run import train_run

        train_run(parsed, output or DEFAULT_RESULTS / "train" / config.stem, resume=again)


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
    with _errors_as_lines():
        from sbp_tune.config import load_config
        from sbp_tune.schedule_plot import write_schedule_plot

        write_schedule_plot(load_config(config), output)
        typer.echo(output)


@app.command(epilog="Example:  sbp-tune doctor")
def doctor(
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure idle power, update periods and the spread of identical runs.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=0.5, help="Of --calibrate: length of each run, and of being idle.")
    ] = 60,
    repeats: Annotated[int, typer.Option(min=2, help="Of --calibrate: identical runs.")] = 4,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Of --calibrate: JSON file to write.")] = None,
) -> None:
    """Say what this machine can measure, and what will therefore be modelled."""
    with _errors_as_lines():
        from rich.console import Console

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


def _study_file(name: str) -> Path:
    """A path, or the name of a shipped study file."""
    from search_spaces import shipped_spaces

    path = Path(name)
    return path if path.is_file() else shipped_spaces().get(name, path)


def _study_path(study: Path, results: Path) -> Path:
    return study if study.exists() or not (results / study).is_dir() else results / study


def _write_tables(path: Path) -> tuple[Any, Any]:
    """The loaded study and its front, after writing both as files."""
    from analysis.pareto import trial_front
    from sbp_tune.files import write_atomic
    from sbp_tune.study.results import load_study, write_tables

    loaded = load_study(path)
    write_tables(loaded)
    front = trial_front(loaded)
    write_atomic(path / "front.csv", lambda file: front.to_csv(file, index=False))
    return loaded, front


def _conclude(path: Path, ending: Any) -> None:
    """After a search: tables, report, best config, the front on the terminal, and what to type next."""
    from analysis.export import export_config
    from analysis.report import write_report
    from sbp_tune.study.conclusion import print_conclusion
    from sbp_tune.study.launch import Ending

    loaded, front = _write_tables(path)
    write_report(loaded, path / "report.html")
    complete = (loaded.trials["state"] == "complete").any()
    if len(front):  # no trial may meet the constraints
        export_config(loaded, "knee", path / "best.yaml")
    print_conclusion(loaded, front, interrupted=ending is Ending.INTERRUPTED)
    if ending is Ending.INTERRUPTED:
        raise typer.Exit(130)
    if not complete:
        raise SbpTuneError(f"{path}: no trial was trained to its end; trials.csv has the reason of each")


if __name__ == "__main__":
    sys.exit(app())
