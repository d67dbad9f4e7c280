"""Study files: the shipped ones lie beside this file, and each opens with the command that runs it."""

from __future__ import annotations

from pathlib import Path


def shipped_spaces() -> dict[str, Path]:
    """Name to path of every shipped study file."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def summary(path: Path) -> str:
    """The sentence in the second line of a shipped study file, after the command in its first."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[1].removeprefix("#").strip() if len(lines) > 1 and lines[1].startswith("#") else ""
