from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sbp_tune.vision import decoded
from sbp_tune.vision.decoded import cache_folder, decode_images

NAMES = ["cat/0000.png", "cat/0001.png", "dog/0000.png"]


@pytest.fixture
def root(folders: Callable[..., Path]) -> Path:
    return folders({"cat": 2, "dog": 1})


def cached_files(cache: Path) -> list[Path]:
    return list(cache.rglob("*.npy"))


def test_pixels_are_those_of_the_files(root: Path) -> None:
    images, unreadable = decode_images(root, NAMES, None)
    assert images.shape == (3, 3, 12, 12) and not unreadable
    for name, pixels in zip(NAMES, images, strict=True):
        assert (np.asarray(Image.open(root / name)).transpose(2, 0, 1) == pixels).all()


def test_second_call_maps_the_first_one_s_file(root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decode_images(root, NAMES, 8)
    monkeypatch.setattr(decoded, "_decode", None)  # decoding again would fail
    second = decode_images(root, NAMES, 8)
    assert isinstance(second.images, np.memmap) and (first.images == second.images).all()
    assert len(cached_files(own_cache)) == 1


def test_any_touched_file_other_size_or_order_is_another_array(root: Path, own_cache: Path) -> None:
    decode_images(root, NAMES, 8)
    decode_images(root, NAMES, 16)
    decode_images(root, NAMES[::-1], 8)
    os.utime(root / NAMES[0], ns=(1, 1))
    decode_images(root, NAMES, 8)
    assert len(cached_files(own_cache)) == 4


def test_changes_in_memory_never_reach_the_file(root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that it must not write to
        images = torch.from_numpy(decode_images(root, NAMES, 8).images)
    before = images.clone()
    images.zero_()
    assert torch.equal(torch.from_numpy(decode_images(root, NAMES, 8).images), before)


def test_racing_trials_decode_once_and_all_get_the_right_images(
    root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, decoded_files = decoded._decode, []

    def slowly(path: Path, size: tuple[int, ...]) -> decoded.Pixels | str:
        decoded_files.append(path)
        time.sleep(0.05)
        return decode(path, size)

    monkeypatch.setattr(decoded, "_decode", slowly)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: decode_images(root, NAMES, 8).images, range(8)))
    assert all((result == results[0]).all() for result in results)
    assert sorted(decoded_files) == [root / name for name in NAMES]  # a lock is of an open file: threads wait too
    assert [path.suffix for path in (own_cache / "decoded").iterdir()] == [".npy"]  # nothing temporary is left


def test_unwritable_cache_falls_back_to_memory(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode_images(root, NAMES, 8).images
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SBP_TUNE_CACHE", str(tmp_path / "file"))
    (root / "cat" / "0001.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"decoded images stay in memory, .*file/decoded cannot be written"):
        images, unreadable = decode_images(root, NAMES, 8)
    assert not isinstance(images, np.memmap)
    assert unreadable == {1: "not an image"} and (images[[0, 2]] == expected[[0, 2]]).all()


def test_shortest_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    image = Image.new("RGB", (60, 20), (255, 0, 0))
    image.paste((0, 255, 0), (20, 0, 40, 20))  # the middle third is green
    image.save(tmp_path / "wide.png")
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "tall.png")
    images, _ = decode_images(tmp_path, ["wide.png", "tall.png"], 10)
    assert (images[:, 1, 1:-1, 1:-1] == 255).all() and (images[:, 0, 1:-1, 1:-1] == 0).all()


def test_absent_file_and_nothing_readable_are_reported(root: Path) -> None:
    (root / NAMES[0]).write_bytes(b"")
    images, unreadable = decode_images(root, [NAMES[0], "cat/absent.png"], None)
    assert len(images) == 2
    assert unreadable[0] == "not an image" and "No such file" in unreadable[1]


def test_more_files_than_one_batch_stay_in_order(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = decode_images(root, NAMES * 3, 8).images
    monkeypatch.setattr(decoded, "_BATCH", 2)
    monkeypatch.setattr(decoded, "_FORMAT", 0)
    assert (decode_images(root, NAMES * 3, 8).images == whole).all()


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBP_TUNE_CACHE", "/fast/disk")
    assert cache_folder() == Path("/fast/disk")
    monkeypatch.delenv("SBP_TUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/sbp-tune")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "sbp-tune"
