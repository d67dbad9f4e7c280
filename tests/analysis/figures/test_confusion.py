import json

import numpy as np
import pytest

from analysis.figures import confusion_info, plot_confusion
from sbp_tune.errors import InputError


@pytest.fixture
def run(tmp_path):
    """`run(**result)`: the folder of a run, as `sbp-tune train -o` leaves it."""

    def write(**result):
        (tmp_path / "result.json").write_text(json.dumps(result))
        return tmp_path

    return write


def test_counts_and_shares_by_hand(run):
    info = confusion_info(run(classes=["cat", "dog", "ship"], confusion=[[3, 1, 0], [0, 0, 0], [2, 0, 2]]))
    assert info.classes == ["cat", "dog", "ship"]
    assert info.counts.sum() == 8
    assert info.shares[0].tolist() == [0.75, 0.25, 0]
    assert np.isnan(info.shares[1]).all()  # no image of it was tested
    assert confusion_info(run(classes=["a"], confusion=[[0]]) / "result.json").counts.tolist() == [[0]]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            {"classes": ["a", "b"], "confusion": [[1]]},
            r"found shape \(1, 1\); needs a row and a column for each of the 2",
        ),
        ({"classes": ["a"], "confusion": [["x"]]}, "needs rows of whole numbers"),
        ({"classes": ["a", "b"], "confusion": [[1, 2], [3]]}, "needs rows of whole numbers"),
        ({"loss": 1.0}, "confusion: "),
    ],
)
def test_a_result_without_a_matrix_is_one_line(run, result, message):
    with pytest.raises(InputError, match=message) as caught:
        confusion_info(run(**result))
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


def test_a_run_that_has_not_finished(tmp_path):
    with pytest.raises(InputError, match=r"result\.json: no result of a finished training: No such file"):
        confusion_info(tmp_path)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        confusion_info(tmp_path)


def test_the_figure_escapes_and_numbers_few_classes(run):
    figure = plot_confusion(run(classes=["<b>", "dog"], confusion=[[3, 1], [0, 4]]))
    assert figure.layout.xaxis.ticktext == ("&lt;b&gt;", "dog")
    assert [note.text for note in figure.layout.annotations] == ["3", "1", "0", "4"]
    many = plot_confusion(run(classes=[str(n) for n in range(60)], confusion=np.eye(60, dtype=int).tolist()))
    assert not many.layout.annotations and many.layout.xaxis.showticklabels is False
