"""A study file's document, before it is checked: keys set on the command line, and paths made absolute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sbp_tune.errors import InputError
from sbp_tune.files import parse_yaml

_PATHS = ("data.root", "model.weights", "simulate.table")


def set_key(document: dict[str, Any], override: str) -> None:
    """Sets `dotted.key=YAML value` in a study file's document; InputError where it cannot be."""
    key, equals, text = override.partition("=")
    source = f"--set {override}"
    if not equals or not key or any(not part for part in key.split(".")):
        raise InputError(f"{source}: needs key=value with a dotted key of the study file, as in search.trials=8")
    value = parse_yaml(text, source)
    *parents, leaf = key.split(".")
    node: Any = document
    for depth, part in enumerate(parents):
        child = node[_index(node, part, source)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(child, dict | list):
            raise InputError(f"{source}: {'.'.join(parents[: depth + 1])} is {child!r}, not a section")
        node = child
    node[_index(node, leaf, source) if isinstance(node, list) else leaf] = value


def _index(node: list[Any], part: str, source: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise InputError(f"{source}: {part} is not one of the list's places 0 to {len(node) - 1}")
    return int(part)


def with_absolute_paths(node: Any, section: str = "") -> Any:
    """Every path of a config absolute: trials run in folders of their own, and `resume` perhaps from elsewhere."""
    if isinstance(node, list):
        return [with_absolute_paths(item, section) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _absolute(value)
        if key in _PATHS or f"{section}.{key}" in _PATHS
        else with_absolute_paths(value, section if key in ("choice", "grid") else key)
        for key, value in node.items()
    }


def _absolute(path: Any) -> Any:
    if isinstance(path, str):
        return str(Path(path).expanduser().absolute())
    if isinstance(path, dict):  # a domain
        return {kind: [_absolute(option) for option in v] if isinstance(v, list) else v for kind, v in path.items()}
    return path
