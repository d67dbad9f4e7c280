import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis import compare as module
from analysis.compare import compare_info, print_comparison
from analysis.export import export_config
from sbp_tune.cli import app
from sbp_tune.errors import InputError


@pytest.fixture
def study(build):
    values = {"kwh_measured_share": 0.0, "train_time_s": 90.0, "data__batch_size": 32}
    return build.study(
        build.control(0.95, 2e-6, epochs=8, **values),
        build.sparse(0.9, 1e-6, epochs=4, sparsity__p0=0.25, **values),
    )


@pytest.fixture
def files(study, tmp_path):
    """Dense as YAML, sparse as JSON, and a config that a person wrote."""
    (tmp_path / "own.yaml").write_text("# energy, I think: little\n# kwh: 3\nepochs: 8\ndata: {batch_size: 32}\n")
    exported = [
        export_config(study, f"trial={number}", tmp_path / name)
        for number, name in enumerate(("dense.yaml", "sparse.json"))
    ]
    return [str(path) for path in (*exported, tmp_path / "own.yaml")]


def test_keys_that_differ_and_metrics_beside_them(files):
    info = compare_info(files)
    assert list(info.configs) == ["dense.yaml", "sparse.json", "own.yaml"]
    rows = {key: list(row) for key, row in info.configs.iterrows()}
    assert rows["epochs"] == ["8", "4", "8"]
    assert rows["sparsity.estimator"] == ["dense", "batch_slice", "dense"]
    assert rows["sparsity.p0"] == ["–", "0.25", "–"]  # of a dense run it means nothing
    assert set(rows) == {"epochs", "sparsity.estimator", "sparsity.p0"}  # not the sparse run's defaults, not batch_size
    metrics = {title: list(row) for title, row in info.metrics.iterrows()}
    assert metrics == {
        "val. accuracy": ["95.00 %", "90.00 %", "–"],
        "energy": ["2.00 mWh", "1.00 mWh", "–"],
        "time": ["1.50 min", "1.50 min", "–"],
    }


def test_yaml_and_json_of_a_trial_say_the_same(study, tmp_path):
    paths = [str(export_config(study, "trial=1", tmp_path / name)) for name in ("a.yaml", "b.json")]
    info = compare_info(paths)
    assert info.configs.empty and (info.metrics["a.yaml"] == info.metrics["b.json"]).all() and len(info.metrics) == 3
    out = io.StringIO()
    print_comparison(info, Console(file=out, width=100))
    assert "differ in nothing that has an effect" in out.getvalue() and "1.00 mWh" in out.getvalue()


def test_a_point_of_a_study_needs_no_export(study, files, monkeypatch):
    monkeypatch.setattr(module, "load_study", lambda path: study)
    info = compare_info([files[0], "results/demo:max-accuracy", "results/demo:trial=1"])
    assert list(info.metrics.loc["val. accuracy"]) == ["95.00 %", "95.00 %", "90.00 %"]
    assert set(info.configs.loc["epochs"]) == {"8", "4"}


def test_columns_are_told_apart_by_the_ends_of_their_paths(tmp_path):
    names = [str(tmp_path / folder / "best.yaml") for folder in ("a", "b")]
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("epochs: 3\n")
    (tmp_path / "own.yaml").write_text("epochs: 4\n")
    assert list(compare_info([*names, str(tmp_path / "own.yaml")]).configs)[:2] == ["a/best.yaml", "b/best.yaml"]
    assert list(compare_info([names[0], str(tmp_path / "own.yaml")]).configs) == ["best.yaml", "own.yaml"]
    assert list(compare_info([names[0], names[0]]).configs) == ["best.yaml", "best.yaml"]


def test_all_problems_at_once(files, tmp_path):
    (tmp_path / "wrong.yaml").write_text("epocs: 3\n")
    (tmp_path / "odd.json").write_text('{"provenance": {"metrics": 3}}')
    names = [files[0], "none.yaml", "nothing:knee", *(str(tmp_path / name) for name in ("wrong.yaml", "odd.json"))]
    with pytest.raises(InputError) as raised:
        compare_info(names)
    for line, part in zip(
        raised.value.problems,
        ("none.yaml: no such file", "nothing: not a study", "epocs: unknown key", "odd.json: provenance: is not what"),
        strict=True,
    ):
        assert part in line
    with pytest.raises(InputError, match="found 1 config; needs two or more"):
        compare_info(files[:1])


def test_on_the_terminal_markup_stays_text(files, tmp_path):
    (tmp_path / "[red]x.yaml").write_text("epochs: 8\nmodel: {name: '[bold]m:Net'}\n")
    result = CliRunner().invoke(app, ["compare", files[0], str(tmp_path / "[red]x.yaml")], env={"COLUMNS": "120"})
    assert result.exit_code == 0 and "[red]x.yaml" in result.output and "[bold]m:Net" in result.output
