import json
import subprocess
import sys
import time

import psutil
import pytest

from benchmarks.cpu_time import Cpu, Span
from benchmarks.overhead import main

pytestmark = pytest.mark.slow


def test_cpu_time_is_that_of_the_whole_tree_within_a_stretch():
    child = "import time\nwhile time.process_time() < 0.5: pass\ninput()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.time() - 5  # when a process was born the system says only to some tenths
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE)
    cpu = Cpu(psutil.Process(process.pid))
    with cpu.sampled():
        end = time.monotonic() + 60
        while sum(cpu.within(Span(start, time.time())).values()) < 0.45 and time.monotonic() < end:
            time.sleep(0.1)
        process.communicate(b"\n")
    whole = cpu.within(Span(start, time.time()))
    assert 0.45 <= sum(whole.values()) < 1.5  # of processor time the kernel tells ticks of 10 ms
    assert sum(cpu.within(Span(start - 9, start - 1)).values()) == 0
    middle = start + (time.time() - start) / 2
    halves = [sum(cpu.within(span).values()) for span in (Span(start, middle), Span(middle, time.time()))]
    assert sum(halves) == pytest.approx(sum(whole.values()))


@pytest.mark.slow
def test_a_search_is_compared_with_the_same_training(tmp_path, capsys):
    small = ["--rounds", "1", "--epochs", "3", "--image-size", "8", "--width", "4", "--trials", "8"]
    main([*small, "-o", str(tmp_path), "--json"])
    [file] = tmp_path.glob("overhead_*.json")
    row = json.loads(file.read_text())
    assert row == json.loads(capsys.readouterr().out)
    assert 0 < row["search"]["start_s"]["median"] < row["search"]["first_batch_s"]["median"]
    for arm in ("train", "search"):
        training = row[arm]["epoch_cpu_s_training"]["median"]
        assert row[arm]["epoch_s"]["median"] > 0 and training > 0.5 * row[arm]["epoch_cpu_s"]["median"]
    assert row["train"]["epoch_cpu_s_driver"]["median"] == 0 < row["search"]["epoch_cpu_s_driver"]["median"]
    assert 0 < row["search"]["meter_percent_of_a_core"]["median"] < 100
    assert [line["gpus"] for line in row["driver"]] == [4, 16, 64, 256]


def test_too_few_epochs_are_a_line():
    with pytest.raises(SystemExit, match="error: needs at least 2 epochs and 1 round"):
        main(["--epochs", "1"])
