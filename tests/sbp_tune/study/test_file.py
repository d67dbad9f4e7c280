import re

import pytest

from sbp_tune.config import TrainConfig
from sbp_tune.errors import InputError
from sbp_tune.files import yaml_text
from sbp_tune.study.demand import Demand
from sbp_tune.study.file import Study, load_study_file
from sbp_tune.study.sections import SimulateConfig


def problems_of(text, *overrides, tmp_path):
    (tmp_path / "demo.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        load_study_file(tmp_path / "demo.yaml", list(overrides))
    return [problem.replace(f"{tmp_path}/", "") for problem in error.value.problems]


def test_trials_baselines_and_their_configs(make_study):
    study = make_study()
    assert study.total_trials == 8 and study.proposed_trials == 6
    longest, shortest = study.baselines
    assert longest["epochs"] == 8 and longest["optimizer.lr"] == pytest.approx(0.1)
    assert shortest["optimizer.lr"] == 0.5
    assert not any(key in longest for key in ("sparsity.p0", "sparsity.k", "sparsity.schedule"))
    config = TrainConfig.model_validate(study.train_config(longest))
    assert config.sparsity.estimator == "dense" and config.epochs == 8
    assert config.cpu_threads == 1 and config.device == "cpu"


def test_the_studys_energy_and_resources_go_into_every_config(make_study):
    study = make_study(("search: {trials: 6}", "energy: {country: IRL}\nresources: {cpu: 3, gpu: 1}"))
    config = study.train_config(study.space.point({}))
    assert config["energy"]["country"] == "IRL" and config["cpu_threads"] == 3 and config["device"] == "cuda"


def test_the_resolved_document_is_the_same_study(make_study):
    study = make_study()
    again = Study(study.document, "study.yaml")
    assert again.document == study.document
    assert again.baselines == study.baselines and again.space == study.space
    assert yaml_text(study.document).startswith("name: demo")


def test_a_grid_multiplies_the_trials(make_study):
    grid = ("{choice: [2, 4, 8]}", "{grid: [2, 4, 8]}")
    assert make_study(grid).proposed_trials == 18
    study = make_study(grid)
    assert Study(study.document, "study.yaml").proposed_trials == 18


def test_a_pure_grid_runs_once(tmp_path):
    text = "name: grid\nconfig: {epochs: {grid: [1, 2]}, seed: {grid: [0, 1, 2]}}\n"
    (tmp_path / "demo.yaml").write_text(text)
    study = load_study_file(tmp_path / "demo.yaml")
    assert study.proposed_trials == 6
    assert Study(study.document, "study.yaml").proposed_trials == 6
    (problem,) = problems_of(text + "search: {trials: 3}", tmp_path=tmp_path)
    assert "search.trials: found 3, but nothing is left to propose" in problem


@pytest.mark.parametrize(
    ("overrides", "problems"),
    [
        (["baselines.0.epochs=3"], ["demo.yaml: baselines.0.epochs: found 3, outside the space: choice of 2, 4, 8"]),
        (["baselines.0.epoks=3"], ["demo.yaml: baselines.0.epoks: unknown key (did you mean epochs?)"]),
        (["baselines.1.sparsity.estimator=maks"], ["baselines.1.sparsity.estimator: found 'maks', outside the space"]),
        (["serch.trials=3"], ["demo.yaml: serch: unknown key (did you mean search?)"]),
        (["search.trials=0"], ["demo.yaml: search.trials: found 0; input should be greater"]),
        (["search.scheduler=hyper"], ["demo.yaml: search.scheduler: found 'hyper'; allowed: 'none', 'moasha' or"]),
        (["objectives={kwh: less}"], ["demo.yaml: objectives.kwh: found 'less'; allowed: 'max' or 'min'"]),
        (["objectives={co2_kg: min}"], ["demo.yaml: objectives.co2_kg: needs energy.country"]),
        (["name=a/b"], ["demo.yaml: name: found 'a/b'; string should match pattern"]),
        (["trainable=nothing"], ["demo.yaml: trainable: found 'nothing'; string should match"]),
        (["config.energy.country=IRL"], ["demo.yaml: config.energy: belongs at the top level"]),
        (["config=3"], ["demo.yaml: config: found 3; input should be a valid dictionary"]),
        (["config.sparsity.p0=50"], ["demo.yaml: config.sparsity.p0: found 50; p is a fraction"]),
        (["objectives={kwh: max}"], ["demo.yaml: objectives.kwh: found max; a search for the worst is a mistake: min"]),
        (["resources.gpu=half"], ["demo.yaml: resources.gpu: found 'half'; input should be a valid number"]),
        (
            ["resources.gpu=1.5"],
            ["demo.yaml: resources.gpu: found 1.5; needs a fraction of one GPU, or a whole"],
        ),
        (
            ["resources={gpu: 0, accelerator_type: T4, models: {vgg19: {gpus: 1}}}"],
            ["demo.yaml: resources.models.vgg19.gpus: unknown key (did you mean gpu?); allowed: cpu, gpu"],
        ),
        (
            ["resources={gpu: 0, accelerator_type: T4, models: {small_cn: {cpu: 1}}}"],
            [
                "demo.yaml: resources.models.small_cn: no trial trains it; allowed: small_cnn (did you mean",
                "demo.yaml: resources.accelerator_type: found T4, but a trial has no GPU",
            ],
        ),
        (
            ["config.optimizer={nesterov: true, momentum: 0}"],
            ["demo.yaml: config.optimizer.nesterov: found True with momentum 0"],
        ),
        (["trials"], ["--set trials: needs key=value"]),
        (["=3"], ["--set =3: needs key=value"]),
        (["name.x=3"], ["--set name.x=3: name is 'demo', not a section"]),
        (["baselines.7.epochs=3"], ["--set baselines.7.epochs=3: 7 is not one of the list's places 0 to 1"]),
        (["config.epochs=[1"], ["--set config.epochs=[1:1:3: not valid YAML"]),
        (
            ["search.trials=0", "resources.gpu=-1"],
            ["demo.yaml: search.trials: found 0", "demo.yaml: resources.gpu: found -1"],
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_each(study_text, tmp_path, overrides, problems):
    found = problems_of(study_text, *overrides, tmp_path=tmp_path)
    assert len(found) == len(problems)
    for line, problem in zip(found, problems, strict=True):
        assert problem in line


@pytest.mark.parametrize("text", ["", "- 1\n", "name: x\n", "just text"])
def test_a_file_that_is_no_study(text, tmp_path):
    assert problems_of(text, tmp_path=tmp_path)[0].startswith("demo.yaml: ")
    assert problems_of(text, "search.trials=3", tmp_path=tmp_path)[0].startswith("demo.yaml: ")


def test_overrides_reach_into_sections_lists_and_domains(study_text, tmp_path):
    (tmp_path / "demo.yaml").write_text(study_text)
    study = load_study_file(
        tmp_path / "demo.yaml",
        ["config.epochs=3", "config.model.args={width: 8}", "baselines=[{sparsity.estimator: dense}]"],
        name="other",
    )
    assert study.file.name == "other"
    assert study.space.constants["epochs"] == 3 and study.space.constants["model.args.width"] == 8
    assert study.train_config(study.baselines[0])["epochs"] == 3


def test_a_relative_root_means_the_place_where_the_study_was_started(study_text, tmp_path, monkeypatch):
    (tmp_path / "demo.yaml").write_text(study_text)
    monkeypatch.chdir(tmp_path)
    for override in ("config.data.root=photos", "config.data.root={choice: [photos, /other]}"):
        study = load_study_file("demo.yaml", ["config.data.name=image_folder", override])
        monkeypatch.chdir("/")
        for again in (study, Study(study.document, "study.yaml")):
            assert again.train_config(again.space.point({}))["data"]["root"] == str(tmp_path / "photos")
        monkeypatch.chdir(tmp_path)
    study = load_study_file("demo.yaml", ["config.model={choice: [{weights: a.pt}, {args: {weights: b.pt}}]}"])
    models = next(parameter for parameter in study.space.parameters if parameter.key == "model")
    assert models.domain.samples() == [
        {"weights": str(tmp_path / "a.pt")},
        {"args": {"weights": "b.pt"}},
    ]
    baseline = "baselines=[{sparsity.estimator: dense, data.root: more, data: {name: image_folder}}]"
    study = load_study_file("demo.yaml", [baseline])
    assert study.baselines[0]["data.root"] == str(tmp_path / "more")


def test_a_baseline_names_a_searched_mapping_whole(study_text, tmp_path):
    (tmp_path / "demo.yaml").write_text(study_text)
    args = "config.model.args={choice: [{width: 4}, {width: 8}]}"
    study = load_study_file(
        tmp_path / "demo.yaml", [args, "baselines=[{sparsity.estimator: dense, model: {args: {width: 8}}}]"]
    )
    assert study.train_config(study.baselines[0])["model"]["args"] == {"width": 8}
    (problem,) = problems_of(study_text, args, "baselines=[{model.args.width: 8}]", tmp_path=tmp_path)
    assert "baselines.0.model.args.width: lies inside config.model.args, which is searched as a whole" in problem
    sparsity = "config.sparsity={choice: [{estimator: mask, p0: 0.5}, {estimator: mask, p0: 0.1}]}"
    (problem,) = problems_of(study_text, sparsity, "baselines=[{sparsity.estimator: dense}]", tmp_path=tmp_path)
    assert "baselines.0.sparsity.estimator: lies inside config.sparsity" in problem


def test_a_simulated_study_trains_nothing_and_needs_no_gpu(tmp_path, study_text, monkeypatch):
    (tmp_path / "demo.yaml").write_text(study_text + "resources: {cpu: 3, gpu: 1}\nsimulate: {noise: 0.5}\n")
    monkeypatch.chdir(tmp_path)
    study = load_study_file("demo.yaml", simulate=SimulateConfig(table="table.parquet"))
    assert study.trainable == "trainables.replay:Replay"
    assert list(study.demands()) == [Demand(1, 0)] and study.file.resources.gpu == 1
    simulate = study.beside_config["simulate"]
    assert simulate["table"] == str(tmp_path / "table.parquet") and simulate["noise"] == 0.5
    assert simulate["searched"]["optimizer.lr"] == {"low": 0.02, "high": 0.5, "log": True}
    assert simulate["searched"]["sparsity.schedule"] is None
    assert "simulate" not in study.train_config(study.space.point({}))
    again = Study(study.document, "study.yaml")
    assert again.document == study.document and again.beside_config == study.beside_config


def test_a_study_simulates_only_when_told(make_study):
    study = make_study()
    assert study.trainable == study.file.trainable and study.beside_config == {}


@pytest.mark.parametrize(
    ("budget", "problem"),
    [
        ("{kwh: 0}", "budget.kwh: found 0"),
        ("{hours: -1}", "budget.hours: found -1"),
        ("{co2_kg: 1}", "budget.co2_kg: needs energy.country"),
        ("{hypervolume_gain: {trials: 5}}", "budget.hypervolume_gain.per_kwh: missing"),
        ("{hypervolume_gain: {per_kwh: 0.1, trials: 0}}", "budget.hypervolume_gain.trials: found 0"),
        ("{trials: 5}", "budget.trials"),
    ],
)
def test_budgets_that_are_none(make_study, budget, problem):
    with pytest.raises(InputError, match=re.escape(problem)):
        make_study(("search: {trials: 6}", f"budget: {budget}"))
