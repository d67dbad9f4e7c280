"""Two real processes and one study: whoever comes second is refused, until the first has gone, however it went."""

import signal
import subprocess
import sys

import pytest

from sbp_tune.errors import SbpTuneError
from sbp_tune.study.lock import is_in_use, only_writer

HOLD = """
import sys
from pathlib import Path
from sbp_tune.study.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that is the writer of the study in tmp_path until it reads a line."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("end", ["by itself", "killed"])
def test_a_second_writer_is_refused_until_the_first_has_gone(holder, end, tmp_path):
    for _ in range(2):
        with pytest.raises(SbpTuneError, match="another process runs this study at present"), only_writer(tmp_path):
            pytest.fail("two writers")
        assert is_in_use(tmp_path)
    if end == "killed":
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    else:
        holder.communicate("\n")
    assert not is_in_use(tmp_path)
    with only_writer(tmp_path):
        pass


def test_of_many_that_come_at_once_one_writes(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    first = [process.stdout.readline() for process in processes]  # "held", or nothing from one that was refused
    assert sorted(first) == ["", "", "held\n"]
    codes = [process.communicate("\n") and process.returncode for process in processes]
    assert sorted(codes) == [0, 1, 1]
