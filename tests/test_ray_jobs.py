"""The README's commands for a cluster, on a Ray of this machine that asks for a token, as cluster.yaml's does."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="needs the dashboard: pip install 'ray[default]'")

README = Path(__file__).parents[1] / "README.md"


def commands(chapter):
    """The chapter's indented lines, without their comments."""
    text = README.read_text(encoding="utf-8").partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    return [line.partition("  # ")[0].strip() for line in text.splitlines() if line.startswith("    ")]


@pytest.fixture
def environment(tmp_path):
    """Of a user who has nothing of Ray yet."""
    home = tmp_path / "home"
    home.mkdir()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {**kept, "HOME": str(home), "PATH": path, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def run(tmp_path, environment):
    """Runs a command to its end."""

    def run(command, **more):
        options = {"capture_output": True, "text": True, "timeout": 900, "cwd": tmp_path}
        return subprocess.run(words(command), env={**environment, **more}, **options)

    return run


@pytest.fixture
def head(tmp_path, environment, run):
    """The dashboard's address, of a cluster of this machine alone. Never `ray stop`: that ends everybody's Ray."""
    assert run(commands("Run on a cluster")[0]).returncode == 0  # the token
    start = f"ray start --head --block --port=0 --num-cpus=2 --dashboard-port={free_port()}"
    log = (tmp_path / "head.log").open("w+")
    process = subprocess.Popen(
        words(start), env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while (found := re.search(r"http://[\d.]+:\d+", Path(log.name).read_text())) is None:
        assert process.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()
        time.sleep(1)
    yield found[0]
    process.terminate()
    process.wait(60)
    log.close()


def words(command):
    """A command's words; `ray` and `sbp-tune` are those of this Python, whatever is on the path."""
    first, *others = shlex.split(command)
    return [*([sys.executable, "-m", "ray.scripts.scripts"] if first == "ray" else [first]), *others]


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.mark.slow
def test_a_search_as_a_job_of_a_cluster(head, run, tmp_path):
    [submit] = [line for line in commands("Run on a cluster") if line.startswith("ray job submit")]
    here = submit.replace("http://localhost:8265", head).replace("s3://BUCKET/studies", str(tmp_path / "studies"))
    here = here.replace("resnet18_cifar10", "quickstart --set search.trials=2").replace(" --no-wait", "")
    assert here.count(head) == 1 and str(tmp_path) in here and "quickstart" in here
    refused = run(here, RAY_AUTH_MODE="disabled")
    assert refused.returncode != 0 and not (tmp_path / "studies").exists()
    job = run(here)
    assert job.returncode == 0, job.stdout + job.stderr
    assert (tmp_path / "studies" / "quickstart" / "report.html").is_file() and "succeeded" in job.stdout
