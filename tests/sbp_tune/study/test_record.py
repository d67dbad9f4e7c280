"""Recording is the inverse of replaying: what a study's trials reported comes back row by row."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from ray.tune.search import Searcher

from sbp_tune.errors import InputError
from sbp_tune.files import write_text_atomic, yaml_text
from sbp_tune.study.epochs import append_row
from sbp_tune.study.file import Study
from sbp_tune.study.record import PROVENANCE, record
from sbp_tune.study.results import METRICS, load_study
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study
from trainables.replay import Replay


@pytest.fixture
def ran(tmp_path, make_study):
    """ran(name, stop_after={}, real=False): a study run by hand; trials of `stop_after` end after so many epochs.

    real: it does not say that it was simulated.
    """

    def run(name="demo", stop_after=None, real=True):
        study = make_study(("name: demo", f"name: {name}"), ("search:", "simulate: {}\nsearch:"))
        document = study.document | ({"simulate": None} if real else {})
        path = tmp_path / name
        path.mkdir()
        write_text_atomic(path / "study.yaml", yaml_text(document))
        storage = create_study(path, name, study.objectives, {"versions": {"torch": "2.11"}})
        enqueue_fixed_points(storage, study)
        searcher, number = OptunaSearcher(study, path), 0
        while (config := searcher.suggest(f"{name}-{number}")) != Searcher.FINISHED:
            trial, row = Replay(config), {}
            while not row.get("done") and (not row or row["epoch"] != (stop_after or {}).get(number)):
                row = trial.train() | ({"device": "GPU"} if real else {})
                append_row(path, {**row, "trial_id": f"{name}-{number}"})
            searcher.on_trial_complete(f"{name}-{number}", row)
            number += 1
        return path

    return run


def replayed(path, table, match="exact", **change):
    """Rows of every complete trial's config, with the trial's number, as they are played from a table."""
    study = load_study(path)
    for trial in study.trials.loc[study.trials["state"] == "complete", "trial"]:
        simulate = {"table": str(table), "match": match, "searched": {}, "noise": 1.0}
        play, rows = Replay({**study.config_of(trial), **change, "simulate": simulate}), []
        while not rows or not rows[-1]["done"]:
            rows.append(play.train())
        yield trial, rows


def test_what_is_recorded_plays_exactly(ran, tmp_path):
    path = ran(stop_after={3: 1})
    table = record([path], tmp_path / "table.parquet")
    epochs = load_study(path).epochs
    played = dict(replayed(path, table))
    assert sorted(played) == [0, 1, 2, 4, 5, 6, 7]  # 3 was stopped
    for trial, rows in played.items():
        recorded = epochs[epochs["trial"] == trial].reset_index(drop=True)
        again = pd.DataFrame([{name: row.get(name) for name in METRICS} for row in rows]).astype(float)
        pd.testing.assert_frame_equal(again, recorded[METRICS].astype(float), check_exact=True)
        assert {row["device"] for row in rows} == {"simulated"}
        assert [row["fully_trained"] for row in rows] == [False] * (len(rows) - 1) + [True]


def test_the_table_says_where_it_is_from(ran, tmp_path):
    table = record([ran("one"), ran("two", stop_after={2: 1})], tmp_path / "table.parquet")
    frame = pd.read_parquet(table)
    assert frame.groupby("study")["trial"].nunique().to_dict() == {"one": 8, "two": 7}
    assert set(frame["device"]) == {"GPU"} and json.loads(frame["versions"][0]) == {"torch": "2.11"}
    assert {"val_accuracy", "kwh", "kwh_gpu_source", "config.sparsity.p0", "config.optimizer.lr"} <= set(frame)
    assert json.loads(frame["config_json"][0])["optimizer"]["lr"] == frame["config.optimizer.lr"][0]
    provenance = json.loads(pq.read_schema(table).metadata[PROVENANCE])
    assert [(one["name"], one["trials"], one["devices"]) for one in provenance["studies"]] == [
        ("one", 8, ["GPU"]),
        ("two", 7, ["GPU"]),
    ]
    assert provenance["studies"][0]["study"]["search"]["trials"] == 6 and provenance["format"] == 1


def test_a_place_of_ones_own(ran, tmp_path):
    path = ran()
    table = record([path], tmp_path / "table.parquet")
    _, rows = next(replayed(path, table, energy={"country": "IRL"}))
    assert rows[-1]["co2_kg"] == pytest.approx(rows[-1]["kwh"] * rows[0]["co2_kg"] / rows[0]["kwh"])


def test_studies_that_cannot_be_recorded(ran, tmp_path):
    output = tmp_path / "table.parquet"
    with pytest.raises(InputError, match="not a study directory"):
        record([tmp_path], output)
    fine, simulated = ran("fine"), ran("sim", real=False)
    with pytest.raises(InputError, match=r"sim: simulated, and the others are not; record them apart"):
        record([fine, simulated], output)
    with pytest.raises(InputError, match="another of these studies is called fine too"):
        record([fine, fine], output)
    nothing = ran("nothing", stop_after=dict.fromkeys(range(8), 1))
    with pytest.raises(InputError, match="nothing: no trial was trained to its end, so there is nothing to record"):
        record([nothing], output)
    study = Study(load_study(fine).study, "study.yaml")
    begun = tmp_path / "begun"
    begun.mkdir()
    storage = create_study(begun, "begun", study.objectives, {})
    write_text_atomic(begun / "study.yaml", yaml_text(study.document))
    storage.ask()
    with pytest.raises(InputError, match=r"begun: not finished \(1 interrupted\); only finished studies are recorded"):
        record([begun], output)
    assert not output.exists()
    assert record([simulated], output).exists()
