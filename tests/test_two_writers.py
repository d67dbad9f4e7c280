"""Two real commands on one study: the second is refused, and the first is none the worse for it."""

import signal
import subprocess
import sys

import pytest

from sbp_tune.study.results import load_study

pytestmark = pytest.mark.slow

STUDY = """
name: far
config: {data: {name: cifar10, root: nowhere}, epochs: 8, optimizer: {lr: {log_uniform: [0.02, 0.4]}}}
search: {trials: 12, sampler: random}
"""


def test_a_study_that_runs_refuses_a_second_search_and_a_resume(ray_address, tmp_path):
    (tmp_path / "far.yaml").write_text(STUDY)
    command = [sys.executable, "-m", "sbp_tune.cli"]
    search = [*command, "search", str(tmp_path / "far.yaml"), "--simulate", "--results", str(tmp_path)]
    path, on = tmp_path / "far", ["--address", ray_address]
    with subprocess.Popen([*search, *on], stdout=subprocess.PIPE, text=True) as first:
        assert any("[1/12]" in line for line in first.stdout)
        first.send_signal(signal.SIGSTOP)  # else it might end before the others have looked
        second = subprocess.run([*search, *on], capture_output=True, text=True)
        resumed = subprocess.run([*command, "resume", str(path), *on], capture_output=True, text=True)
        first.send_signal(signal.SIGCONT)
        first.communicate()
    assert second.returncode == 2 and f"{path}: a study of this name exists" in second.stderr
    assert resumed.returncode == 1 and f"{path}: another process runs this study at present" in resumed.stderr
    assert first.returncode == 0
    trials = load_study(path).trials
    assert trials["state"].tolist() == ["complete"] * 12 and (trials["attempts"] == 1).all()
