import json

import pytest

from benchmarks.meter import main


def test_json_says_what_the_meter_costs(capsys):
    main(["--seconds", "2.5", "--trials", "2", "--threads", "3", "--json"])
    row = json.loads(capsys.readouterr().out)
    assert (row["trials"], row["threads"]) == (2, 3) and row["snapshots"] >= 2
    assert 0 < row["percent_of_a_core"] < 100 and 0 < row["ms_per_snapshot"] <= row["ms_per_snapshot_max"]


def test_too_short_a_time_is_a_line():
    with pytest.raises(SystemExit, match="error: needs at least 2 seconds"):
        main(["--seconds", "1"])
