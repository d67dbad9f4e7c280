"""Configs side by side: the keys in which they differ, and what is known of their metrics."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.picks import pick_trial
from analysis.provenance import METRIC_TITLES, metric_texts, provenance
from analysis.text import one_line, shown
from sbp_tune.config import PROVENANCE, TrainConfig, check_config, is_meaningless, load_config
from sbp_tune.errors import InputError
from sbp_tune.files import read_yaml
from sbp_tune.fingerprint import flat
from sbp_tune.study.results import load_study

_DEFAULTS = flat(TrainConfig().model_dump(mode="json"))


class CompareInfo(NamedTuple):
    """configs and metrics: text, a row a key or a metric, a column a config in the order given; a dash: none.

    configs has the keys in which any two differ, metrics what any of them has.
    """

    configs: pd.DataFrame
    metrics: pd.DataFrame


def compare_info(names: Sequence[str]) -> CompareInfo:
    """Of two or more configs: files, or STUDY:PICK, a study's directory and what `export --pick` takes.

    A value that has no effect beside the others (the keep fraction of a dense run) is a dash; a key of which that is
    the only difference, the others having its default, is left out. Metrics are those that `export` wrote into a file;
    other files have none. InputError holds the problems of all names.
    """
    if len(names) < 2:
        raise InputError(f"compare: found {len(names)} config; needs two or more")
    columns, configs, metrics, problems = _columns(names), [], [], []
    for name in names:
        try:
            config, texts = _read(name)
        except InputError as error:
            problems += error.problems
            continue
        configs.append(_meaningful(config))
        metrics.append(texts)
    if problems:
        raise InputError(problems)
    keys = dict.fromkeys(itertools.chain.from_iterable(configs))
    differing = [key for key in keys if _differs(key, configs)]
    titles = [title for title in METRIC_TITLES if any(title in texts for texts in metrics)]
    return CompareInfo(
        pd.DataFrame([[shown(config.get(key)) for config in configs] for key in differing], differing, columns),
        pd.DataFrame([[texts.get(title, shown(None)) for texts in metrics] for title in titles], titles, columns),
    )


def _read(name: str) -> tuple[TrainConfig, dict[str, str]]:
    path = Path(name)
    study, given, pick = name.rpartition(":")
    if given and not path.exists():
        loaded = load_study(study)
        row = pick_trial(loaded, pick)
        config = check_config(loaded.config_of(int(row["trial"])), source=f"{study}: trial {row['trial']}")
        return config, metric_texts(provenance(loaded, row, pick))
    return load_config(path), _metrics_in(path)


def _metrics_in(path: Path) -> dict[str, str]:
    """Metrics by title that `export` wrote into a config file; nothing where it did not write it."""
    origin = read_yaml(path).get(PROVENANCE)
    if isinstance(origin, dict):
        try:
            return metric_texts(origin)
        except (KeyError, TypeError, AttributeError):
            raise InputError(f"{path}: {PROVENANCE}: is not what `sbp-tune export` writes there") from None
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    texts = dict(line.lstrip("# ").partition(": ")[::2] for line in lines)
    return {title: one_line(texts[title]) for title in METRIC_TITLES if title in texts}


def _meaningful(config: TrainConfig) -> dict[str, Any]:
    values = flat(config.model_dump(mode="json"))
    return {key: value for key, value in values.items() if not is_meaningless(key, values)}


def _differs(key: str, configs: Sequence[dict[str, Any]]) -> bool:
    """Whether a key has two values, or has an effect in some configs alone and not just its default there."""
    values = {repr(config[key]) for config in configs if key in config}
    everywhere = all(key in config for config in configs)
    return len(values) > 1 or not (everywhere or values == {repr(_DEFAULTS.get(key))})


def _columns(names: Sequence[str]) -> list[str]:
    """Names of columns: as much of the ends of the paths as tells them apart."""
    parts = [name.split("/") for name in names]
    for length in range(1, max(map(len, parts))):
        short = ["/".join(part[-length:]) for part in parts]
        if len(set(short)) == len(set(names)):
            return [one_line(name) for name in short]
    return [one_line(name) for name in names]


def print_comparison(info: CompareInfo, console: Console) -> None:
    """Prints `compare_info` as one table, keys above metrics."""
    if info.configs.empty:
        console.print("The configs differ in nothing that has an effect.")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("", *info.configs.columns):
        table.add_column(Text(str(name)), overflow="fold")
    for part in (info.configs, info.metrics):
        for name, row in zip(part.index, part.itertuples(index=False, name=None), strict=True):
            table.add_row(Text(str(name)), *map(Text, row))
        table.add_section()
    if table.row_count:
        console.print(table)
