"""What `search --dry-run` prints: the resolved space, the baselines, how many trials, and where they would run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sbp_tune.study.demand import Nodes
from sbp_tune.study.file import Study
from sbp_tune.study.placement import holds, local_nodes, trials_at_a_time
from sbp_tune.study.preflight import check_on_this_machine
from sbp_tune.study.ray_session import cluster_in_use, connected_ray
from sbp_tune.study.running import machines_of_ray
from sbp_tune.study.simulation import simulation_text
from sbp_tune.study.stopping import ladder_of
from sbp_tune.study.working import shown


def print_preview(study: Study, path: Path, address: str | None, console: Console | None = None) -> None:
    """Checks data and models too; InputError as `search` would raise it."""
    console = console or Console()
    if study.file.simulate is not None:
        console.print(simulation_text(study.document), markup=False, highlight=False)
    address = cluster_in_use(address)
    nodes = _nodes(address)
    study = study.placed_on(nodes)
    check_on_this_machine(study, address)
    table = Table(title=f"{study.file.name}: searched", title_justify="left")
    for name in ("parameter", "domain", "only when"):
        table.add_column(name)
    for parameter in study.space.parameters:
        when = "; ".join(f"{key} is {' or '.join(map(str, allowed))}" for key, allowed in parameter.when.items())
        table.add_row(parameter.key, escape(str(parameter.domain)), escape(when))
    console.print(table)
    constants = ", ".join(f"{key} = {value}" for key, value in study.space.constants.items())
    console.print(f"Fixed: {constants or 'nothing'}", markup=False, highlight=False)
    for index, point in enumerate(study.baselines):
        values = ", ".join(f"{key} = {_short(value)}" for key, value in point.items())
        console.print(f"Baseline {index}: {values}", markup=False, highlight=False)
    objectives = ", ".join(f"{name} ({mode})" for name, mode in study.objectives.items())
    console.print(f"Objectives: {objectives}; sampler {study.sampler}, seed {study.file.search.seed}")
    if study.constraints:
        console.print(f"Constraints: {'; '.join(constraint.text for constraint in study.constraints)}", highlight=False)
    if study.file.search.scheduler != "none":
        _print_rungs(study, console)
    console.print(
        f"Trials: {study.total_trials} = {len(study.baselines)} baselines + {study.proposed_trials} proposed; "
        f"results would go to {shown(path)}",
        markup=False,
    )
    _print_placement(study, nodes, console)


def _print_rungs(study: Study, console: Console) -> None:
    search = study.file.search
    ladder = ladder_of(search, study.longest_training)
    which = ", of those that wait," if search.halving == "promotion" else ""
    console.print(
        f"Scheduler {search.scheduler}: about 1 trial in {ladder.reduction_factor:.3g}{which} goes on after",
        highlight=False,
    )
    for bracket in range(search.brackets):
        rungs = ladder.below(bracket, study.longest_training)
        console.print(f"  epochs {', '.join(map(str, rungs))}", highlight=False)


def _nodes(address: str | None) -> Nodes:
    if address is None:
        return local_nodes()
    with connected_ray(address):
        return machines_of_ray()


def _print_placement(study: Study, nodes: Nodes, console: Console) -> None:
    at_a_time = trials_at_a_time(study, nodes)
    for name, node in nodes.items():
        has = f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs"
        console.print(f"{name}: {has}, holds {holds(study, node)}", markup=False, highlight=False)
    demands = study.demands()
    for demand, models in demands.items():
        of = f" of {', '.join(models)}" if len(demands) > 1 else ""
        console.print(f"A trial{of} takes {demand}: {at_a_time} at a time.", markup=False, highlight=False)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
