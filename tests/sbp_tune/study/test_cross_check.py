from __future__ import annotations

import json
import os
import socket
from typing import ClassVar

import pytest

from sbp_tune.config import EnergyConfig
from sbp_tune.study import cross_check as module
from sbp_tune.study.cross_check import CrossCheck, cross_check, read_cross_checks


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    "place",
    [{}, {"country": "IRL"}, {"country": "USA", "region": "texas"}, {"cloud": "gcp", "cloud_region": "us-east1"}],
)
def test_codecarbon_itself_is_heard_and_writes_nothing_else(place, tmp_path, no_network, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with cross_check(tmp_path / "study", EnergyConfig(**place, pue=1.5), "alpha"):
        sum(i * i for i in range(100_000))
    [run] = read_cross_checks(tmp_path / "study")
    assert (run.version.split(".")[0], run.node, run.error) == ("3", "alpha", None)
    assert 0 < run.end - run.start < 60
    assert run.kwh["cpu"] > 0 and run.kwh["ram"] > 0
    assert run.kwh["cpu"] < 400 * (run.end - run.start) / 3.6e6  # PUE is not in it
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [
        "study/energy/codecarbon.json"
    ]
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_search_and_the_one_that_goes_on_are_both_kept(tmp_path, no_network):
    with pytest.raises(KeyboardInterrupt), cross_check(tmp_path, EnergyConfig(), "alpha"):
        raise KeyboardInterrupt
    with cross_check(tmp_path, EnergyConfig(), "beta"):
        pass
    assert [run.node for run in read_cross_checks(tmp_path)] == ["alpha", "beta"]


class SilentTracker:
    """CodeCarbon keeps its errors to itself: then there is no result."""

    arguments: ClassVar[dict] = {}

    def __init__(self, **arguments):
        SilentTracker.arguments = arguments

    def start(self):
        pass

    def stop(self):
        return None


@pytest.mark.parametrize(("indices", "gpus"), [([0, 1, 2, 3], [0, 1, 2, 3]), ([], [])])
def test_gpus_are_named_by_number_whatever_the_environment_says(indices, gpus, tmp_path, monkeypatch):
    class Nvml:
        def inventory(self):
            return [type("Gpu", (), {"index": index})() for index in indices]

    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "GPU-1a6f2f0c-8a2d-4b7e-9d9b-0c4b2f6e7a11")
    monkeypatch.setattr(module, "system_nvml", Nvml)
    monkeypatch.setattr("codecarbon.OfflineEmissionsTracker", SilentTracker)
    with cross_check(tmp_path, EnergyConfig(country="IRL"), "alpha"):
        pass
    assert SilentTracker.arguments["gpu_ids"] == gpus and SilentTracker.arguments["output_methods"] == []
    [run] = read_cross_checks(tmp_path)
    assert run.error == "CodeCarbon gave no result" and run.kwh == {}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"runs": [{"version": 1}]}', "half a li"])
def test_a_file_that_is_none_of_ours_is_none(text, tmp_path):
    (tmp_path / "energy").mkdir()
    (tmp_path / "energy" / "codecarbon.json").write_text(text)
    assert read_cross_checks(tmp_path) == []
    run = CrossCheck("3.3.2", "alpha", 1.0, 2.0, {"gpu": None, "cpu": 1.0, "ram": 1.0})
    (tmp_path / "energy" / "codecarbon.json").write_text(json.dumps({"runs": [vars(run)]}))
    assert read_cross_checks(tmp_path) == [run]
