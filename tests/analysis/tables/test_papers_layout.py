"""The shipped files of the papers print in the papers' own layout; made-up numbers on every trial of their grids."""

import io
import re
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from analysis.tables import ALL_FORMATS, TABLES, print_tables
from analysis.tables.by_model import accuracy_sheets, accuracy_table_info, energy_sheets, energy_table_info
from analysis.tables.strategies import strategies_sheets, strategies_table_info
from sbp_tune.errors import InputError
from sbp_tune.study.file import load_study_file
from sbp_tune.study.results import METRICS, StudyResults, flat_columns
from search_spaces import shipped_spaces


@pytest.fixture(scope="module")
def paper_study():
    """`StudyResults` of a shipped file in which every trial has run; accuracy and energy by its place in the grid."""

    @cache
    def of(name, seeds=1):
        study = load_study_file(shipped_spaces()[name], ["config.data.root=/nowhere/at/all"])
        rows, configs = [], {}
        for place, point in enumerate(study.grid):
            for seed in range(seeds):
                number = len(rows)
                configs[number] = {**study.train_config(point), "seed": seed}
                metrics = dict.fromkeys(METRICS, float("nan")) | {
                    "val_accuracy": 0.9 - 0.001 * place + 0.01 * seed,
                    **{
                        "kwh": 0.02 + 0.001 * place,
                        "co2_kg": 0.006,
                        "train_time_s": 4000.0,
                        "kwh_measured_share": 0.25,
                    },
                }
                row = {"trial": number, "state": "complete", "kind": "search", "device": "Tesla T4"}
                rows.append({**row, **metrics, **flat_columns(configs[number])})
        results = Path("results") / name
        trials, epochs = pd.DataFrame(rows), pd.DataFrame(columns=["trial", *METRICS])
        return StudyResults(study.file.name, results, study.document, study.objectives, {}, trials, epochs, configs)

    return of


def test_the_thesis_by_strategy(paper_study):
    sheets = strategies_sheets(strategies_table_info(paper_study("feature_ranked_2024"), published=True))
    assert [sheet.title for sheet in sheets] == [
        f"{model} on image_folder (50 classes), by strategy" for model in ("alexnet", "resnet18", "vgg19")
    ]
    assert [titles[0] for titles in sheets[0].header] == [
        *(
            "Strategy",
            "Arm",
            "Accuracy (%)",
            "F1 (%)",
            "ROC AUC",
            "Training time (h:mm:ss)",
            "Energy (kWh)",
            "CO₂ (kg)",
        ),
        "Runs",
    ]
    assert [row[:2] for row in sheets[0].cells] == [
        ["dense", "init default"],
        ["Standard [a]", ""],
        ["dense", "init he"],
        ["mask linear", "init default"],
        ["mask linear", "init he"],
        ["Selective Linear [a]", ""],
        ["mask exponential", "init default"],
        ["mask exponential", "init he"],
        ["Selective Exponential [a]", ""],
        ["Standard: 1000 classes [a]", ""],
        ["Selective Exponential: 1000 classes [a]", ""],
    ]
    assert sheets[0].cells[1][2:] == ["70.60", "70.45", "0.9818", "2:01:39", "0.67", "0.25", "–"]
    assert sheets[2].cells[5][2:] == ["78.03", "78.24", "0.9891", "6:53:59", "2.99", "1.10", "–"]
    assert sheets[0].cells[0][2:] == ["90.00", "–", "–", "1:06:40", "0.02000", "0.006000", "1"]
    assert not sheets[0].notes and "Of the energies 25 % is measured, the rest modelled." in sheets[2].notes
    assert "Ran on: Tesla T4." in sheets[2].notes
    assert "[a] Published, Table 4 (section 6.1), Table 5 (section 6.2)" in sheets[2].notes[-1]
    assert "Energy over time is 379, 376 and 382 W" in sheets[2].notes[-1]


def test_the_paper_by_network_and_data_set(paper_study):
    study = paper_study("sparse_backprop_2025")
    accuracy = accuracy_sheets(accuracy_table_info(study, published=True))[0]
    assert [titles[0] for titles in accuracy.header] == [
        "Network",
        "Strategy",
        "cifar10",
        "cifar100",
        "flowers102",
        "Runs",
    ]
    assert [row[0] for row in accuracy.cells if row[0]] == ["resnet18", "densenet121", "googlenet", "mobilenet_v2"]
    assert [row[1] for row in accuracy.cells[:8]] == [
        *("dense", "ResNet-18 (Dense) [a]", "mask, p = 0.25", "mask, p = 0.1", "ResNet-18 (Sparse 10%) [a]"),
        *("mask, p = 0.05", "ResNet-18 (Sparse 5%) [a]", "mask step, p0 = 0.25, 0.1 from epoch 10"),
    ]
    assert accuracy.cells[1][2:5] == ["94.2", "76.5", "86.1"] and accuracy.cells[4][2:5] == ["93.8", "75.1", "86.5"]
    energy = energy_sheets(energy_table_info(study, published=True))[0]
    assert energy.header[2:4] == [("cifar10", "Energy (kJ)"), ("cifar10", "CO₂ (g)")] and len(energy.header) == 9
    rows = {row[1]: row[2:8] for row in energy.cells[: energy.rules[0]]}
    assert rows["ResNet-18 (Sparse) [a]"] == ["67.3", "5.86", "71.5", "6.26", "130.4", "11.39"]
    place = [row[1] for row in energy.cells].index("ResNet-18 (Sparse) [a]")
    assert energy.cells[place + 1][1:8] == ["  energy saved", "27.2 %", "–", "24.8 %", "–", "27.7 %", "–"]
    assert rows["dense"][:2] == ["72.00", "6.000"]  # 0.02 kWh
    assert "in its 50 W mode" in energy.notes[-1]


def test_seeds_give_a_standard_error(paper_study):
    cells = accuracy_sheets(accuracy_table_info(paper_study("sparse_backprop_2025", seeds=3)))[0].cells
    assert cells[0][2] == "91.00 ± 0.58" and cells[0][-1] == "3"
    info = energy_table_info(paper_study("sparse_backprop_2025", seeds=3))
    first = info.rows.set_index("strategy").loc["mask, p = 0.25"].iloc[0]
    assert first["saved"] == pytest.approx(1 - 0.021 / 0.020) and first["saved_se"] == 0


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("form", ALL_FORMATS)
def test_every_table_in_every_format(paper_study, table, form):
    studies = [paper_study(name) for name in ("feature_ranked_2024", "sparse_backprop_2025")]
    text = print_tables(*studies, table=table, format=form, published=True)
    if form == "csv":
        frame = pd.read_csv(io.StringIO(text))
        assert table == "data" or (
            len(frame) > 50 and frame["source"].notna().any() and frame["accuracy"].notna().any()
        )
    else:
        assert "nan" not in re.findall(r"\w+", text) and "None" not in text
        assert table == "data" or text.count("Published") == 1 + (table != "ablation")
    if table == "data" and form == "text":
        assert "no such folder" in text and "n04483307 (Trimaran)" in text and "810" in text


def test_the_papers_are_not_shown_beside_other_networks_and_folders(build):
    other = {"data__name": "image_folder", "model__name": "alexnet", "val_accuracy": 0.9}  # not of 50 classes
    for study in (build.study(build.trial("dense", **other)), build.study(build.sparse(0.9, 1.0))):
        info = strategies_table_info(study, published=True)
        assert (info.rows["source"] == "").all() and "The papers print nothing of this kind" in info.notes[-1]


@pytest.mark.parametrize("trials", [[], [{"state": "running"}], [{"state": "failed", "kwh": float("nan")}]])
def test_a_study_without_a_finished_trial_prints(build, trials):
    study = build.study(*(build.trial("mask", **one) for one in trials))
    for form in ("text", "markdown", "latex"):
        text = print_tables(study, format=form, published=True)
        assert text.count("No trial has run to its end.") == 4
    assert print_tables(study, table="energy", format="csv").startswith("model,data,")


def test_what_was_not_recorded_is_a_dash_and_markup_stays_text(build):
    study = build.study(build.trial("<b>|x_", val_accuracy=0.9), name="<i>&")
    text = print_tables(study, table="strategies", format="markdown")
    assert r"| \<b\>\|x\_ | 90.00 | – | – | – | – | – | 1 |" in text and r"**\<i\>&amp;, by strategy**" in text
    assert "No energy was recorded." in text


def test_simulated_and_modelled_is_said(build):
    from dataclasses import replace

    study = build.study(build.trial("mask", val_accuracy=0.9, kwh=1.0, kwh_measured_share=0.0))
    text = print_tables(replace(study, study={**study.study, "simulate": {"table": None}}), table="energy")
    assert "Simulated, nothing was trained or measured" in text and "All energies are modelled, not measured." in text
    measured = build.study(build.trial("mask", val_accuracy=0.9, kwh=1.0, kwh_measured_share=1.0))
    assert "All energies are measured." in print_tables(measured, table="energy")
    assert "was not recorded" in print_tables(build.study(build.sparse(0.9, 1.0)), table="energy")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"table": "best"}, "--table: found 'best'; allowed: data, strategies, accuracy, energy, ablation"),
        ({"format": "html"}, "--format: found 'html'; allowed: text, markdown, latex, csv"),
        ({"format": "csv"}, "--format csv: needs --table, one table a file: data, strategies"),
    ],
)
def test_unknown_tables_and_formats(build, options, problem):
    with pytest.raises(InputError, match=re.escape(problem)):
        print_tables(build.study(), **options)
