"""Commands that run trials: search, resume, extend, confirm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sbp_tune.commands import (
    DEFAULT_RESULTS,
    AddressOption,
    CrossCheckOption,
    ResultsOption,
    StudyArgument,
    app,
    errors_as_lines,
    new_study_path,
    study_file,
    study_path,
    write_all_tables,
)
from sbp_tune.errors import InputError, SbpTuneError


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
    with errors_as_lines():
        if table is not None and not simulate:
            raise InputError(f"TABLE: found {table}; a table is for --simulate")
        from sbp_tune.study.file import load_study_file
        from sbp_tune.study.sections import SimulateConfig

        played = SimulateConfig() if table is None else SimulateConfig(table=str(table))
        study = load_study_file(study_file(file), overrides, name, played if simulate else None)
        path = new_study_path(results, study.file.name)
        if dry_run:
            from sbp_tune.study.preview import print_preview

            print_preview(study, path, address)
            return
        from sbp_tune.study.launch import search as run_search

        _conclude(path, run_search(study, path, address, cross_check))


@app.command(epilog="Example:  sbp-tune resume results/quickstart")
def resume(
    study: StudyArgument,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a budget, as in budget.kwh=10."),
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    address: AddressOption = None,
    cross_check: CrossCheckOption = False,
) -> None:
    """Continue an interrupted search; finished trials are kept, running ones go on from their checkpoint."""
    with errors_as_lines():
        from sbp_tune.study.launch import resume as run_resume

        path = study_path(study, results)
        _conclude(path, run_resume(path, address, cross_check, overrides or ()))


@app.command(epilog="Example:  sbp-tune extend results/quickstart --trials +32")
def extend(
    study: StudyArgument,
    trials: Annotated[str, typer.Option(help="Proposed trials in all, or how many more: 64, or +32.")],
    results: ResultsOption = DEFAULT_RESULTS,
    address: AddressOption = None,
    cross_check: CrossCheckOption = False,
) -> None:
    """Continue a search, finished or not, with more trials; the sampler goes on from all that it knows."""
    with errors_as_lines():
        from sbp_tune.study.extend import extend as run_extended

        path = study_path(study, results)
        _conclude(path, run_extended(path, trials, address, cross_check))


@app.command(epilog="Example:  sbp-tune confirm results/quickstart --points knee --seeds 5")
def confirm(
    study: StudyArgument,
    points: Annotated[str, typer.Option(help="front, knee, or trial=ID[,ID].")] = "front",
    seeds: Annotated[int, typer.Option(min=2, max=1000, help="Fresh seeds, the same ones for every point.")] = 3,
    results: ResultsOption = DEFAULT_RESULTS,
    address: AddressOption = None,
    cross_check: CrossCheckOption = False,
) -> None:
    """Run points of the front and the dense controls again with fresh seeds, and test them: intervals, not luck.

    Called again it keeps what has run, goes on where it was interrupted, and adds what is new: points, or seeds. The
    search's trials and budget do not change.
    """
    with errors_as_lines():
        from analysis.confirmed import points_to_confirm
        from sbp_tune.study.confirm import confirm as run_confirmation
        from sbp_tune.study.results import load_study

        path = study_path(study, results)
        chosen = points_to_confirm(load_study(path), points)
        _conclude_confirmation(
            path, run_confirmation(path, [*chosen.points, *chosen.controls], seeds, address, cross_check)
        )


def _conclude(path: Path, ending: Any) -> None:
    """After a search: tables, report, best config, the front on the terminal, and what to type next."""
    from analysis.export import export_config
    from analysis.report import write_report
    from sbp_tune.study.conclusion import print_conclusion
    from sbp_tune.study.mirror import publish
    from sbp_tune.study.running import Ending

    loaded, front = write_all_tables(path)
    write_report(loaded, path / "report.html")
    complete = (loaded.trials["state"] == "complete").any()
    if len(front):  # no trial may meet the constraints
        export_config(loaded, "knee", path / "best.yaml")
    publish(path)
    print_conclusion(loaded, front, interrupted=ending is Ending.INTERRUPTED)
    if ending is Ending.INTERRUPTED:
        raise typer.Exit(130)
    if not complete:
        raise SbpTuneError(f"{path}: no trial was trained to its end; trials.csv has the reason of each")


def _conclude_confirmation(path: Path, ending: Any) -> None:
    """Tables, report, and the confirmed points on the terminal."""
    from rich.console import Console

    from analysis.confirmed_table import print_confirmed
    from analysis.report import write_report
    from sbp_tune.study.mirror import publish
    from sbp_tune.study.running import Ending

    loaded, _ = write_all_tables(path)
    write_report(loaded, path / "report.html")
    publish(path)
    print_confirmed(loaded, Console(), interrupted=ending is Ending.INTERRUPTED)
    if ending is Ending.INTERRUPTED:
        raise typer.Exit(130)
