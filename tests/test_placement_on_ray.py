"""Trials that take different things of a node, several GPUs among them, on a real Ray with GPUs that its meter has."""

import pytest
from fake_gpus import UUIDS
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.energy import node_actor
from sbp_tune.energy.ledger import read_ledger
from sbp_tune.energy.records import LeaseOpened
from sbp_tune.files import read_yaml
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.study.results import load_study

pytestmark = pytest.mark.slow

STUDY = """
name: sizes
trainable: several_gpus:SeveralGpus
config:
  data: {name: digits}
  model: {name: {grid: [small_cnn, small_resnet]}}
  seed: {grid: [0, 1]}
resources: {cpu: 1, accelerator_type: T4, models: {small_resnet: {cpu: 2, gpu: 3}}}
search: {concurrent: 2}
"""
run = CliRunner().invoke


def search(path, address, *options):
    (path / "sizes.yaml").write_text(STUDY)
    command = ["search", str(path / "sizes.yaml"), "--results", str(path), "--address", address]
    return run(app, [*command, *options])


def test_trials_have_what_their_model_takes_see_it_by_uuid_and_are_billed_all_of_it(tmp_path, ray_address, monkeypatch):
    monkeypatch.setenv(node_actor.COUNTERS, "fake_gpus:counters")
    result = search(tmp_path, ray_address)
    assert result.exit_code == 0, result.output
    path = tmp_path / "sizes"
    assert read_yaml(path / "study.yaml")["resources"] == {
        "cpu": 1,
        "gpu": 1.0,
        "accelerator_type": "T4",
        "models": {"small_resnet": {"cpu": 2, "gpu": 3.0}},
        "epoch_timeout_s": None,
    }
    trials = load_study(path).trials
    assert trials["state"].tolist() == ["complete"] * 4
    leases = {lease.trial: lease for lease in read_ledger(ledger_folder(path)) if isinstance(lease, LeaseOpened)}
    for row in trials.to_dict("records"):
        cpus, gpus = {"small_cnn": (1, 1), "small_resnet": (2, 3)}[row["config.model.name"]]
        lease = leases[str(row["trial"])]
        order, seen = row["device"].split()
        assert order == "PCI_BUS_ID" and seen.split(",") == list(lease.gpus) and set(lease.gpus) <= set(UUIDS)
        assert len(lease.gpus) == gpus and set(lease.gpus.values()) == {1.0}
        assert row["gpu_uuid"] == " ".join(sorted(lease.gpus))
        assert lease.cpus == row["peak_rss_gb"] == row["config.cpu_threads"] == cpus
        assert row["kwh_gpu"] > 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            "resources.accelerator_type=A100",
            "gpu 1 of type A100 on one node, but Ray has 2 CPUs and 4 GPUs (types: T4",
        ),
        (
            "resources.models.small_resnet.gpu=5",
            "resources.models.small_resnet: a trial asks for cpu 2 and gpu 5 of",
        ),
        (
            "trainable=trainables.sparse_backprop:SparseBackprop",
            "resources.gpu: found 3, but trainables.sparse_bac",
        ),
    ],
)
def test_what_cannot_be_placed_is_said_before_anything_starts(tmp_path, ray_address, change, problem):
    result = search(tmp_path, ray_address, "--set", change)
    assert result.exit_code == 2 and problem in result.stderr
    assert not (tmp_path / "sizes").exists()


def test_the_preview_says_where_trials_would_run(tmp_path, ray_address):
    result = search(tmp_path, ray_address, "--dry-run")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "2 CPUs, 4 GPUs, holds 1 (small_resnet) to 2 (small_cnn) trials" in said
    assert "A trial of small_cnn takes 1 CPU and 1 GPU of type T4: 2 at a time" in said
    assert "A trial of small_resnet takes 2 CPU and 3 GPU of type T4" in said
