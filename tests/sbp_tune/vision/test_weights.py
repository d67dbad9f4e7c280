from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sbp_tune.config import ModelConfig
from sbp_tune.errors import InputError
from sbp_tune.vision import build_model


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "model.pt"
    torch.save(build_model(ModelConfig(name="small_resnet", args={"width": 4}), 5, 3, 16).state_dict(), path)
    return path


def test_all_but_a_head_of_other_classes_is_taken_over(trained: Path) -> None:
    config = ModelConfig(name="small_resnet", args={"width": 4}, weights=str(trained))
    theirs = torch.load(trained, weights_only=True)
    for classes in (5, 3):
        ours = build_model(config, classes, 3, 16).state_dict()
        same = [name for name in ours if torch.equal(ours[name], theirs[name])]
        assert set(ours) - set(same) == (set() if classes == 5 else {"fc.weight", "fc.bias"})


def test_a_file_that_does_not_fit_is_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not a state_dict")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, args, path, message in (
        ("small_resnet", {"width": 8}, trained, "has in another shape bn1.bias, .* and .* more"),
        ("small_cnn", {}, trained, "lacks features.0.weight"),
        ("small_cnn", {}, tmp_path / "absent.pt", "cannot be read"),
        ("small_cnn", {}, tmp_path / "text.pt", "cannot be read"),
        ("small_cnn", {}, tmp_path / "list.pt", "holds no state_dict"),
    ):
        with pytest.raises(InputError, match=f"model.weights: {path}: {message}"):
            build_model(ModelConfig(name=name, args=args, weights=str(path)), 5, 3, 16)


def test_two_sources_of_weights_are_refused(trained: Path) -> None:
    with pytest.raises(InputError, match="found with pretrained"):
        build_model(ModelConfig(name="resnet18", pretrained=True, weights=str(trained)), 5, 3, 16)
    with pytest.raises(InputError, match="he would overwrite"):
        build_model(ModelConfig(name="small_resnet", init="he", weights=str(trained)), 5, 3, 16)
