"""Seeded, stratified splits: every class is in every part, in proportion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sbp_tune.errors import InputError

Indices = NDArray[np.int64]


def proportional_counts(sizes: Indices, total: int) -> Indices:
    """How many images of each class make up `total`: proportional to `sizes` [K], at least one each.

    Within one image of the exact share, unless the share is below one. Needs K <= total <= sum of sizes.
    """
    share = total * sizes / sizes.sum()
    counts = np.maximum(1, np.floor(share).astype(np.int64))
    while counts.sum() < total:
        counts[np.argmax(share - counts)] += 1
    while counts.sum() > total:
        counts[np.argmax(np.where(counts > 1, counts - share, -np.inf))] -= 1
    return counts


def stratified_parts(
    labels: Indices, fractions: Mapping[str, float], seed: int, classes: Sequence[str]
) -> dict[str, Indices]:
    """Sorted indices of the parts named in `fractions` (of all images) and of "train", which gets the rest.

    labels [N] in 0..K-1. The parts are disjoint and cover all images. InputError where the fractions leave
    nothing for training, or a class has too few images to be in every part.
    """
    chosen = " and ".join(f"data.{part}_fraction {fraction:g}" for part, fraction in fractions.items())
    if sum(fractions.values()) >= 1:
        raise InputError(f"{chosen}: sum {sum(fractions.values()):g}, must be below 1 to leave training images")
    sizes = np.bincount(labels, minlength=len(classes))
    counts = {
        part: proportional_counts(sizes, max(len(classes), round(fraction * len(labels))))
        for part, fraction in fractions.items()
    }
    rest = sizes - sum(counts.values())
    if rest.min() < 1:
        name, size = classes[int(rest.argmin())], int(sizes[rest.argmin()])
        raise InputError(
            f"data: class {name} has {size} image{'s' * (size != 1)}, "
            f"too few for {chosen} beside training: every class must be in every split"
        )
    dealt = _deal(labels, [rest, *counts.values()], seed)
    return dict(zip(["train", *counts], dealt, strict=True))


def stratified_subset(labels: Indices, total: int, seed: int) -> Indices:
    """Sorted indices of exactly `total` images, stratified by class; labels [N].

    InputError where `total` exceeds the images or is below the number of classes.
    """
    present, dense = np.unique(labels, return_inverse=True)
    if not len(present) <= total <= len(labels):
        raise InputError(
            f"data.subset: found {total}; allowed: {len(present)} (the classes) to {len(labels)} (the training images)"
        )
    counts = proportional_counts(np.bincount(dense), total)
    return _deal(dense, [counts], seed)[0]


def _deal(labels: Indices, counts: list[Indices], seed: int) -> list[Indices]:
    """Deals shuffled images of every class to parts; counts[part][class]."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    start = np.cumsum(np.bincount(labels)) - np.bincount(labels)
    parts = []
    for part in counts:
        parts.append(np.sort(np.concatenate([ordered[a : a + n] for a, n in zip(start, part, strict=True)])))
        start = start + part
    return parts
