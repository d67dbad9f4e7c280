"""The papers' figures: complete, in stored units, each beside the arm of ours that it is of."""

import pytest

from analysis.tables.published import cite, footnotes, parsed, published_classes, published_rows
from sbp_tune.fingerprint import flat
from sbp_tune.study.file import load_study_file
from search_spaces import shipped_spaces

PAPERS = ("feature_ranked_2024", "sparse_backprop_2025")


def rows_of(table, paper, **config):
    """Published rows of a paper and some config values, '__' for the dot."""
    wanted = {key.replace("__", "."): value for key, value in config.items()}
    rows = [row for row in published_rows(table) if row.paper == paper]
    return [row for row in rows if all(row.config.get(key) == value for key, value in wanted.items())]


def test_every_printed_row_is_there():
    first = [row for row in published_rows("strategies") if row.paper == PAPERS[0]]
    assert [row.source for row in first] == [
        *["Table 4 (section 6.1)"] * 5,
        *["Table 5 (section 6.2)"] * 3,
        *["Table 6 (section 6.3)"] * 3,
    ]
    assert all(len(row.numbers) == 6 for row in first)
    assert len(rows_of("accuracy", PAPERS[1])) == 3 * 12 and len(rows_of("energy", PAPERS[1])) == 3 * 8
    assert len(published_rows("ablation")) == 3 and len(published_classes()[0][2]) == 7


def test_what_two_tables_print_of_one_arm_is_one_row():
    row, *others = rows_of("strategies", PAPERS[1], model__name="densenet121", data__name="cifar100", sparsity__p0=0.1)
    assert not others and row.source == "Table I (section V-A), Table II (section V-B)"
    assert {name: number.printed for name, number in row.numbers.items()} == {
        "accuracy": "77.5",
        "kwh": "74.3",
        "co2_kg": "6.51",
        "saved": "30.7",
    }


def test_stored_units():
    row = rows_of("strategies", PAPERS[0], model__name="vgg19", sparsity__estimator="dense")[0]
    assert row.numbers["train_time_s"].value == 5 * 3600 + 51 * 60 + 45
    assert (row.numbers["accuracy"].value, row.numbers["kwh"].value) == (pytest.approx(0.7984), 2.53)
    assert parsed("3600", "kJ").value == pytest.approx(1.0) and parsed("16.7", "g").value == pytest.approx(0.0167)


@pytest.mark.parametrize("paper", PAPERS)
def test_each_row_is_of_a_trial_of_the_papers_study_file(paper):
    study = load_study_file(shipped_spaces()[paper])
    configs = [flat(study.train_config(point)) for point in study.grid]
    for table in ("strategies", "accuracy", "energy", "ablation"):
        for row in rows_of(table, paper):
            if row.config.get("data.class_count") == 1000:  # of all classes: another run of the file
                continue
            same = [config for config in configs if all(config.get(key) == value for key, value in row.config.items())]
            assert len(same) == 1 or (row.config["sparsity.estimator"] == "dense" and same), row


def test_the_powers_in_the_footnotes_follow_from_the_tables():
    first, second = footnotes(PAPERS[0])[1], footnotes(PAPERS[1])[0]
    for model, words in (
        ("resnet18", "379, 376 and 382 W"),
        ("vgg19", "432, 433 and 433 W"),
    ):
        numbers = [row.numbers for row in rows_of("strategies", PAPERS[0], model__name=model)]
        watts = [f"{3.6e6 * one['kwh'].value / one['train_time_s'].value:.0f}" for one in numbers]
        assert "{}, {} and {} W".format(*watts) == words and words in first
    numbers = [row.numbers for row in rows_of("strategies", PAPERS[0], model__name="alexnet", data__class_count=50)]
    watts = [f"{3.6e6 * one['kwh'].value / one['train_time_s'].value:.0f}" for one in numbers]
    assert watts == ["330", "362", "363"] and f"{watts[1]} and {watts[2]} W against {watts[0]} W" in first
    dense = rows_of("energy", PAPERS[1], model__name="densenet121", data__name="cifar100", sparsity__estimator="dense")
    assert f"{3.6e6 * dense[0].numbers['kwh'].value / (100 * 1.04):.0f} W" == "1034 W" and "1034 W" in second
    assert all(len(cite(paper)) > 50 for paper in PAPERS)
