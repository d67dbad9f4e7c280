"""Which layers may be sparse: those that suit the estimator, less the default exclusions, as the globs say.

A glob is of a whole name, or of a module that something lies in. It means layers
(convolution and linear weights) where it matches any, so that `layer4.*` never reaches into the
normalisation between them; else it means the other parameters that it matches, by their names in
`named_parameters`: `*.bias`, `layer4.*.bn?.weight`, `bn1`.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn

from sbp_tune.config import SparsityConfig
from sbp_tune.errors import InputError
from sbp_tune.sparsity.estimators._base import Estimator
from sbp_tune.sparsity.layers import Layer, default_kind, find_layers, find_parameters
from sbp_tune.sparsity_config import has_no_effect


class Choice(NamedTuple):
    """layers: all of them; sparse: layers and other parameters that may be sparse, in order of registration;
    dense: why each of the other layers stays dense, by name."""

    layers: list[Layer]
    sparse: list[Layer]
    dense: dict[str, str]


def choose(model: nn.Module, kind: type[Estimator], config: SparsityConfig) -> Choice:
    """InputError for a glob that matches nothing, or nothing that it could change."""
    layers = find_layers(model)
    dense: dict[str, str] = {}
    sparse: list[Layer] = []
    for layer in layers:
        wanted = matches_any(layer.name, config.include)
        unfit = _unfit(layer, kind, sparse)
        default = default_kind(layer, layers, kind.default_dense)
        if unfit:
            dense[layer.name] = unfit
        elif matches_any(layer.name, config.exclude) and not wanted:
            dense[layer.name] = "excluded by the config"
        elif default is not None and not wanted:
            dense[layer.name] = f"{default} layer"
        else:
            sparse.append(layer)
    fit = [layer for layer in layers if not _unfit(layer, kind, [])]
    parameters = find_parameters(model, fit)
    for_parameters = [pattern for pattern in config.include if not _matched(pattern, layers)]
    asked = [parameter for parameter in parameters if matches_any(parameter.name, for_parameters)]
    _check(config, kind, layers, parameters, asked)
    if kind.takes_parameters:
        place = {module: place for place, module in enumerate(model.modules())}
        sparse = sorted(sparse + asked, key=lambda layer: place[layer.module])
    return Choice(layers, sparse, dense)


def matches(name: str, pattern: str) -> bool:
    """A glob of the whole name, or of a module that the layer or parameter lies in."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(matches(name, pattern) for pattern in patterns)


def _matched(pattern: str, layers: Iterable[Layer]) -> bool:
    return any(matches(layer.name, pattern) for layer in layers)


def _unfit(layer: Layer, kind: type[Estimator], taken: list[Layer]) -> str:
    """Why the estimator cannot make the layer sparse; '' where it can."""
    if kind.needs == "products":
        return layer.why_dense
    if kind.needs == "gradient":
        if layer.own_weight is None:
            return layer.why_dense
        if any(layer.own_weight is other.own_weight for other in taken):
            return "its weight is another layer's too, and masked there"
    return ""


def _check(
    config: SparsityConfig, kind: type[Estimator], layers: list[Layer], parameters: list[Layer], asked: list[Layer]
) -> None:
    """A spelling mistake, or a wish that cannot come true, would silently change nothing."""
    patterns = {
        "layers.stages": config.layers.stages,
        "layers.overrides": config.layers.overrides,
        "exclude": config.exclude,
        "include": config.include,
    }
    values = config.model_dump()
    problems = []
    for key, found in patterns.items():
        for pattern in found:
            if _matched(pattern, layers):
                continue
            if not _matched(pattern, parameters):
                near = _near(pattern, layers, parameters)
                problem = f"matches no convolution or linear layer and no other parameter; {near}"
            elif has_no_effect(key, values):
                continue
            elif key == "include" and not kind.takes_parameters:
                problem = (
                    f"matches only biases, normalisation and the like; {config.estimator} "
                    f"{'freezes them with their layers' if kind.cuts_graph else 'computes their gradients in full'}, "
                    "mask and layer can include them"
                )
            elif key == "exclude" and kind.cuts_graph:
                problem = (
                    f"matches only biases, normalisation and the like, which {config.estimator} cuts off together "
                    "with the layers around them; exclude a layer"
                )
            elif key.startswith("layers.") and not _matched(pattern, asked):
                problem = "matches only biases, normalisation and the like, and they are dense; include them too"
            else:
                continue
            problems.append(f"sparsity.{key}: {pattern!r} {problem}")
    if problems:
        raise InputError(problems)


def _near(pattern: str, layers: list[Layer], parameters: list[Layer]) -> str:
    """The patterns that may have been meant, or else the layers that there are."""
    names = [layer.name for layer in layers]
    parts = sorted({part for known in (*layers, *parameters) for part in known.name.split(".")})
    near = [
        pattern.replace(part, close)
        for part in pattern.split(".")
        if part not in parts
        for close in get_close_matches(part, parts, n=3)
    ]
    meant = [other for other in near if _matched(other, (*layers, *parameters))] or get_close_matches(pattern, names)
    if meant:
        return f"did you mean {' or '.join(dict.fromkeys(meant))}?"
    return f"the layers are: {', '.join(names if len(names) <= 8 else [*names[:4], '...', names[-1]])}"
