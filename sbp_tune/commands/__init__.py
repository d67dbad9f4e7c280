"""What the commands share: the app, its common options, and how errors reach the terminal."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from sbp_tune.errors import SbpTuneError
from sbp_tune.remote import is_uri

app = typer.Typer(
    epilog="First steps:  sbp-tune search quickstart   |   sbp-tune spaces   |   sbp-tune doctor",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study's directory or URI, or its name in --results.")
]
StudiesArgument = Annotated[
    list[str], typer.Argument(metavar="STUDY...", help="Studies: directories or URIs, or names in --results.")
]
ResultsOption = Annotated[
    str,
    typer.Option("--results", metavar="FOLDER", help="Where studies lie: a folder, or its URI as s3://bucket/studies."),
]
AddressOption = Annotated[str | None, typer.Option(help="A running Ray cluster, as for ray.init: auto, or HOST:PORT.")]
CrossCheckOption = Annotated[
    bool, typer.Option("--cross-check", help="Run CodeCarbon beside our own ledger, for `sbp-tune energy` to compare.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of a study on several types of device: the one to show.", show_default="most"),
]
DEFAULT_RESULTS = "results"


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


def study_path(study: str, results: str) -> Path:
    """A study's directory, by its path or by its name in the results; of one on object storage what is here of it."""
    if not is_uri(study) and not _directory(study).exists() and is_uri(results):
        study = f"{results.partition('?')[0].rstrip('/')}/{study}{''.join(results.partition('?')[1:])}"
    if is_uri(study):
        from sbp_tune.study.working import fetched

        return fetched(study)
    path, named = _directory(study), _directory(results) / study
    return path if path.exists() or not named.is_dir() else named


def new_study_path(results: str, name: str) -> Path:
    """The directory for a new study in the results; for results on object storage that of this machine."""
    if is_uri(results):
        from sbp_tune.study.working import new_study

        return new_study(results, name)
    return _directory(results) / name


def _directory(text: str) -> Path:
    return Path(text.removeprefix("file://"))


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
