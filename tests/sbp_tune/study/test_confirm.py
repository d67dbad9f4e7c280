"""The plan of a confirmation and the order of its runs, without Ray."""

import pandas as pd
import pytest
from ray.tune.search import Searcher

from sbp_tune.files import parse_yaml, yaml_text
from sbp_tune.study.blocks import BlockSearcher
from sbp_tune.study.confirm import confirm, planned
from sbp_tune.study.file import Study
from sbp_tune.study.lock import only_writer
from sbp_tune.study.results import StudyResults
from sbp_tune.study.searcher import enqueue_fixed_points
from sbp_tune.study.storage import create_study, open_study

P0 = (0.2, 0.4, 0.6)
DONE = {"val_accuracy": 0.9, "kwh": 1e-6, "fully_trained": True}


@pytest.fixture
def finished(tmp_path, make_study):
    """finished(*replacements) -> the results of a study: its baselines, its grid, and three more points."""

    def results(*replacements) -> StudyResults:
        study = make_study(*replacements)
        points = [*study.baselines, *(study.space.point({"sparsity.p0": p0, **g}) for g in study.grid for p0 in P0)]
        configs = {number: study.train_config(point) for number, point in enumerate(points)}
        return StudyResults("demo", tmp_path, study.document, {}, {}, pd.DataFrame(), pd.DataFrame(), configs)

    return results


def runs_of(study):
    return [(run.point, run.seed) for run in study.file.confirm.runs]


def test_every_point_has_the_same_fresh_seeds_in_blocks_of_random_order(finished):
    results = finished()
    study = planned(results, [0, 1, 3, 4], 5)
    runs = runs_of(study)
    blocks = [runs[start : start + 4] for start in range(0, 20, 4)]
    assert all(len({seed for _, seed in block}) == 1 for block in blocks)
    assert all(sorted(point for point, _ in block) == ["0", "1", "3", "4"] for block in blocks)
    assert len({tuple(point for point, _ in block) for block in blocks}) > 1
    seeds = {seed for _, seed in runs}
    assert len(seeds) == 5 and not seeds & {config["seed"] for config in results.configs.values()}
    assert runs_of(planned(results, [0, 1, 3, 4], 5)) == runs  # whoever is killed before the first writes it again


def test_a_run_is_the_trial_with_another_seed_and_is_tested(finished):
    layers = "estimator: {choice: [mask]}\n    layers: {overrides: {'layer4.*': 0.2, layer4.0.conv1: 0.5}}"
    results = finished(("estimator: {choice: [mask]}", layers))
    study = planned(results, [2, 0], 2)
    for index, (point, seed) in enumerate(runs_of(study)):
        assert study.train_config(study.baselines[index]) == {**results.config_of(int(point)), "seed": seed}
    assert results.config_of(2)["sparsity"]["layers"]["overrides"] == {"layer4.*": 0.2, "layer4.0.conv1": 0.5}
    assert study.beside_config == {"test": True} and (study.total_trials, study.proposed_trials) == (4, 0)
    again = Study(parse_yaml(yaml_text(study.document), "study.yaml"), "study.yaml")
    assert again.document == study.document


def test_a_second_call_only_adds(finished):
    results = finished()
    first = planned(results, [0, 3], 2)
    same = planned(results, [3, 0], 1, first.document)
    assert same.document["confirm"] == first.document["confirm"]
    more_points = planned(results, [0, 3, 4], 2, first.document)
    seeds = list(dict.fromkeys(seed for _, seed in runs_of(first)))
    assert runs_of(more_points) == [*runs_of(first), *(("4", seed) for seed in seeds)]
    more_seeds = planned(results, [0, 3], 4, more_points.document)
    added = runs_of(more_seeds)[6:]
    assert runs_of(more_seeds)[:6] == runs_of(more_points)
    assert sorted(point for point, _ in added) == ["0", "0", "3", "3"]
    assert len({seed for _, seed in added} - set(seeds)) == 2


def test_trials_that_differ_in_their_seed_alone_are_one_point(finished):
    results = finished(
        ("seed: {int: [0, 3]}", "seed: {grid: [0, 1]}"),
    )
    assert [config["seed"] for config in results.configs.values()] == [0, 0, 0, 0, 0, 1, 1, 1]
    assert list(planned(results, [0, 2, 5, 7], 2).file.confirm.points) == ["0", "2", "7"]  # 5 is 2 again


@pytest.mark.parametrize(
    ("resources", "at_a_time"),
    [("{gpu: 1}", 3), ("{cpu: 1}", None), ("{gpu: 1}\nsimulate: {noise: 0.5}", None)],
)
def test_on_gpus_no_more_runs_at_a_time_than_seeds(finished, resources, at_a_time):
    study = planned(finished(("search:", f"resources: {resources}\nsearch:")), [0, 2], 3)
    assert study.file.search.concurrent == at_a_time


def test_a_simulation_of_the_nearest_trial_still_knows_what_was_searched(finished):
    results = finished(("search:", "simulate: {}\nsearch:"))
    beside = planned(results, [0, 2], 2).beside_config
    assert beside["simulate"]["searched"] == Study(results.study, "").searched
    assert set(beside["simulate"]["searched"]) == {
        *("optimizer.lr", "epochs", "seed", "sparsity.estimator", "sparsity.schedule", "sparsity.p0", "sparsity.k")
    }


@pytest.fixture
def searcher(finished, tmp_path):
    """A BlockSearcher of 3 seeds and 3 points, and which (point, seed) a config is."""
    results = finished()
    study, path = planned(results, [0, 2, 3], 3), tmp_path / "confirm"
    path.mkdir()
    enqueue_fixed_points(create_study(path, "c", study.objectives, {}), study)
    return BlockSearcher(study, path, study.file.confirm)


def test_what_ends_is_followed_by_a_run_of_its_seed(searcher):
    """Three workers, whoever is first: each of them only ever has runs of one seed."""
    worker_seeds = {name: [searcher.suggest(f"{name}0")["seed"]] for name in "abc"}
    assert len({seeds[0] for seeds in worker_seeds.values()}) == 3
    for turn, name in enumerate("cacbba"):
        before = len(worker_seeds[name])
        searcher.on_trial_complete(f"{name}{before - 1}", DONE)
        worker_seeds[name].append(searcher.suggest(f"{name}{before}")["seed"])
        assert len(set(worker_seeds[name])) == 1, turn
    assert searcher.suggest("one too many") is None  # those that run may yet have to go on
    for name, seeds in worker_seeds.items():
        searcher.on_trial_complete(f"{name}{len(seeds) - 1}", DONE)
    assert searcher.suggest("one too many") == Searcher.FINISHED


def test_with_more_workers_than_seeds_none_waits(searcher):
    started = [searcher.suggest(f"t{index}") for index in range(9)]
    assert sorted(config["lease"]["trial"] for config in started) == list("012345678")
    assert len({config["seed"] for config in started[:3]}) == 3


def test_runs_that_were_added_are_enqueued_once(finished, tmp_path):
    results = finished()
    first = planned(results, [0, 3], 2)
    path = tmp_path / "confirm"
    path.mkdir()
    storage = create_study(path, "c", first.objectives, {})
    for study in (first, first, planned(results, [0, 3], 3, first.document), first):
        enqueue_fixed_points(storage, study)
    points = [trial.user_attrs["point"] for trial in open_study(path).get_trials()]
    assert [point["seed"] for point in points] == [seed for _, seed in runs_of(study)] + [points[-1]["seed"]] * 2


def test_a_study_in_use_is_refused(finished, tmp_path):
    study = Study(finished().study, "study.yaml")
    (tmp_path / "study.yaml").write_text(yaml_text(study.document))
    create_study(tmp_path, "demo", study.objectives, {})
    with only_writer(tmp_path), pytest.raises(Exception, match="another process runs this study at present"):
        confirm(tmp_path, [0, 3], 2)
    assert not (tmp_path / "confirm").exists()
