from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sbp_tune.config import AUGMENTATIONS, DataConfig
from sbp_tune.vision import augment, jitter, normalize, scaled
from sbp_tune.vision.augment import ROTATION_DEGREES, ZOOM

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
    images = scaled(torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=seeded(0)))
    assert 0 <= images.min() < images.max() <= 1
    result = normalize(images, images.mean((0, 2, 3)).tolist(), images.std((0, 2, 3), correction=0).tolist())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std((0, 2, 3), correction=0), torch.ones(3))


def disc(count: int, size: int = 65, radius: float = 12.0, x: float = 0.0) -> torch.Tensor:
    """White discs [count, 1, size, size] on black, their centres x pixels right of the middle."""
    places = torch.arange(size) - size // 2
    inside = (places[:, None] ** 2 + (places[None, :] - x) ** 2) <= radius**2
    return inside.float().expand(count, 1, size, size)


def test_zoom_scales_each_image_about_its_middle() -> None:
    before = disc(400)
    areas = augment(before, "zoom", seeded(0)).sum((1, 2, 3)) / before[0].sum()
    assert areas.min() > (1 - ZOOM) ** 2 * 0.95 and areas.max() < (1 + ZOOM) ** 2 * 1.05
    assert areas.min() < (1 - 0.9 * ZOOM) ** 2 and areas.max() > (1 + 0.9 * ZOOM) ** 2 and len(areas.unique()) > 300


def test_rotation_turns_each_image_about_its_middle() -> None:
    right = augment(disc(400, radius=4, x=24), "rotate", seeded(0))
    places = torch.arange(65.0) - 32
    weight = right.sum((1, 2, 3))
    x, y = (right.sum(2) * places).sum((1, 2)) / weight, (right.sum(3) * places).sum((1, 2)) / weight
    torch.testing.assert_close(torch.hypot(x, y), torch.full((400,), 24.0), atol=0.3, rtol=0)
    degrees = torch.rad2deg(torch.atan2(y, x))
    assert degrees.abs().max() < ROTATION_DEGREES + 0.5 and degrees.min() < -12 and degrees.max() > 12


def test_resize_shows_a_window_of_the_image_stretched_to_the_whole() -> None:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    before = torch.stack([1 + rows, 1 + columns]).expand(300, 2, 64, 64)  # each pixel says where it was
    after = augment(before, "resize", seeded(0)) - 1
    assert after.min() > -0.05 and after.max() < 1.05  # nothing from outside of the image
    height, width = after[:, 0, -1, 32] - after[:, 0, 0, 32], after[:, 1, 32, -1] - after[:, 1, 32, 0]
    area = height * width
    assert 0.05 < area.min() < 0.15 and 0.9 < area.max() < 1.02
    assert (height / width).min() > 0.7 and (height / width).max() < 1.4


def test_jitter_changes_colours_of_each_image_alone() -> None:
    image = torch.rand(1, 3, 16, 16, generator=seeded(0)) * 0.5 + 0.25
    after = jitter(image.expand(200, 3, 16, 16), "flip_jitter", seeded(1))
    assert after.min() >= 0 and after.max() <= 1 and len(after.mean((1, 2, 3)).unique()) > 190
    grey = image[:, :1].expand(200, 1, 16, 16)  # no saturation; contrast leaves the mean
    ratio = jitter(grey, "jitter", seeded(1)).mean((1, 2, 3)) / image[:, :1].mean()
    assert 0.795 < ratio.min() < 0.82 and 1.18 < ratio.max() < 1.205
    assert jitter(image, "flip", seeded(1)) is image


@pytest.mark.parametrize("how", [*AUGMENTATIONS, "_".join(AUGMENTATIONS)])
def test_the_generator_alone_decides(how: str) -> None:
    images = torch.rand(6, 3, 20, 24, generator=seeded(0))

    def once(seed: int) -> torch.Tensor:
        generator = seeded(seed)
        return augment(jitter(images, how, generator), how, generator)

    torch.manual_seed(1)
    first, state = once(3), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, once(3)) and not torch.equal(first, once(4))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # nothing was drawn of what the network draws from


@pytest.mark.parametrize("how", ["flip_flip", "blur", "", "none_flip", "flip crop"])
def test_unknown_augmentations_are_refused(how: str) -> None:
    with pytest.raises(ValueError, match="allowed: none, or some of flip, crop"):
        DataConfig(augment=how)
