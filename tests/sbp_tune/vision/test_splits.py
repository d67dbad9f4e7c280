from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.errors import InputError
from sbp_tune.vision.splits import proportional_counts, stratified_parts, stratified_subset

SIZES = st.lists(st.integers(3, 60), min_size=2, max_size=8)
FRACTION = st.floats(0.05, 0.45)


def make_labels(sizes: list[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


@given(SIZES, st.data())
def test_counts_sum_to_the_total_and_stay_within_one_of_the_share(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(len(sizes), sum(sizes)))
    counts = proportional_counts(np.array(sizes), total)
    share = total * np.array(sizes) / sum(sizes)
    assert counts.sum() == total
    assert (counts >= 1).all() and (counts <= sizes).all()
    if share.min() >= 1:
        assert (np.abs(counts - share) < 1).all()


@given(SIZES, FRACTION, FRACTION, st.integers(0, 2**31))
def test_parts_are_disjoint_exhaustive_stratified_and_repeatable(
    sizes: list[int], val: float, test: float, seed: int
) -> None:
    labels = make_labels(sizes)
    classes = [f"c{index}" for index in range(len(sizes))]
    try:
        parts = stratified_parts(labels, {"val": val, "test": test}, seed, classes)
    except InputError:
        assert min(sizes) < 1 + 2 / (1 - val - test)  # refused only where a class is really small
        return
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(labels)))
    again = stratified_parts(labels, {"val": val, "test": test}, seed, classes)
    for part, fraction in (("val", val), ("test", test)):
        assert len(parts[part]) == max(len(sizes), round(fraction * len(labels)))
        counts = np.bincount(labels[parts[part]], minlength=len(sizes))
        share = len(parts[part]) * np.array(sizes) / sum(sizes)
        assert counts.min() >= 1
        if share.min() >= 1:
            assert (np.abs(counts - share) < 1).all()
        assert (parts[part] == again[part]).all()
    assert set(labels[parts["train"]]) == set(range(len(sizes)))


def test_another_seed_gives_another_split() -> None:
    labels = make_labels([50, 50])
    first, second = (stratified_parts(labels, {"val": 0.2}, seed, ["a", "b"])["val"] for seed in (0, 1))
    assert (first != second).any()


def test_class_with_too_few_images_is_named() -> None:
    with pytest.raises(InputError, match=r"class rare has 2 images, too few for data.val_fraction 0.2 and data.test"):
        stratified_parts(make_labels([20, 2]), {"val": 0.2, "test": 0.2}, 0, ["common", "rare"])
    with pytest.raises(InputError, match="class rare has 1 image, too few"):
        stratified_parts(make_labels([20, 1]), {"val": 0.2}, 0, ["common", "rare"])


def test_fractions_must_leave_training_images() -> None:
    with pytest.raises(InputError, match=r"sum 1.1, must be below 1"):
        stratified_parts(make_labels([20, 20]), {"val": 0.6, "test": 0.5}, 0, ["a", "b"])


@given(SIZES, st.data())
def test_subset_is_exact_stratified_and_repeatable(sizes: list[int], data: st.DataObject) -> None:
    labels = make_labels(sizes)
    total = data.draw(st.integers(len(sizes), len(labels)))
    chosen = stratified_subset(labels, total, seed=3)
    assert len(set(chosen)) == len(chosen) == total
    assert (np.bincount(labels[chosen]) == proportional_counts(np.array(sizes), total)).all()
    assert (chosen == stratified_subset(labels, total, seed=3)).all()


def test_subset_ignores_classes_without_images() -> None:
    assert len(stratified_subset(np.array([0, 0, 7, 7]), 2, seed=0)) == 2


@pytest.mark.parametrize("total", [2, 10])
def test_impossible_subset_names_what_is_allowed(total: int) -> None:
    with pytest.raises(InputError, match=rf"data.subset: found {total}; allowed: 3 \(the classes\) to 9"):
        stratified_subset(np.repeat([0, 1, 2], 3), total, seed=0)
