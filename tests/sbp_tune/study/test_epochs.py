import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbp_tune.study.epochs import append_row, merged_rows, read_columns, read_rows


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


def test_columns_are_the_rows_whatever_is_in_them(tmp_path):
    """One block is plain, in another a line was cut and values are of other kinds: they read the same."""
    rows = [
        {"trial_id": "a", "epoch": 1, "kwh": 1, "device": "x", "else": [1]},
        {"trial_id": "b", "epoch": 1, "kwh": math.nan},
        {"trial_id": "a", "epoch": 2, "kwh": None, "device": None},
    ]
    for row in rows:
        append_row(tmp_path, row)
    plain = read_columns(tmp_path, ["kwh", "f1"], ["device"])
    with (tmp_path / "epochs.jsonl").open("a") as log:
        log.write('{"trial_id": "a", "ep\n{"trial_id": "c"}\n[1]\n{"trial_id": 5, "epoch": true, "kwh": "much"}\n')
    broken = read_columns(tmp_path, ["kwh", "f1"], ["device"])
    assert plain["trial_id"].tolist() == ["a", "b", "a"] and plain["epoch"].tolist() == [1, 1, 2]
    assert plain["kwh"].tolist()[0] == 1 and plain["kwh"].isna().tolist() == [False, True, True]
    assert plain["f1"].isna().all() and plain["device"].tolist()[:1] == ["x"] and plain["device"].isna().sum() == 2
    assert broken[:3].astype(object).equals(plain.astype(object))
    assert broken["trial_id"].tolist()[3:] == ["5"] and math.isnan(broken["kwh"][3])
    assert set(read_rows(tmp_path, {"b", "nobody"})) == {"b"}
