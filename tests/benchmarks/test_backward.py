import json

import pytest

from benchmarks.backward import main
from sbp_tune.config import plugin_names

TINY = ["--model", "small_cnn", "--image-size", "16", "--batch-size", "4", "--rounds", "2", "--steps", "1"]


def test_json_has_every_estimator_with_its_keys(capsys, tmp_path):
    main([*TINY, "--json", "-o", str(tmp_path)])
    captured = capsys.readouterr()
    rows = {row["estimator"]: row for row in json.loads(captured.out)}
    bounds = {"forward", "no_grad_weight"}
    assert set(rows) == {*plugin_names("sparsity/estimators"), "channel_block_both", *bounds} - {"branch_drop"}
    assert "left out: branch_drop" in captured.err
    assert rows["dense"]["step_ratio"] == 1 and rows["dense"]["flop_ratio"] == 1 and rows["dense"]["step_ms"] > 0
    for name, row in rows.items():
        assert row["step_ratio_min"] <= row["step_ratio"] <= row["step_ratio_max"]
        assert name == "forward" or (0 < row["flop_ratio"] <= 1.2 and row["peak_mb"] > 0)
    assert rows["no_grad_weight"]["flop_ratio"] < rows["layer"]["flop_ratio"] < 1
    [file] = tmp_path.iterdir()
    assert json.loads(file.read_text()) == list(rows.values())
    assert file.name.endswith("small_cnn_imagenet_16px_b4_keep0.25_fp32_nchw.json")


def test_a_table_of_chosen_estimators(capsys):
    main([*TINY, "--estimators", "layer", "--precision", "bf16", "--channels-last"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["estimator", "dense", "layer", "no_grad_weight", "forward", "dense:"]


def test_an_unknown_network_is_a_line(capsys):
    with pytest.raises(SystemExit, match=r"error: model\.name: found 'resnet19'"):
        main(["--model", "resnet19"])
