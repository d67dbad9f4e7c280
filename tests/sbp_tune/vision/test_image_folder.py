from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from sbp_tune.config import DataConfig
from sbp_tune.errors import InputError
from sbp_tune.vision.data import ImageData, chosen_classes, load_dataset

Folders = Callable[..., Path]


def load(root: Path, **options: object) -> ImageData:
    return load_dataset(DataConfig(name="image_folder", root=str(root), **options))


def sizes(data: ImageData) -> list[int]:
    return [len(split) for split in (data.train, data.val, data.test)]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_class_folders_are_split_by_the_fractions_of_the_whole(folders: Folders) -> None:
    data = load(folders({"dog": 20, "cat": 10}))
    assert sizes(data) == [18, 6, 6] and data.classes == ("cat", "dog")
    assert data.val.labels.bincount().tolist() == [2, 4]
    whole = torch.cat([split.images for split in (data.train, data.val, data.test)])
    assert len(torch.unique(whole, dim=0)) == 30  # no image in two splits


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [12, 4, 4]),
        ({"val": 3}, [16, 6, 4]),
        ({"test": 3}, [16, 4, 6]),
        ({"val": 3, "test": 2}, [20, 6, 4]),
    ],
)
def test_missing_splits_come_from_train(folders: Folders, given: dict[str, int], expected: list[int]) -> None:
    counts = {f"{part}/{name}": count for part, count in given.items() for name in ("cat", "dog")}
    assert sizes(load(folders({"train/cat": 10, "train/dog": 10} | counts))) == expected


def test_resplit_holds_out_of_training_and_validation_images_together(folders: Folders) -> None:
    root = folders({f"{part}/{name}": 5 for part in ("train", "val", "test") for name in ("cat", "dog")})
    assert sizes(load(root)) == [10, 10, 10]
    assert sizes(load(root, resplit=True, val_fraction=0.2)) == [16, 4, 10]


def test_other_classes_are_not_decoded(folders: Folders) -> None:
    root = folders({"cat": 5, "cow": 5, "dog": 5})
    whole = load(root)
    for path in (root / "cow").iterdir():
        truncate(path)
    data = load(root, classes=("dog", "cat"))
    assert data.classes == ("dog", "cat") and sum(sizes(data)) == 10
    dogs = whole.val.images[whole.val.labels == whole.classes.index("dog")]
    assert torch.equal(data.val.images[data.val.labels == 0], dogs)  # the same images are held out
    assert "cow" not in load(root, class_count=2, split_seed=next(s for s in range(99) if _without_cow(s))).classes


def _without_cow(seed: int) -> bool:
    return "cow" not in chosen_classes(DataConfig(class_count=2, split_seed=seed), ("cat", "cow", "dog"))


def test_hidden_and_foreign_files_are_left_out(folders: Folders) -> None:
    root = folders({"cat": 5, "dog": 5, ".hidden": 3, "cat/.thumbs": 2})
    (root / "notes.txt").write_text("x")
    (root / "cat" / "notes.txt").write_text("x")
    (root / "cat" / ".0001.png").write_text("x")
    data = load(root)
    assert sum(sizes(data)) == 10 and data.classes == ("cat", "dog")


def test_extensions_in_capitals_count(folders: Folders) -> None:
    root = folders({"cat": 5, "dog": 5})
    (root / "cat" / "0000.png").rename(root / "cat" / "0000.PNG")
    assert sum(sizes(load(root))) == 10


def test_splits_by_other_names_are_not_taken_for_classes(folders: Folders) -> None:
    with pytest.raises(InputError, match=r"found folders \(cat, dog\) where images of class training") as failure:
        load(folders({"training/cat": 4, "training/dog": 4, "testing/cat": 4, "testing/dog": 4}))
    assert len(failure.value.problems) == 2


def test_a_class_may_be_called_train(folders: Folders) -> None:
    assert load(folders({"train": 5, "car": 5})).classes == ("car", "train")


def test_grey_palette_and_transparent_images_become_rgb(folders: Folders) -> None:
    root = folders({"cat": 5, "dog": 5})
    for index, mode in enumerate(["L", "P", "RGBA", "1", "LA"]):
        Image.new(mode, (12, 12)).save(root / "cat" / f"{index:04d}.png")
    assert load(root).channels == 3


def test_all_unreadable_images_are_named_at_once(folders: Folders) -> None:
    root = folders({"cat": 8, "dog": 8}, extension="jpg")
    truncate(root / "cat" / "0001.jpg")
    (root / "cat" / "0002.jpg").write_bytes(b"")
    (root / "dog" / "0003.jpg").write_text("not an image at all")
    with pytest.raises(InputError) as failure:
        load(root)
    (line,) = failure.value.problems
    assert line.startswith("data.root: 3 of 16 images cannot be read: ")
    assert "cat/0001.jpg (image file is truncated" in line and "cat/0002.jpg (not an image)" in line
    assert line.endswith("mend or remove them, or set data.skip_unreadable: true")


def test_at_most_five_unreadable_images_are_named(folders: Folders) -> None:
    root = folders({"cat": 8, "dog": 8})
    for index in range(7):
        (root / "dog" / f"{index:04d}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"7 of 16 .*, \.\.\. and 2 more; mend") as failure:
        load(root)
    assert str(failure.value).count("(not an image)") == 5


def test_unreadable_images_are_skipped_with_a_warning_also_from_the_cache(folders: Folders) -> None:
    root = folders({"cat": 10, "dog": 10}, extension="jpg")
    truncate(root / "cat" / "0001.jpg")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"left out 1 of 20 images that cannot be read: cat/0001.jpg \(image"):
            data = load(root, skip_unreadable=True)
        assert sum(sizes(data)) == 19
        assert all(split.images.amax((1, 2, 3)).min() > 0 for split in (data.train, data.val, data.test))
        load_dataset(DataConfig())
    with pytest.raises(InputError, match="1 of 20"):
        load(root)


def test_skipping_must_leave_every_class_in_every_split(folders: Folders) -> None:
    root = folders({"train/cat": 4, "train/dog": 4, "val/cat": 1, "val/dog": 2, "test/cat": 1, "test/dog": 1})
    (root / "val" / "cat" / "0000.png").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="left out 1 of 13"),
        pytest.raises(InputError, match=r"data.skip_unreadable: no readable image is left in val of class cat"),
    ):
        load(root, skip_unreadable=True)


def test_mended_image_is_decoded_again(folders: Folders) -> None:
    root = folders({"cat": 5, "dog": 5})
    whole = (root / "cat" / "0001.png").read_bytes()
    (root / "cat" / "0001.png").write_bytes(whole[:50])
    with pytest.raises(InputError):
        load(root)
    (root / "cat" / "0001.png").write_bytes(whole)
    assert sum(sizes(load(root))) == 10


def test_images_of_two_sizes_need_image_size(folders: Folders) -> None:
    root = folders({"cat": 5})
    folders({"dog": 5}, size=(20, 12))
    message = r"images differ in size: cat/000\d.png is 12x12, dog/000\d.png is 20x12; set data.image_size"
    with pytest.raises(InputError, match=message):
        load(root, val_fraction=0.25)
    assert load(root, image_size=8).train.images.shape[1:] == (3, 8, 8)


def test_images_of_one_size_stay_as_stored(folders: Folders) -> None:
    root = folders({"cat": 5, "dog": 5}, size=(10, 14))
    data = load(root)
    assert data.train.images.shape[1:] == (3, 14, 10)
    pixels = {Image.open(path).tobytes() for path in root.rglob("*.png")}
    assert data.test.images[0].permute(1, 2, 0).numpy().tobytes() in pixels


def test_folder_without_classes_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    with pytest.raises(InputError, match="images is empty; needs a folder of images for each class"):
        load(root)
    (root / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="images holds no class folders"):
        load(root)


@pytest.mark.parametrize("inside", ["", "/train"])
def test_one_class_only_is_refused(folders: Folders, inside: str) -> None:
    with pytest.raises(InputError, match=f"images{inside}: only one class, cat; needs two or more"):
        load(folders({f"{inside}/cat".lstrip("/"): 5}))


def test_every_class_without_images_is_named(folders: Folders) -> None:
    root = folders({"cat": 5, "dog": 0, "fox": 0})
    with pytest.raises(InputError, match=r"class dog has no images; allowed: .jpg") as failure:
        load(root)
    assert len(failure.value.problems) == 2


def test_class_with_too_few_images_is_named(folders: Folders) -> None:
    with pytest.raises(InputError, match="class dog has 2 images, too few"):
        load(folders({"cat": 10, "dog": 2}))


def test_splits_must_have_the_same_classes(folders: Folders) -> None:
    root = folders({"train/cat": 4, "train/dog": 4, "val/cat": 2, "val/dog": 2, "test/cat": 2, "test/fox": 2})
    with pytest.raises(InputError) as failure:
        load(root)
    assert [line.split(": ")[-1] for line in failure.value.problems] == [
        "class dog of train is not in test",
        "class fox of test is not in train",
    ]


def test_unknown_split_folder_is_refused(folders: Folders) -> None:
    root = folders({"train/cat": 4, "train/dog": 4, "valid/cat": 2, "valid/dog": 2})
    with pytest.raises(InputError, match="found valid beside train; allowed: val, test"):
        load(root)


def test_splits_share_one_mapped_file(folders: Folders) -> None:
    data = load(folders({"cat": 5, "dog": 5}))
    starts = [split.images.data_ptr() for split in (data.train, data.val, data.test)]
    image = data.train.images[0].numel()
    assert [start - starts[0] for start in starts] == [0, 6 * image, 8 * image]


@pytest.mark.skipif("SBP_TUNE_CIFAR10" not in os.environ, reason="SBP_TUNE_CIFAR10: no folder with train/ and test/")
def test_real_photographs_load_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(Path(os.environ["SBP_TUNE_CIFAR10"]))
    assert data.num_classes == 10 and data.train.images.shape[1:] == (3, 32, 32)
    assert all(abs(mean - known) < 0.03 for mean, known in zip(data.mean, (0.491, 0.482, 0.447), strict=True))
