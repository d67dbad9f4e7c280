"""The dashboard in a process of its own: its page and its API, as a browser would ask."""

import json
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from sbp_tune.errors import InputError
from sbp_tune.study.dashboard import serve_dashboard
from sbp_tune.study.storage import create_study

OBJECTIVES = {"val_accuracy": "max", "kwh": "min"}


def begun(path, storage):
    path.mkdir()
    (path / "study.yaml").write_text(f"name: demo\nsearch: {{storage: {storage}}}")
    study = create_study(path, "demo", OBJECTIVES, {})
    study.tell(study.ask(), [0.9, 0.2])
    return path


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_it_shows_the_trials(tmp_path, storage):
    pytest.importorskip("optuna_dashboard")
    path = begun(tmp_path / "demo", storage)
    command = [sys.executable, "-m", "sbp_tune.cli", "dashboard", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[0]
            page = urlopen(address).read().decode()
            root, _, number = address.partition("/dashboard/studies/")
            study = json.load(urlopen(f"{root}/api/studies/{number}?after=0"))
        finally:
            server.terminate()
    assert "<title>Optuna Dashboard</title>" in page
    assert study["name"] == "demo" and study["objective_names"] == list(OBJECTIVES)
    assert [trial["values"] for trial in study["trials"]] == [[0.9, 0.2]]


def test_it_says_what_is_missing(tmp_path, monkeypatch):
    path = begun(tmp_path / "demo", "sqlite")
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(InputError, match=r"the dashboard is not installed .*pip install 'sbp-tune\[dashboard\]'"):
        serve_dashboard(path, 0)


def test_a_port_that_is_taken(tmp_path):
    pytest.importorskip("optuna_dashboard")
    path = begun(tmp_path / "demo", "sqlite")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: Address already in use; give another"):
            serve_dashboard(path, port)
