"""Commands that read studies: record, report, energy, dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sbp_tune.commands import (
    DEFAULT_RESULTS,
    DeviceOption,
    ResultsOption,
    StudiesArgument,
    StudyArgument,
    app,
    errors_as_lines,
    study_path,
    write_all_tables,
)


@app.command(epilog="Example:  sbp-tune record results/quickstart -o table.parquet")
def record(
    studies: StudiesArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Table to write.")] = Path("table.parquet"),
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Record finished studies as a table that `search --simulate` plays."""
    with errors_as_lines():
        from sbp_tune.study.record import record as write_record

        typer.echo(write_record([study_path(study, results) for study in studies], output))


@app.command(epilog="Example:  sbp-tune report results/quickstart -o report.html")
def report(
    studies: StudiesArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="[default: report.html in the study; here, for several]")
    ] = None,
    device: DeviceOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Write the tables and the report of a study, whatever state it is in, or compare several side by side."""
    with errors_as_lines():
        from analysis.report import write_comparison, write_report
        from sbp_tune.study.mirror import publish

        loaded = [write_all_tables(study_path(study, results), device)[0] for study in studies]
        if len(loaded) == 1:
            typer.echo(write_report(loaded[0], output or loaded[0].path / "report.html"))
            publish(loaded[0].path)
        else:
            typer.echo(write_comparison(loaded, output or Path("report.html")))


@app.command(epilog="Example:  sbp-tune energy results/quickstart")
def energy(
    study: StudyArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the bill as JSON, energies in kWh.")] = False,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Show the energy bill of a study, whatever state it is in: trials, idle machines, waste, CO2."""
    with errors_as_lines():
        from analysis.bill import bill_info, bill_json
        from sbp_tune.study.results import load_study

        info = bill_info(load_study(study_path(study, results)))
        if as_json:
            typer.echo(bill_json(info))
            return
        from rich.console import Console

        from analysis.bill_tables import print_bill

        print_bill(info, Console())


@app.command(epilog="Example:  sbp-tune dashboard results/quickstart --port 8081")
def dashboard(
    study: StudyArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of this machine; 0: any that is free.")] = 8080,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Show a study in Optuna's dashboard, in the browser, also while it runs; to this machine alone."""
    with errors_as_lines():
        from sbp_tune.study.dashboard import serve_dashboard

        serve_dashboard(study_path(study, results), port, typer.echo)
