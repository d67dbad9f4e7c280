"""What software a study runs on: versions of the packages that decide its results, and the revision of this code."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import sbp_tune

GIT = "git"
"""Key of the revision among the versions; absent where the code is in no repository."""

_PATIENCE_S = 10


def versions() -> dict[str, str]:
    """By name; 'unknown' for a package that runs from a checkout without being installed."""
    found = {"python": platform.python_version()}
    for package in ("sbp-tune", "torch", "torchvision", "ray", "optuna"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    revision = code_revision(Path(sbp_tune.__file__).parent)
    return found | ({GIT: revision} if revision is not None else {})


def code_revision(package: Path) -> str | None:
    """The commit of the repository that tracks a package's folder, with ' dirty' if any Python file differs from it.

    None where no repository tracks it (what is installed may lie inside somebody else's), and where git cannot say:
    no search fails for want of it.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # only looks
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
        return ended.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD") + (" dirty" if git("status", "--porcelain", "--", ":/*.py") else "")
    except (OSError, subprocess.SubprocessError):
        return None
