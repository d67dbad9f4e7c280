from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sbp_tune.vision import augment, normalize

HOW = ["none", "flip", "crop", "crop_flip"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def possible(image: torch.Tensor, how: str) -> list[torch.Tensor]:
    """All outcomes for one image [C, H, W]."""
    mirrored = [image, image.flip(-1)] if "flip" in how else [image]
    if "crop" not in how:
        return mirrored
    _, height, width = image.shape
    y, x = max(1, height // 8), max(1, width // 8)
    padded = [F.pad(copy, (x, x, y, y)) for copy in mirrored]
    return [
        copy[:, top : top + height, left : left + width]
        for copy in padded
        for top in range(2 * y + 1)
        for left in range(2 * x + 1)
    ]


@settings(deadline=None)
@given(
    st.sampled_from(HOW),
    st.sampled_from([torch.uint8, torch.float32, torch.float16]),
    st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(4, 20), st.integers(4, 20)),
    st.integers(0, 2**31),
)
def test_each_image_is_a_shifted_or_mirrored_copy(
    how: str, dtype: torch.dtype, shape: tuple[int, ...], seed: int
) -> None:
    images = torch.randint(0, 256, shape, generator=seeded(seed)).to(dtype)
    before = images.clone()
    result = augment(images, how, seeded(seed))
    assert result.shape == images.shape and result.dtype == dtype
    assert torch.equal(images, before)
    for image, copy in zip(images, result, strict=True):
        assert any(torch.equal(copy, candidate) for candidate in possible(image, how))
    assert torch.equal(result, augment(images, how, seeded(seed)))


@pytest.mark.parametrize("how", HOW[1:])
def test_images_are_drawn_independently_and_every_outcome_occurs(how: str) -> None:
    image = torch.randint(1, 256, (1, 8, 8), generator=seeded(0))
    results = augment(image.expand(1000, 1, 8, 8), how, seeded(1))
    counts = torch.unique(results, dim=0, return_counts=True)[1]
    outcomes = len(possible(image, how))
    assert len(counts) == outcomes
    assert counts.max() < 2.5 * 1000 / outcomes and counts.min() > 1000 / outcomes / 2.5


def test_none_draws_nothing() -> None:
    images, generator = torch.zeros(2, 3, 8, 8), seeded(0)
    state = generator.get_state()
    assert augment(images, "none", generator) is images and torch.equal(generator.get_state(), state)


def test_normalized_images_have_mean_zero_and_std_one() -> None:
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=seeded(0))
    scaled = images.double() / 255
    result = normalize(images, scaled.mean((0, 2, 3)).tolist(), scaled.std((0, 2, 3), correction=0).tolist())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std((0, 2, 3), correction=0), torch.ones(3))
