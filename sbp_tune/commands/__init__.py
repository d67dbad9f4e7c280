"""What the commands share: the app, its common options, and how errors reach the terminal."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from sbp_tune.errors import SbpTuneError

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
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of a study on several types of device: the one to show.", show_default="most"),
]
DEFAULT_RESULTS = Path("results")


@contextmanager
def errors_as_lines() -> Iterator[None]:
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


def study_path(study: Path, results: Path) -> Path:
    """A study's directory, by its path or by its name in the results."""
    return study if study.exists() or not (results / study).is_dir() else results / study


def study_file(name: str) -> Path:
    """A path, or the name of a shipped study file."""
    from search_spaces import shipped_spaces

    path = Path(name)
    return path if path.is_file() else shipped_spaces().get(name, path)


def write_all_tables(path: Path, device: str | None = None) -> tuple[Any, Any]:
    """The loaded study and its front, after writing both as files, and what is confirmed of it.

    device: of whose type the front is.
    """
    from analysis.confirmed import write_confirmed
    from analysis.pareto import trial_front
    from sbp_tune.files import write_atomic
    from sbp_tune.study.device_types import with_device
    from sbp_tune.study.results import confirmation_path, load_study, write_tables

    loaded = with_device(load_study(path), device)
    write_tables(loaded)
    front = trial_front(loaded)
    write_atomic(path / "front.csv", lambda file: front.to_csv(file, index=False))
    if confirmation_path(path).is_dir():
        write_confirmed(loaded)
    return loaded, front
