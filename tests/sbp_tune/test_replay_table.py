import json

import pandas as pd
import pytest

from sbp_tune.config import TrainConfig
from sbp_tune.errors import InputError
from sbp_tune.replay_table import ReplayTable

LR = {"optimizer.lr": {"low": 0.01, "high": 1.0, "log": True}}
P0 = {"sparsity.p0": {"low": 0.1, "high": 0.9, "log": False}}
ESTIMATOR = {"sparsity.estimator": None}


def config_of(lr=0.1, p0=0.5, estimator="mask", epochs=2, seed=0, **sparsity):
    values = {
        "optimizer": {"lr": lr},
        "sparsity": {"estimator": estimator, "p0": p0, **sparsity},
        "epochs": epochs,
        "seed": seed,
    }
    return TrainConfig.model_validate(values).model_dump(mode="json")


@pytest.fixture
def table(tmp_path):
    """table(config, ...) of trials 0, 1, ..., each with its number as accuracy."""

    def make(*configs):
        rows = [
            {"study": "s", "trial": trial, "epoch": float(epoch), "val_accuracy": float(trial), "f1": None}
            | {"config_json": json.dumps(config), "config.epochs": config["epochs"], "device": "GPU"}
            for trial, config in enumerate(configs)
            for epoch in range(config["epochs"], 0, -1)
        ]
        pd.DataFrame(rows).to_parquet(tmp_path / "table.parquet")
        return ReplayTable(tmp_path / "table.parquet")

    return make


def nearest(table, config, searched):
    return table.curve(config, "nearest", searched)[0]["val_accuracy"]


def test_a_curve_is_the_metrics_of_a_trial_in_order(table):
    assert table(config_of(epochs=3)).curve(config_of(epochs=3), "exact", {}) == [
        {"epoch": epoch, "val_accuracy": 0.0, "f1": None} for epoch in (1, 2, 3)
    ]


def test_exact_is_the_config_whatever_the_machine(table):
    recorded = table(config_of(seed=1), config_of(seed=2))
    wanted = {**config_of(seed=2), "device": "cuda", "cpu_threads": 7}
    assert recorded.curve(wanted, "exact", {})[0]["val_accuracy"] == 1
    with pytest.raises(InputError, match="none of 2 recorded trials has exactly this config"):
        recorded.curve(config_of(seed=3), "exact", {})


def test_nearest_by_hand(table):
    """Wanted lr 0.1, p0 0.5. Of lr 0.2 the distance is log10(2) / 2 = 0.151; of p0 0.65 it is 0.15 / 0.8 = 0.188."""
    recorded = table(config_of(lr=0.2), config_of(p0=0.65), config_of(lr=0.2, p0=0.55))
    assert nearest(recorded, config_of(), LR | P0) == 0  # 0.0227, 0.0352, 0.0266 squared
    assert nearest(recorded, config_of(p0=0.6), LR | P0) == 1  # 0.0383, 0.0039, 0.0266
    assert nearest(recorded, config_of(lr=0.19, p0=0.6), LR | P0) == 2  # 0.0158, 0.0233, 0.0040


def test_the_scale_of_a_log_domain_is_logarithmic(table):
    recorded = table(config_of(lr=0.01), config_of(lr=1.0))
    assert nearest(recorded, config_of(lr=0.09), LR) == 0  # nearer to 0.01 by a factor, as by a difference
    assert nearest(recorded, config_of(lr=0.2), LR) == 1  # by a difference it would be 0
    linear = {"optimizer.lr": {"low": 0.01, "high": 1.0, "log": False}}
    assert nearest(recorded, config_of(lr=0.2), linear) == 0


def test_another_option_is_as_far_as_the_whole_range(table):
    recorded = table(config_of(p0=0.1), config_of(p0=0.89, estimator="grid"))
    assert nearest(recorded, config_of(p0=0.89), P0 | ESTIMATOR) == 0  # (0.79 / 0.8)^2 < 1
    assert nearest(recorded, config_of(p0=0.89, estimator="grid"), P0 | ESTIMATOR) == 1


def test_a_key_without_effect_counts_as_such(table):
    k = {"sparsity.k": {"low": 0.0, "high": 1.0, "log": False}, "sparsity.schedule": None}
    recorded = table(config_of(schedule="linear", k=1.0), config_of(schedule="constant", k=0.9))
    assert nearest(recorded, config_of(schedule="constant"), k) == 1  # k means nothing in both: equal
    assert nearest(recorded, config_of(schedule="exponential", k=0.9), k) == 0  # 1 + 0.01 against 1 + 1


def test_data_network_and_epochs_must_be_equal_unless_searched(table):
    recorded = table(config_of(p0=0.5, epochs=4), config_of(p0=0.9, epochs=2))
    assert nearest(recorded, config_of(p0=0.5, epochs=2), P0) == 1
    epochs = {"epochs": {"low": 1, "high": 100, "log": False}}
    assert nearest(recorded, config_of(p0=0.5, epochs=2), P0 | epochs) == 0
    with pytest.raises(InputError, match=r"data\.name digits, model\.name small_cnn, epochs 3"):
        nearest(recorded, config_of(epochs=3), P0)


def test_a_searched_section_is_compared_whole(table):
    one, other, wanted = config_of(), config_of(), config_of()
    other["model"]["args"] = wanted["model"]["args"] = {"width": 8}
    assert nearest(table(one, other), wanted, {"model": None}) == 1


def test_replicates_are_replayed_as_such(table):
    recorded = table(*(config_of(seed=seed) for seed in (5, 6, 7)))
    assert [nearest(recorded, config_of(p0=0.6, seed=seed), P0) for seed in (5, 6, 7)] == [0, 1, 2]
    assert {nearest(recorded, config_of(p0=0.6, seed=seed), P0) for seed in (0, 1, 2)} == {0, 1, 2}


def test_files_that_are_no_table(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        ReplayTable(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="not a parquet file"):
        ReplayTable(tmp_path / "text.parquet")
    pd.DataFrame({"study": ["s"], "epoch": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match="not a replay table: it has no trial, config_json"):
        ReplayTable(tmp_path / "other.parquet")
    broken = {"study": ["s"], "trial": [0], "epoch": [1], "config_json": ["{epochs"]}
    pd.DataFrame(broken).to_parquet(tmp_path / "broken.parquet")
    with pytest.raises(InputError, match=r"config_json: found '\{epochs'; needs a config as JSON"):
        ReplayTable(tmp_path / "broken.parquet")
    pd.DataFrame(broken)[:0].to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="it has no rows"):
        ReplayTable(tmp_path / "empty.parquet")
