"""Where a study's trials are stored, as its file says: in the study directory, or in a database that others share."""

from __future__ import annotations

import os
import re

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sbp_tune.errors import InputError

FILES = {"sqlite": "study.db", "journal": "study.journal"}
"""Storages that are a file of the study directory."""

EXTRAS = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}
"""Databases, and the extra of this package that installs a driver of each."""

_DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_ALLOWED = "sqlite, journal, or the URL of a database: postgresql://USER:${PASSWORD}@HOST/NAME, mysql://..., ${URL}"


def storage_problem(text: str) -> str | None:
    """What is wrong with a storage as a study file names it; None if nothing is."""
    if text in FILES or _VARIABLE.fullmatch(text):
        return None
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        return f"found {without_password(text)!r}; allowed: {_ALLOWED}"
    if url.get_backend_name() == "sqlite":
        absolute = url.database is not None and url.database.startswith("/")
        return None if absolute else f"found {text!r}; a database file needs an absolute path, as in sqlite:////path"
    if url.get_backend_name() not in EXTRAS:
        return f"found {without_password(text)!r}; allowed: {_ALLOWED}"
    if (url.password and not _VARIABLE.fullmatch(url.password)) or {"password", "passwd"} & set(url.query):
        return (
            "holds a password, which study.yaml and recorded tables would show to others; "
            "write ${NAME} in its place and set the environment variable NAME"
        )
    return None


def database_url(text: str) -> URL:
    """The URL with its driver, and for each ${NAME} the value of that environment variable. InputError where unset."""
    url = make_url(_filled(text) or text) if _VARIABLE.fullmatch(text) else make_url(text)
    # By parts: a password may hold any character, which a URL would have to quote.
    url = url.set(
        username=_filled(url.username),
        password=_filled(url.password),
        host=_filled(url.host),
        database=_filled(url.database),
    )
    driver = _DRIVERS.get(url.drivername)
    return url.set(drivername=f"{url.drivername}+{driver}") if driver else url


def _filled(text: str | None) -> str | None:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise InputError(f"search.storage: the environment variable {name}, which it names, is not set")
        return os.environ[name]

    return None if text is None else _VARIABLE.sub(value, text)


def without_password(text: str) -> str:
    """A text with URLs, without who and with what password is in them."""
    return re.sub(r"://[^@/]*@", "://...@", text)
