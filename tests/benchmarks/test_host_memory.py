import json
import platform

import pytest

from benchmarks.host_memory import main

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")


def test_kept_and_returned_take_turns_in_processes_of_their_own(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    main(["--models", "small_resnet", "--steps", "1", "--rounds", "2", "-o", str(tmp_path)])
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["kept_keeps"] and not row["returned_keeps"]
    assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"] and row["kept_ms"] > 0
    [file] = tmp_path.iterdir()
    assert json.loads(file.read_text()) == [row]
