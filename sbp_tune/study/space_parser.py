"""The `config` section of a study file to a Space, with every mistake in it told at once."""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Iterator
from typing import Any

from sbp_tune.config import DECIDING_KEYS, check_config, is_meaningless
from sbp_tune.errors import InputError
from sbp_tune.study.domains import Options, parse_domain
from sbp_tune.study.space import CASE, Parameter, Space, nested


def parse_space(tree: Any, source: str, cases: dict[str, dict[str, Any]] | None = None) -> Space:
    """The `config` section of a study file to a Space; InputError lists every problem with its dotted key.

    cases: by name, keys of the config that go together, dotted or nested. Each is run as a value of a grid is.
    """
    if not isinstance(tree, dict):
        raise InputError(f"{source}: config: found {tree!r}; needs a mapping")
    problems: list[str] = []
    parameters: dict[str, Parameter] = {}
    constants: dict[str, Any] = {}
    conditions: dict[str, dict[str, Any]] = {}
    for key, node in _leaves(tree):
        try:
            parsed = parse_domain(node)
        except ValueError as error:
            problems.append(f"{source}: config.{key}: {error}")
            continue
        if parsed is None:
            constants[key] = node
        else:
            parameters[key], conditions[key] = Parameter(key, parsed[0]), parsed[1]
    together = {name: dict(_flat_until(case, set())) for name, case in (cases or {}).items()}
    problems += [
        f"{source}: cases.{name}.{key}: is searched as config.{searched}; a case fixes what is not searched"
        for name, case in together.items()
        for key in case
        for searched in parameters
        if key == searched or key.startswith(f"{searched}.") or searched.startswith(f"{key}.")
    ]
    if problems:
        raise InputError(problems)
    if together:
        parameters = {CASE: Parameter(CASE, Options("grid", tuple(together))), **parameters}
    for key, when in conditions.items():
        resolved, wrong = _resolve_when(key, when, parameters, constants)
        problems += [f"{source}: config.{key}: {line}" for line in wrong]
        parameters[key] = Parameter(key, parameters[key].domain, resolved)
    if problems:
        raise InputError(problems)
    space = Space(_ordered(parameters, source), constants, together)
    _check_conditions(space, source)
    _check_values(space, source)
    return space


def _leaves(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, node in tree.items():
        key = f"{prefix}{name}"
        is_section = isinstance(node, dict) and node and not _looks_like_domain(node)
        if is_section:
            yield from _leaves(node, f"{key}.")
        else:
            yield key, node


def _looks_like_domain(node: dict[Any, Any]) -> bool:
    try:
        return parse_domain(node) is not None
    except ValueError:
        return True


def _resolve_when(
    key: str, when: dict[str, Any], parameters: dict[str, Parameter], constants: dict[str, Any]
) -> tuple[dict[str, list[Any]], list[str]]:
    """Conditions by full dotted key. A short name means the nearest: a sibling first, then further out."""
    resolved, problems = {}, []
    for name, wanted in when.items():
        allowed = wanted if isinstance(wanted, list) else [wanted]
        scopes = [key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1)]
        candidates = [f"{scope}.{name}" for scope in scopes] + [str(name)]
        target = next((c for c in candidates if c in parameters or c in constants), None)
        if target is None or target == key:
            problems.append(f"when.{name}: no such key beside it or above; looked for {', '.join(candidates)}")
            continue
        if target in constants:
            options = [constants[target]]
        else:
            domain = parameters[target].domain
            options = domain.samples()
            if not isinstance(domain, Options):
                problems.append(f"when.{name}: config.{target} is {domain}; needs a choice or grid")
                continue
        if not any(option in allowed for option in options):
            problems.append(
                f"when.{name}: found {wanted!r}, which never happens; "
                f"config.{target} is one of: {', '.join(map(str, options))}"
            )
            continue
        try:  # a misspelt value beside a right one
            for value in allowed if target != CASE else ():
                check_config(nested({target: value}), source="", prefix="config")
        except InputError as error:
            problems.append(f"when.{name}: {error.problems[0].removeprefix(': ')}")
            continue
        resolved[target] = allowed
    return resolved, problems


def _ordered(parameters: dict[str, Parameter], source: str) -> tuple[Parameter, ...]:
    """Conditions before what depends on them; else as written."""
    first = [key for key in DECIDING_KEYS if key in parameters]
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for key in [*first, *parameters]:
        # What decides whether a key means anything is asked before it; the estimator decides of all.
        implied = first[:1] if key in first[1:] and not parameters[first[0]].when else []
        if key not in first and key.startswith("sparsity."):
            implied = first
        sorter.add(key, *[needed for needed in parameters[key].when if needed in parameters], *implied)
    try:
        order = list(sorter.static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(f"config.{key}" for key in error.args[1])
        raise InputError(f"{source}: conditions run in a circle: {circle}") from error
    return tuple(parameters[key] for key in order)


def _check_conditions(space: Space, source: str) -> None:
    """Every parameter means something somewhere, and a grid hangs on nothing that is sampled."""
    deciding = {key: space.constants[key] for key in DECIDING_KEYS if key in space.constants}
    searched = [parameter for parameter in space.parameters if parameter.key in DECIDING_KEYS]
    settings = [
        {**deciding, **dict(zip([p.key for p in searched], values, strict=True))}
        for values in itertools.product(*(p.domain.samples() for p in searched))
    ]
    problems = []
    for parameter in space.parameters:
        meaningless = [setting for setting in settings if is_meaningless(parameter.key, setting)]
        if len(meaningless) == len(settings):
            why = ", ".join(f"{key} = {value}" for key, value in meaningless[0].items()) or "estimator = dense"
            problems.append(f"config.{parameter.key}: has no effect: {why}")
        elif parameter.domain.kind == "grid":
            needed = {*parameter.when, *(p.key for p in searched if meaningless and p.key != parameter.key)}
            sampled = [p.key for p in space.parameters if p.key in needed and p.domain.kind != "grid"]
            problems += [
                f"config.{parameter.key}: a grid runs every value, but it depends on config.{key}, which is sampled; "
                "make both a grid, or both a choice"
                for key in sampled
            ]
    if problems:
        raise InputError([f"{source}: {problem}" for problem in problems])


def _check_values(space: Space, source: str) -> None:
    """Every end of a range and every option must make a valid config."""
    searched = {f"config.{parameter.key}" for parameter in space.parameters}
    points: list[tuple[str, dict[str, Any]]] = [("", space.point({}))]
    for parameter in space.parameters:
        points += [(f"config.{parameter.key}", space.example(parameter.key, v)) for v in parameter.domain.samples()]
    problems: dict[str, None] = {}  # ordered, each once
    for own_key, point in points:
        try:
            check_config(space.config(point), source, prefix="config")
        except InputError as error:
            for problem in error.problems:
                key = problem.removeprefix(f"{source}: ").split(":")[0]
                if key == own_key or key not in searched:  # another parameter's fault is told with that parameter
                    problems[problem] = None
    if problems:
        raise InputError(problems)


def check_point(space: Space, overrides: dict[str, Any], source: str, where: str) -> dict[str, Any]:
    """A baseline's overrides, dotted or nested, to a full point; InputError where it is outside the space.

    A parameter takes only values of its domain, but `sparsity.estimator: dense` is always a
    baseline. Other keys may take any value that makes a valid config.
    """
    keys = [parameter.key for parameter in space.parameters]
    values = dict(_flat_until(overrides, set(keys)))
    problems = [
        f"{source}: {where}.{key}: lies inside config.{searched}, which is searched as a whole"
        for key in values
        for searched in keys
        if key.startswith(f"{searched}.")
    ]
    for parameter in space.parameters:
        if parameter.key not in values or parameter.domain.contains(values[parameter.key]):
            continue
        if (parameter.key, values[parameter.key]) != ("sparsity.estimator", "dense"):
            problems.append(
                f"{source}: {where}.{parameter.key}: found {values[parameter.key]!r}, "
                f"outside the space: {parameter.domain}"
            )
    if problems:
        raise InputError(problems)
    point = space.point(values)
    check_config(space.config(point), source, prefix=where)
    return point


def _flat_until(tree: dict[str, Any], stops: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested or dotted keys to dotted ones; the value of a parameter stays whole, also where it is a mapping."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value and key not in stops:
            yield from _flat_until(value, stops, f"{key}.")
        else:
            yield key, value
