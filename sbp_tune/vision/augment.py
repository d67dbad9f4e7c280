"""Augmentation and normalisation of whole batches on their device, an independent draw for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images: Tensor, how: Literal["none", "flip", "crop", "crop_flip"], generator: torch.Generator) -> Tensor:
    """Random flips and shifts of images [N, C, H, W] (float or uint8); shape, dtype and device stay.

    flip: mirrored left-right with probability 1/2. crop: a window of the old size out of the image padded
    with zeros by an eighth of its side (4 pixels of 32, as in He et al. 2016, section 4.2); zero is black
    in uint8 images and the mean colour in normalised ones. `generator` lies on the device of the images.
    """
    if how in ("flip", "crop_flip"):
        images = _flipped(images, generator)
    if how in ("crop", "crop_flip"):
        images = _shifted(images, generator)
    return images


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 images [N, C, H, W] as float32, less `mean` and divided by `std`, both [C] and in [0, 1] units."""
    shape = (1, -1, 1, 1)
    centre = torch.tensor(mean, dtype=torch.float32, device=images.device).view(shape)
    spread = torch.tensor(std, dtype=torch.float32, device=images.device).view(shape)
    return (images.float() / 255 - centre) / spread


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    mirrored = torch.rand(len(images), device=images.device, generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    count, channels, height, width = images.shape
    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    padded = F.pad(images, (pad_x, pad_x, pad_y, pad_y))

    def positions(size: int, pad: int) -> Tensor:
        start = torch.randint(2 * pad + 1, (count, 1), device=images.device, generator=generator)
        return start + torch.arange(size, device=images.device)

    rows, columns = positions(height, pad_y), positions(width, pad_x)
    image = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
