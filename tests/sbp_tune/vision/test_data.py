from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.config import DataConfig
from sbp_tune.errors import InputError
from sbp_tune.vision import data
from sbp_tune.vision.data import channel_statistics, load_dataset, resized


def test_digits_are_split_by_the_fractions_and_scaled_to_bytes() -> None:
    digits = load_dataset(DataConfig(val_fraction=0.1, test_fraction=0.3))
    assert [len(split) for split in (digits.train, digits.val, digits.test)] == [1078, 180, 539]
    assert digits.train.images.shape[1:] == (1, 8, 8) and digits.train.images.max() == 255
    assert (digits.num_classes, digits.channels, digits.classes) == (10, 1, tuple("0123456789"))


def test_digits_honour_image_size() -> None:
    assert load_dataset(DataConfig(image_size=16)).val.images.shape[1:] == (1, 16, 16)


def test_subset_cuts_the_training_images_only_and_statistics_follow() -> None:
    whole = load_dataset(DataConfig())
    part = load_dataset(DataConfig(subset=100))
    assert (len(part.train), len(part.val), len(part.test)) == (100, len(whole.val), len(whole.test))
    assert part.train.labels.bincount().min() >= 9
    assert (part.mean, part.std) == channel_statistics(part.train.images)


@pytest.mark.parametrize("subset", [9, 5000])
def test_impossible_subset_is_refused(subset: int) -> None:
    with pytest.raises(InputError, match=f"data.subset: found {subset}; allowed: 10"):
        load_dataset(DataConfig(subset=subset))


def test_last_data_set_is_kept_whatever_the_batch_size() -> None:
    first = load_dataset(DataConfig(batch_size=32))
    assert load_dataset(DataConfig(batch_size=64, augment="flip")) is first
    other = load_dataset(DataConfig(split_seed=1))
    assert other is not first
    assert load_dataset(DataConfig(split_seed=1)) is other


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 99), st.integers(1, 300))
def test_statistics_are_exact_and_independent_of_chunks(count: int, channels: int, seed: int, chunk: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, channels, 5, 4), dtype=torch.uint8, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_CHUNK_BYTES", chunk)
        mean, std = channel_statistics(images)
    assert (mean, std) == channel_statistics(images)
    scaled = images.double() / 255
    torch.testing.assert_close(torch.tensor(mean), scaled.mean((0, 2, 3)).float())
    torch.testing.assert_close(torch.tensor(std), scaled.std((0, 2, 3), correction=0).float())


def test_constant_channel_has_a_std_to_divide_by() -> None:
    assert channel_statistics(torch.full((2, 1, 4, 4), 7, dtype=torch.uint8))[1] == (1 / 255,)


def test_resizing_keeps_the_mean_and_does_nothing_unasked() -> None:
    images = torch.full((2, 3, 32, 32), 90, dtype=torch.uint8)
    assert resized(images, None) is images
    smaller = resized(images, 8)
    assert smaller.shape == (2, 3, 8, 8) and smaller.dtype == torch.uint8 and (smaller == 90).all()


def test_chosen_classes_are_relabelled_by_their_place() -> None:
    whole = load_dataset(DataConfig(name="digits"))
    some = load_dataset(DataConfig(name="digits", classes=("7", "3"), subset=40))
    assert some.classes == ("7", "3") and len(some.train) == 40
    assert some.train.labels.bincount().tolist() == [20, 20]
    sevens = whole.test.images[whole.test.labels == 7]
    assert torch.equal(some.test.images[some.test.labels == 0], sevens)
    assert len(some.test) == int((whole.test.labels == 7).sum() + (whole.test.labels == 3).sum())


def test_classes_drawn_by_a_seed() -> None:
    drawn = [load_dataset(DataConfig(name="digits", class_count=4, split_seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0].classes == drawn[1].classes != drawn[2].classes and drawn[0].num_classes == 4
    assert drawn[0].classes == tuple(sorted(drawn[0].classes))
    assert set(drawn[0].train.labels.tolist()) == {0, 1, 2, 3}
    with pytest.raises(InputError, match=r"data.class_count: found 11; allowed: 2 to 10"):
        load_dataset(DataConfig(name="digits", class_count=11))
    with pytest.raises(ValueError, match=r"beside data.classes"):
        DataConfig(class_count=2, classes=("1", "2"))


@pytest.mark.parametrize("classes", [("7", "x"), ("7",), ("7", "7")])
def test_impossible_classes_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"data.classes: found .*(allowed: 0, 1|needs two or more)"):
        load_dataset(DataConfig(name="digits", classes=classes))
