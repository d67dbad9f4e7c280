"""Image files decoded once, kept on disk as one uint8 array that all processes of a node map into memory."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sbp_tune.errors import InputError
from sbp_tune.files import write_atomic

_FORMAT = 2  # part of the cache key: raise it when the pixels or the file's layout change
_BATCH = 256  # images in flight, so that decoding a big set needs little memory

Pixels = NDArray[np.uint8]
T = TypeVar("T")


class Decoded(NamedTuple):
    """Images uint8 [N, 3, H, W], one for each file; unreadable files are black, with the reason by index."""

    images: Pixels
    unreadable: dict[int, str]


def cache_folder() -> Path:
    """Where decoded images are kept: SBP_TUNE_CACHE, else sbp-tune in the user's cache folder."""
    if chosen := os.environ.get("SBP_TUNE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sbp-tune"


def decode_images(root: Path, names: Sequence[str], image_size: int | None) -> Decoded:
    """The files `names` below `root` as RGB, shortest side resized to image_size and centre-cropped.

    The first process on a machine that asks for them decodes them, and others wait for it. The array is a
    copy-on-write map of the cache file, or lies in memory (with a warning) where the cache cannot be written. Without
    image_size all images must be of one size, else InputError.
    """
    path = decoded_path(root, names, image_size)
    if path.exists():
        return _mapped(path)
    shape = (len(names), *image_shape(root, names, image_size))
    try:
        with _one_at_a_time(path):
            if not path.exists():
                write_atomic(path, lambda temporary: _write(temporary, root, names, shape))
        return _mapped(path)
    except OSError as error:
        warnings.warn(f"decoded images stay in memory, {path.parent} cannot be written: {error}", stacklevel=2)
    images = np.empty(shape, np.uint8)
    slots = iter(images)
    return Decoded(images, _decode_each(root, names, shape, lambda pixels: np.copyto(next(slots), pixels)))


def decoded_path(root: Path, names: Sequence[str], image_size: int | None) -> Path:
    """The file in which `decode_images` keeps these images, whether it is there or not."""
    return cache_folder() / "decoded" / f"{_fingerprint(root, names, image_size)}.npy"


def image_shape(root: Path, names: Sequence[str], image_size: int | None) -> tuple[int, int, int]:
    """Channels, height and width of a decoded image; without image_size that of all files, by their headers."""
    return (3, *((image_size, image_size) if image_size else _common_size(root, names)))


def _fingerprint(root: Path, names: Sequence[str], image_size: int | None) -> str:
    """Changes when a file is added, removed, reordered or touched (ctime sees mended permissions too)."""
    digest = hashlib.sha256(json.dumps([_FORMAT, str(root.resolve()), image_size]).encode())
    for name in names:
        try:
            stat = (root / name).stat()
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        except OSError:  # reported as unreadable when it is decoded
            state = []
        digest.update(json.dumps([name, *state]).encode())
    return digest.hexdigest()[:32]


def _write(path: Path, root: Path, names: Sequence[str], shape: tuple[int, ...]) -> None:
    """One .npy array, written image by image, and behind it the unreadable files as JSON."""
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        unreadable = _decode_each(root, names, shape, lambda pixels: file.write(pixels.tobytes()))
        file.write(json.dumps(unreadable).encode())


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Waits until no other process is in here for this file. Where locks do not work all go in, which only costs time.

    The lock goes with its process, however that ends.
    """
    lock = path.with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        with suppress(OSError):  # some network file systems have none
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # who waits for it finds the file, and who comes now looks for that first


def _mapped(path: Path) -> Decoded:
    images = np.load(path, mmap_mode="c")  # copy on write: torch may take it, and the file never changes
    with path.open("rb") as file:
        file.seek(images.offset + images.nbytes)
        return Decoded(images, {int(index): reason for index, reason in json.load(file).items()})


def _decode_each(
    root: Path, names: Sequence[str], shape: tuple[int, ...], keep: Callable[[Pixels], object]
) -> dict[int, str]:
    """Hands every image [3, H, W] to `keep`, in order; returns why some could not be read, by index."""
    blank = np.zeros(shape[1:], np.uint8)
    unreadable = {}
    for index, pixels in enumerate(_in_threads(lambda name: _decode(root / name, shape[2:]), names)):
        if isinstance(pixels, str):
            unreadable[index] = pixels
        keep(blank if isinstance(pixels, str) else pixels)
    return unreadable


def _decode(path: Path, size: tuple[int, ...]) -> Pixels | str:
    """Pixels [3, H, W], or why the file cannot be read."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            rgb = _as_rgb(image)  # reads all of the file: a truncated one fails here, not at open
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # the decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        return " ".join(str(error).split()) or type(error).__name__
    fitted = ImageOps.fit(rgb, (size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(fitted).transpose(2, 0, 1)


def _as_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, turned as its EXIF says; 16-bit grey is scaled, which PIL's own conversion would clip."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {upright.mode} have no fixed range to scale from")
    return upright.convert("RGB")


def _common_size(root: Path, names: Sequence[str]) -> tuple[int, int]:
    """Height and width of all images, from their headers."""
    first: tuple[str, tuple[int, int]] | None = None
    for name, size in zip(names, _in_threads(lambda name: _header_size(root / name), names), strict=True):
        if size is None:
            continue
        first = first or (name, size)
        if size != first[1]:
            (a, b), (c, d) = first[1], size
            raise InputError(
                f"data.root: images differ in size: {first[0]} is {a}x{b}, {name} is {c}x{d}; set data.image_size"
            )
    width, height = first[1] if first else (1, 1)  # where no file is an image, all are reported as unreadable
    return height, width


def _header_size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (image.height, image.width) if turned else image.size
    except Exception:  # reported when it is decoded
        return None


def _in_threads(work: Callable[[str], T], names: Sequence[str]) -> Iterator[T]:
    """`work` of every name, in order, a batch at a time; PIL releases the interpreter lock while decoding."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(names), _BATCH):
            yield from pool.map(work, names[start : start + _BATCH])
