import json
from pathlib import Path

import pytest

from trainables.checkpoints import newest_whole


def written(folder, **state):
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps(state))
    return str(folder)


def read(folder):
    return json.loads(Path(folder, "state.json").read_text())


def is_finished(state):
    return state["epoch"] == 3


def test_the_newest_that_can_be_read_and_gone_on_from(tmp_path):
    older, whole = written(tmp_path / "2", epoch=2), written(tmp_path / "3", epoch=3)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "state.json").write_text('{"epoch": ')
    with pytest.warns(UserWarning, match="cannot be read, going on from an older one"):
        assert newest_whole([str(tmp_path / "torn"), older], read) == {"epoch": 2}
    assert newest_whole([whole, older], read) == {"epoch": 3}
    # Its last result was lost with the machine of its driver: the last epoch runs again.
    assert newest_whole([whole, older], read, is_finished) == {"epoch": 2}
    assert newest_whole([whole], read, is_finished) is None


def test_an_epoch_whose_result_was_lost_runs_again(tmp_path):
    newest, older = written(tmp_path / "2", epoch=2), written(tmp_path / "1", epoch=1)
    assert newest_whole([newest, older], read, is_finished, reported=2) == {"epoch": 2}
    assert newest_whole([newest, older], read, is_finished, reported=1) == {"epoch": 1}
    assert newest_whole([newest, older], read, is_finished, reported=0) == {"epoch": 1}  # nothing earlier is left
    assert newest_whole([written(tmp_path / "3", epoch=3), newest], read, is_finished, reported=1) == {"epoch": 2}
