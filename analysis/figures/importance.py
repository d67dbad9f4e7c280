"""Which searched values mattered, for each objective."""

from __future__ import annotations

import warnings
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from analysis.figures import style
from analysis.figures.searched import short_names
from analysis.text import escaped
from analysis.trials import is_compared, meaningful_config, useful
from sbp_tune.errors import InputError
from sbp_tune.study.results import StudyResults

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial
    from plotly.graph_objects import Figure

    from sbp_tune.study.domains import Domain

_EPOCH = datetime(1970, 1, 1)  # Optuna wants a time; importance does not depend on it

Evaluator = Literal["ped_anova", "fanova"]

TOP = 0.1
LEAST_TOP = 5
MOST_TRIALS = 2000
"""More trials say nothing more: so many are drawn at random."""
LEAST_TRIALS = 20
"""Fewer trials than these say nothing: PED-ANOVA compares the best tenth, of at least 5, with all."""


class ImportanceInfo(NamedTuple):
    """importance: [searched keys, objectives], each column sums to 1; the most important of the first objective
    first; NaN where an evaluator passes over a key. trials: by objective, those that were looked at; best: how many
    of them count as good (0 for fANOVA). problem: why the table is empty, a sentence.
    """

    importance: pd.DataFrame
    trials: dict[str, int]
    best: dict[str, int]
    problem: str | None


def importance_info(study: StudyResults, evaluator: Evaluator = "ped_anova") -> ImportanceInfo:
    """Importance by Optuna's evaluators, of the complete trials that the search proposed (no baselines).

    ped_anova: how much a value decides on being among the best tenth (of at least 5 trials), conditional values too.
    Source: Watanabe et al. 2023, arXiv:2304.10255. fanova: share of the objective's variance, of values that all
    trials have. Source: Hutter et al. 2014. InputError for another evaluator.
    """
    if evaluator not in ("ped_anova", "fanova"):
        raise InputError(f"evaluator: found {evaluator!r}; allowed: ped_anova, fanova")
    domains = _domains(study)
    proposed = is_compared(study, study.objectives) & (study.trials["kind"] == "search")
    values = pd.DataFrame({name: useful(study, name) for name in study.objectives})[proposed]
    counts = {name: int(np.isfinite(values[name]).sum()) for name in study.objectives}
    problem = None
    if not domains:
        problem = "The study file varies nothing, so nothing can be important."
    elif min(counts.values()) < LEAST_TRIALS:
        problem = f"Importance needs {LEAST_TRIALS} complete trials that the search proposed; so far: "
        problem += f"{min(counts.values())}."
    if problem:
        return ImportanceInfo(pd.DataFrame(columns=list(study.objectives), dtype=float), counts, {}, problem)
    if len(values) > MOST_TRIALS:
        values = values.sample(MOST_TRIALS, random_state=0)
        counts = {name: int(np.isfinite(values[name]).sum()) for name in study.objectives}
    trials = _optuna_study(study, domains, values)
    best = {name: max(LEAST_TOP, int(np.ceil(TOP * count))) for name, count in counts.items()}
    if evaluator == "fanova":
        best = dict.fromkeys(counts, 0)
    columns = {name: _evaluate(study, trials, values[name], evaluator, best[name], counts[name]) for name in best}
    importance = pd.DataFrame(columns, index=pd.Index(list(domains)))
    order = importance.sum(axis=1) * 1e-9 + importance.iloc[:, 0]
    return ImportanceInfo(importance.loc[order.sort_values(ascending=False).index], counts, best, None)


def plot_importance(study: StudyResults, evaluator: Evaluator = "ped_anova") -> Figure:
    """Horizontal bars, a colour for each objective."""
    return draw_importance(importance_info(study, evaluator))


def draw_importance(info: ImportanceInfo) -> Figure:
    """`plot_importance` of data that is there already."""
    bars = len(info.importance) * len(info.importance.columns)
    figure = style.new_figure("Importance (%)", barmode="group", height=150 + max(100, 20 * bars))
    if info.problem:
        return style.say(figure, info.problem)
    names = short_names([str(key) for key in info.importance.index])
    labels = [escaped(name) for name in names.values()]
    for place, objective in enumerate(info.importance):
        figure.add_bar(
            x=(100 * info.importance[objective]).round(2).tolist(), y=labels, orientation="h", name=escaped(objective),
            marker_color=style.line_of(place)["color"],
            hovertemplate="%{y} for %{fullData.name}: %{x:.1f} %<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    if not any(info.best.values()):
        return style.caption(figure, "fANOVA: share of each objective's variance.")
    first = next(iter(info.trials))
    return style.caption(figure, f"PED-ANOVA: what decides on being among the best {info.best[first]} of "
                                 f"{info.trials[first]} trials.")  # fmt: skip


def _domains(study: StudyResults) -> dict[str, Domain]:
    from sbp_tune.study.space_parser import parse_space  # 1 s, for optuna

    space = parse_space(study.study.get("config") or {}, study.name)
    return {parameter.key: parameter.domain for parameter in space.parameters}


def _distribution(domain: Domain) -> BaseDistribution:
    import optuna

    from sbp_tune.study.domains import parameter_value

    bounds = domain.bounds()
    if bounds is None:
        return optuna.distributions.CategoricalDistribution([parameter_value(domain, one) for one in domain.samples()])
    if domain.kind == "int":
        return optuna.distributions.IntDistribution(int(bounds["low"]), int(bounds["high"]))
    return optuna.distributions.FloatDistribution(**bounds)


def _optuna_study(study: StudyResults, domains: dict[str, Domain], values: pd.DataFrame) -> OptunaStudy:
    """The trials as Optuna knows them, from the table: only values that had an effect, as they were trained with."""
    import optuna

    from sbp_tune.study.domains import parameter_value

    distributions = {key: _distribution(domain) for key, domain in domains.items()}
    active = meaningful_config(study).reindex(columns=list(domains)).notna()
    trials: list[FrozenTrial] = []
    for row, number in study.trials.loc[values.index, "trial"].items():
        config = study.config_of(int(number))
        found = {key: _at(config, key) for key, there in active.loc[row].items() if there}
        found = {str(key): value for key, value in found.items() if domains[str(key)].contains(value)}
        trials.append(
            optuna.trial.FrozenTrial(
                number=len(trials),
                trial_id=len(trials),
                state=optuna.trial.TrialState.COMPLETE,
                value=None,
                values=[0.0] * values.shape[1],
                datetime_start=_EPOCH,
                datetime_complete=_EPOCH,
                params={key: parameter_value(domains[key], value) for key, value in found.items()},
                distributions={key: distributions[key] for key in found},
                user_attrs={"row": row},
                system_attrs={},
                intermediate_values={},
            )
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna_study = optuna.create_study(directions=["minimize"] * values.shape[1])
    optuna_study.add_trials(trials)
    return optuna_study


def _at(config: dict[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _evaluate(
    study: StudyResults, trials: OptunaStudy, values: pd.Series, evaluator: Evaluator, best: int, count: int
) -> dict[str, float]:
    import optuna

    signed = -values if study.objectives[str(values.name)] == "max" else values
    losses = {int(str(row)): float(loss) for row, loss in signed.items()}
    importance: Any = optuna.importance
    rule = (
        importance.FanovaImportanceEvaluator(seed=0)
        if evaluator == "fanova"
        else importance.PedAnovaImportanceEvaluator(target_quantile=best / count)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that low is good, and that few trials have a rare value
        return dict(importance.get_param_importances(trials, evaluator=rule, target=partial(_loss, losses)))


def _loss(losses: dict[int, float], trial: FrozenTrial) -> float:
    return losses[trial.user_attrs["row"]]
