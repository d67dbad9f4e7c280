import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from sbp_tune.cli import app

COMMANDS = [
    *(
        "search",
        "resume",
        "extend",
        "confirm",
        "record",
        "report",
        "energy",
        "export",
        "tables",
        "compare",
        "pack",
        "train",
        "spaces",
        "plot-schedule",
        "doctor",
    ),
]
run = CliRunner().invoke


def test_help_of_every_command_has_an_example():
    assert all(f" {command} " in run(app, ["--help"]).output for command in COMMANDS)
    for command in COMMANDS:
        assert f"Example:  sbp-tune {command}" in run(app, [command, "--help"]).output


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom sbp_tune.cli import app\n"
        "CliRunner().invoke(app, ['search', '--help'])\n"
        "print([m for m in ('torch', 'ray', 'plotly', 'pandas', 'optuna', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_spaces_lists_each_shipped_file_in_a_line():
    lines = run(app, ["spaces"]).output.splitlines()
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
    assert any(line.startswith("quickstart ") for line in lines) and all(line.endswith(".") for line in lines)


def test_doctor_says_what_is_modelled():
    result = run(app, ["doctor"])
    assert result.exit_code == 0 and "modelled" in result.output


def test_dry_run_shows_space_baselines_trials_and_placement(tmp_path):
    result = run(app, ["search", "quickstart", "--dry-run", "--results", str(tmp_path)])
    assert result.exit_code == 0
    for part in (
        "sparsity.p0",
        "uniform [0.05, 1]",
        "Baseline 0: sparsity.estimator = dense, epochs = ",
    ):
        assert part in result.output
    assert "= 5 baselines + 16 proposed" in result.output and "at a time" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "none.yaml"], "error: none.yaml: no such file"),
        (["search", "quickstart", "--set", "config.sparsity.p0=50"], "p is a fraction, not a percent"),
        (
            ["search", "quickstart", "--set", "config.data.name=mnist"],
            "config.data.name: found 'mnist'; allowed: cifar10",
        ),
        (["search", "quickstart", "--set", "config.model={name: resnet19}"], "config.model.name: "),
        (["search", "quickstart", "--set", "config.epocs=3"], "config.epocs: unknown key (did you mean epochs?)"),
        (["search", "quickstart", "--set", "search.trials=many"], "search.trials: found 'many'"),
        (["search", "quickstart", "--set", "energy.country=XXX"], "XXX"),
        (
            ["search", "quickstart", "--set", "trainable=nowhere:Thing"],
            "trainable: found nowhere:Thing; nowhere cannot",
        ),
        (["search", "quickstart", "--set", "resources.cpu=4096", "--dry-run"], "a trial asks for cpu 4096 and gpu 0"),
        (["search", "quickstart", "--set", "trainable=json:dumps"], "needs a class derived from ray.tune.Trainable"),
        (["search", "quickstart", "--set", "config.model={name: alexnet}"], "alexnet"),
        (
            ["search", "quickstart", "--set", "config.data={name: image_folder, root: /nowhere}"],
            "config.data.root: /nowhere: no such folder",
        ),
        (["resume", "nothing"], "error: nothing: not a study directory"),
        (["extend", "nothing", "--trials", "+1"], "error: nothing: not a study directory"),
        (["confirm", "nothing"], "error: nothing: not a study directory"),
        (["report", "nothing"], "error: nothing: not a study directory"),
        (["record", "nothing"], "error: nothing: not a study directory"),
        (["search", "quickstart", "table.parquet"], "error: TABLE: found table.parquet; a table is for --simulate"),
        (["energy", "nothing"], "error: nothing: not a study directory"),
        (["tables", "nothing"], "error: nothing: not a study directory"),
        (["export", "nothing", "-o", "x.yaml"], "error: nothing: not a study directory"),
        (["compare", "none.yaml"], "error: compare: found 1 config; needs two or more"),
        (["pack", "nothing", "-o", "x/y"], "error: nothing: not a study directory"),
        (["train", "none.yaml"], "error: none.yaml: no such file"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(app, arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_one_class_only(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "cat" / f"{index}.png")
    data = f"config.data={{name: image_folder, root: {tmp_path / 'photos'}}}"
    result = run(app, ["search", "quickstart", "--results", str(tmp_path / "results"), "--set", data])
    assert result.exit_code == 2 and "cat" in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert "config.data.root: " in result.stderr and not (tmp_path / "results").exists()


def test_an_existing_study_is_refused(tmp_path):
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart" / "study.db").write_text("somebody's")
    result = run(app, ["search", "quickstart", "--results", str(tmp_path)])
    assert result.exit_code == 2
    assert "a study of this name exists; continue it with `sbp-tune resume" in result.stderr
    assert "--name" in result.stderr
    assert (tmp_path / "quickstart" / "study.db").read_text() == "somebody's"
    (tmp_path / "plain").write_text("a file")
    result = run(app, ["search", "quickstart", "--results", str(tmp_path), "--name", "plain"])
    assert result.exit_code == 2 and "a study of this name exists" in result.stderr


def test_a_path_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "config.yaml").write_text("epochs: 1\n")
    result = run(app, ["train", str(tmp_path / "config.yaml"), "-o", str(tmp_path / "file")])
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1


def test_a_folder_does_not_hide_a_shipped_space(tmp_path, monkeypatch):
    (tmp_path / "quickstart").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(app, ["search", "quickstart", "--dry-run"]).exit_code == 0


def test_a_model_of_ones_own_in_the_working_directory(tmp_path):
    code = "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
    code += "    def __init__(self, num_classes):\n        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))\n"
    (tmp_path / "my_own_net.py").write_text(code)
    (tmp_path / "config.yaml").write_text("model: {name: 'my_own_net:Net'}\nepochs: 1\ndata: {subset: 64}\n")
    command = [sys.executable, "-P", "-m", "sbp_tune.cli", "train", "config.yaml", "-o", "run"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "model.pt").exists()


def test_a_config_with_a_percent(tmp_path):
    (tmp_path / "config.yaml").write_text("sparsity: {estimator: mask, p0: 50}\n")
    result = run(app, ["train", str(tmp_path / "config.yaml"), "-o", str(tmp_path / "run")])
    assert result.exit_code == 2 and "config.yaml: sparsity.p0: found 50; p is a fraction" in result.stderr
    assert not (tmp_path / "run").exists()
