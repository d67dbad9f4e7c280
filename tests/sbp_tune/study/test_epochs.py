from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbp_tune.study.epochs import append_row, merged_rows, read_rows


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 400))
def test_a_log_cut_anywhere_loses_at_most_the_last_row_and_goes_on(tmp_path, cut):
    log = tmp_path / "epochs.jsonl"
    log.unlink(missing_ok=True)
    for epoch in range(1, 5):
        append_row(tmp_path, {"trial_id": "a", "epoch": epoch, "kwh": epoch / 10, "config": {"not": "kept"}})
    whole = log.read_bytes()
    log.write_bytes(whole[: min(cut, len(whole))])
    kept = log.read_bytes().count(b"\n")
    append_row(tmp_path, {"trial_id": "a", "epoch": 9})
    epochs = [row["epoch"] for row in read_rows(tmp_path)["a"]]
    assert epochs[:kept] == list(range(1, kept + 1)) and epochs[-1] == 9
    assert kept <= len(epochs) - 1 <= kept + 1  # a line cut just before its end of line is whole


def test_rows_of_several_attempts(tmp_path):
    for trial_id, epoch, loss in [("a", 1, 0.9), ("a", 2, 0.8), ("b", 1, 0.5), ("c", 2, 0.7), ("c", 3, 0.6)]:
        append_row(tmp_path, {"trial_id": trial_id, "epoch": epoch, "loss": loss})
    rows = read_rows(tmp_path)
    assert [row["loss"] for row in merged_rows(rows, ["a", "c"])] == [0.9, 0.7, 0.6]
    assert merged_rows(rows, ["nobody"]) == []


def test_no_log_is_no_rows(tmp_path):
    assert read_rows(tmp_path) == {}
