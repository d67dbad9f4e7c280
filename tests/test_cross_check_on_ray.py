"""`search --cross-check`, interrupted and resumed on a real Ray: CodeCarbon's figures beside the ledger's."""

import json
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from sbp_tune.cli import app

STUDY = """
name: checked
config:
  data: {name: digits, subset: 256, batch_size: 32}
  model: {args: {width: 4}}
  epochs: 2
  sparsity: {estimator: mask, p0: {uniform: [0.1, 1.0]}}
search: {trials: 4, tie: 0.05}
resources: {cpu: 1, gpu: 0}
"""
run = CliRunner().invoke


def bill_of(path):
    result = run(app, ["energy", str(path), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.slow
def test_an_interrupted_search_and_its_resumption_are_both_cross_checked(tmp_path, ray_address):
    (tmp_path / "checked.yaml").write_text(STUDY)
    command = [sys.executable, "-m", "sbp_tune.cli", "search", str(tmp_path / "checked.yaml"), "--cross-check"]
    options = ["--results", str(tmp_path), "--address", ray_address]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as driver:
        lines = []
        for line in driver.stdout:
            lines.append(line)
            if "[1/4]" in line:
                driver.send_signal(signal.SIGINT)
                break
        lines += driver.stdout.readlines()
    assert driver.returncode == 130, "".join(lines)
    path = tmp_path / "checked"
    interrupted = bill_of(path)
    resumed = run(app, ["resume", str(path), "--address", ray_address, "--cross-check"])
    assert resumed.exit_code == 0, resumed.output

    runs = json.loads((path / "energy" / "codecarbon.json").read_text())["runs"]
    assert len(runs) == 2 and all(run["error"] is None for run in runs)
    bill = bill_of(path)
    for found in (interrupted, bill):
        cpu, ram = (row for row in found["cross_check"] if row["component"] != "gpu")
        for row in (cpu, ram):
            assert row["kwh"] > 0 and row["codecarbon_kwh"] > 0
            assert row["kwh"] <= found["components"][row["component"]]["kwh"]
        assert sum(line["kwh"] for line in found["lines"]) - found["machine"]["kwh"] < 1e-12
    assert [row["state"] for row in bill["trials"]] == ["complete"] * 4
    assert bill["machine"]["kwh"] > interrupted["machine"]["kwh"]
