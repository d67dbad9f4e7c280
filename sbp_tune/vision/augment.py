"""Augmentation and normalisation of whole batches on their device, an independent draw for each image.

Drawn from a generator of one's own, so that nothing else that is random can shift the draws. Rotation, zoom and
colours by kornia's functions, which take a value for each image; it is loaded only where these are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ROTATION_DEGREES = 15.0
ZOOM = 0.2  # scale 1 - ZOOM to 1 + ZOOM
JITTER = 0.2  # factors 1 - JITTER to 1 + JITTER
CROPPED_AREA = (0.08, 1.0)  # of the image, and aspect ratios: torchvision's RandomResizedCrop
CROPPED_ASPECT = (3 / 4, 4 / 3)


def jitter(images: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Random brightness, contrast and saturation of images [N, C, H, W] in [0, 1], where `how` names jitter.

    Factors uniform in 1 +- JITTER; a single channel has no saturation.
    """
    if "jitter" not in how.split("_"):
        return images
    from kornia.enhance import adjust_contrast_with_mean_subtraction, adjust_saturation

    def factors() -> Tensor:
        return 1 + JITTER * (2 * torch.rand(len(images), device=images.device, generator=generator) - 1)

    # A factor on all channels is what torchvision calls brightness; kornia's adjust_brightness adds.
    images = (images * factors().view(-1, 1, 1, 1)).clamp(0, 1)
    images = adjust_contrast_with_mean_subtraction(images, factors())
    saturation = factors()
    return adjust_saturation(images, saturation) if images.shape[1] == 3 else images


def augment(images: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Random geometry of images [N, C, H, W] (float or uint8); shape, dtype and device stay.

    how: names joined by _, applied in this order. flip: mirrored left-right with probability 1/2. resize: a random
    window of CROPPED_AREA, stretched to the whole. rotate: by up to +-ROTATION_DEGREES; zoom: by 1 +- ZOOM; both
    bilinear, in floating point. crop: a window of the old size out of the image padded with zeros by an eighth of its
    side (4 pixels of 32, as in He et al. 2016, section 4.2). Zero is black in uint8 images and the mean colour in
    normalised ones. `generator` lies on the device of the images.
    """
    names = how.split("_")
    if "flip" in names:
        images = _flipped(images, generator)
    if {"resize", "rotate", "zoom"} & set(names):
        images = _transformed(images, names, generator)
    if "crop" in names:
        images = _shifted(images, generator)
    return images


def scaled(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.float() / 255


def normalize(images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """Images [N, C, H, W] in [0, 1], less `mean` and divided by `std`, both [C]; best tensors on their device."""
    centre, spread = (torch.as_tensor(values, dtype=torch.float32, device=images.device) for values in (mean, std))
    return (images - centre.view(1, -1, 1, 1)) / spread.view(1, -1, 1, 1)


def _transformed(images: Tensor, names: Sequence[str], generator: torch.Generator) -> Tensor:
    """One bilinear warp for rotation, zoom and the stretched window together."""
    from kornia.geometry.transform import get_affine_matrix2d, warp_affine

    count, _, height, width = images.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, device=images.device, generator=generator)

    angle, scale = torch.zeros(count, device=images.device), torch.ones(count, 2, device=images.device)
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=images.device).expand(count, 2)
    shift = torch.zeros(count, 2, device=images.device)
    if "rotate" in names:
        angle = uniform(-ROTATION_DEGREES, ROTATION_DEGREES)
    if "zoom" in names:
        scale = scale * uniform(1 - ZOOM, 1 + ZOOM)[:, None]
    if "resize" in names:
        aspect = torch.exp(uniform(math.log(CROPPED_ASPECT[0]), math.log(CROPPED_ASPECT[1])) / 2)
        side = uniform(*CROPPED_AREA).sqrt()
        window = torch.stack([side * aspect, side / aspect], 1).clamp(max=1)  # of the width and the height
        place = torch.stack([uniform(-0.5, 0.5), uniform(-0.5, 0.5)], 1) * (1 - window)  # of its centre
        scale = scale / window
        shift = -place * torch.tensor([width - 1, height - 1], device=images.device) * scale
    matrix = get_affine_matrix2d(shift, centre, scale, angle)[:, :2]
    return warp_affine(images.float(), matrix, (height, width)).to(images.dtype)


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
