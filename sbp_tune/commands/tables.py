"""The command that prints the papers' tables of any study."""

from __future__ import annotations

from typing import Annotated

import typer

from sbp_tune.commands import DEFAULT_RESULTS, ResultsOption, StudiesArgument, app, errors_as_lines, study_path


@app.command(epilog="Example:  sbp-tune tables results/quickstart --table energy --format markdown")
def tables(
    studies: StudiesArgument,
    table: Annotated[
        str | None, typer.Option(help="data, strategies, accuracy, energy, or ablation.  [default: all]")
    ] = None,
    format: Annotated[str, typer.Option(help="text, markdown, latex, or csv (of one table, unrounded).")] = "text",
    published: Annotated[
        bool, typer.Option("--with-published", help="Show what the papers print beneath the same arms of ours.")
    ] = False,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Print the papers' tables of studies, in any state: images, accuracy, energy, and what is saved."""
    with errors_as_lines():
        from rich.console import Console

        from analysis.tables import print_tables
        from sbp_tune.study.results import load_study

        console = Console()
        width = console.width if console.is_terminal else 1000  # a file has no edge
        loaded = [load_study(study_path(study, results)) for study in studies]
        typer.echo(print_tables(*loaded, table=table, format=format, published=published, width=width))
