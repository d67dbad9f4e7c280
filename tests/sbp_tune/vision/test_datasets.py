"""What every data set must do, with real files in each one's own format."""

from __future__ import annotations

import http.server
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.io import savemat

from sbp_tune.config import DataConfig, plugin_names
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.vision.data import load_dataset

CLASSES = {"cifar10": 10, "cifar100": 100}
PER_CLASS = 5


def write_cifar(name: str, root: Path) -> None:
    """Small CIFAR files; the label key and file names are those of the originals."""
    dataset = getattr(torchvision.datasets, name.upper())
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    count = CLASSES[name] * PER_CLASS
    for file, _ in dataset.train_list + dataset.test_list:
        labels = np.tile(np.arange(CLASSES[name]), PER_CLASS).tolist()
        pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        key = "labels" if name == "cifar10" else "fine_labels"
        (folder / file).write_bytes(pickle.dumps({"data": pixels, key: labels}))
    meta = {dataset.meta["key"]: [f"class {index}" for index in range(CLASSES[name])]}
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(meta))


def accept_any_checksum(name: str, patch: pytest.MonkeyPatch) -> None:
    """Small files cannot have the originals' checksums; all else of torchvision's reader stays."""
    if name == "flowers102":
        files = torchvision.datasets.Flowers102._file_dict
        patch.setattr(torchvision.datasets.Flowers102, "_file_dict", {key: (files[key][0], None) for key in files})
        return
    dataset = getattr(torchvision.datasets, name.upper())
    for attribute in ("train_list", "test_list"):
        patch.setattr(dataset, attribute, [[file, None] for file, _ in getattr(dataset, attribute)])
    patch.setattr(dataset, "meta", dataset.meta | {"md5": None})


def write_flowers(root: Path) -> None:
    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for index in range(1, 13):
        image = Image.new("RGB", (30 + index, 40), (20 * index, 0, 0))
        image.save(folder / "jpg" / f"image_{index:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2] * 6])})
    savemat(folder / "setid.mat", {"trnid": [[1, 2, 3, 4]], "valid": [[5, 6]], "tstid": [[7, 8, 9, 10, 11, 12]]})


@pytest.fixture
def make_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: Callable[..., Path]) -> Callable:
    """The config of any data set, its files made first."""

    def make(name: str, **changes: object) -> DataConfig:
        root = tmp_path / "data"
        if name.startswith("cifar"):
            write_cifar(name, root)
            accept_any_checksum(name, monkeypatch)
        elif name == "flowers102":
            write_flowers(root)
            accept_any_checksum(name, monkeypatch)
        elif name == "image_folder":
            root = folders({"cat": 12, "dog": 9})
        else:
            assert name == "digits", f"say here how the files of {name} are made"
        return DataConfig(name=name, root=str(root), **changes)

    return make


@pytest.mark.parametrize("name", plugin_names("vision/datasets"))
def test_every_data_set_keeps_the_contract(name: str, make_config: Callable) -> None:
    data = load_dataset(make_config(name))
    for split in (data.train, data.val, data.test):
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert len(split.images) == len(split.labels) == len(split) > 0
        assert split.images.shape[1:] == data.train.images.shape[1:]
        assert split.labels.min() >= 0 and split.labels.max() < data.num_classes
        assert split.labels.unique().tolist() == data.train.labels.unique().tolist()
    assert len(set(data.classes)) == data.num_classes > 1
    assert len(data.mean) == len(data.std) == data.channels == data.train.images.shape[1]
    assert all(0 <= mean <= 1 for mean in data.mean) and all(0 < std <= 0.5 for std in data.std)


@pytest.mark.parametrize("name", plugin_names("vision/datasets"))
def test_every_data_set_is_repeatable_and_honours_size_and_subset(name: str, make_config: Callable) -> None:
    config = make_config(name, image_size=10)
    first = load_dataset(config)
    load_dataset(DataConfig(split_seed=9))  # empties the one-entry cache
    second = load_dataset(config)
    assert first is not second and first.train.images.shape[2:] == (10, 10)
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(first, part).images, getattr(second, part).images)
        assert torch.equal(getattr(first, part).labels, getattr(second, part).labels)
    smaller = len(first.train) - 1
    assert len(load_dataset(config.model_copy(update={"subset": smaller})).train) == smaller


@pytest.mark.parametrize("name", sorted(set(plugin_names("vision/datasets")) - {"digits"}))
def test_missing_root_is_one_clear_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^data.root: missing; {name} needs the folder of its data$"):
        load_dataset(DataConfig(name=name))
    missing = f"{tmp_path}/absent: no such folder$" if name == "image_folder" else f"{name} is missing or damaged, "
    with pytest.raises(InputError, match=f"^data.root: {missing}"):
        load_dataset(DataConfig(name=name, root=str(tmp_path / "absent")))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"^data.root: {tmp_path}/file: not a folder$"):
        load_dataset(DataConfig(name=name, root=str(tmp_path / "file"), download=True))


@pytest.mark.parametrize(
    ("name", "folder"),
    [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python"), ("flowers102", "flowers-102")],
)
def test_missing_and_damaged_files_say_where_they_are_expected(name: str, folder: str, tmp_path: Path) -> None:
    expected = f"data.root: {name} is missing or damaged, expected in {tmp_path}/{folder}; data.download: true fetches"
    config = DataConfig(name=name, root=str(tmp_path))
    with pytest.raises(InputError, match=expected):
        load_dataset(config)
    write_flowers(tmp_path) if name == "flowers102" else write_cifar(name, tmp_path)  # checksums do not match
    with pytest.raises(InputError, match=expected):
        load_dataset(config)


def test_cifar_validation_images_come_from_the_training_images(make_config: Callable) -> None:
    data = load_dataset(make_config("cifar10", val_fraction=0.2))
    assert [len(split) for split in (data.train, data.val, data.test)] == [200, 50, 50]
    assert data.val.labels.bincount().tolist() == [5] * 10
    assert data.classes[3] == "class 3"


def test_cifar_pixels_keep_their_places(make_config: Callable) -> None:
    config = make_config("cifar100")
    raw = pickle.loads((Path(config.root or "") / "cifar-100-python" / "test").read_bytes())
    data = load_dataset(config)
    assert torch.equal(data.test.images[7].flatten(), torch.from_numpy(raw["data"][7]))


def test_flowers_keep_their_own_splits_at_224_pixels(make_config: Callable) -> None:
    data = load_dataset(make_config("flowers102"))
    assert [len(split) for split in (data.train, data.val, data.test)] == [4, 2, 6]
    assert data.train.images.shape == (4, 3, 224, 224) and data.num_classes == 102
    assert (data.test.images[:, 0].float().mean((1, 2)) - torch.arange(140, 241, 20)).abs().max() < 3


def test_flowers_resplit_hold_out_a_part_of_their_training_and_validation_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for index in range(1, 409):
        Image.new("RGB", (16, 16), (index % 256, index // 256, 0)).save(folder / "jpg" / f"image_{index:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1 + index % 102 for index in range(408)]])})
    ids = np.arange(1, 409)
    savemat(folder / "setid.mat", {"trnid": [ids[:204]], "valid": [ids[204:306]], "tstid": [ids[306:]]})
    accept_any_checksum("flowers102", monkeypatch)
    config = DataConfig(name="flowers102", root=str(tmp_path), image_size=16, resplit=True, val_fraction=1 / 3)
    data = load_dataset(config)
    assert [len(split) for split in (data.train, data.val, data.test)] == [204, 102, 102]
    assert sorted(data.val.labels.tolist()) == list(range(102))


@pytest.fixture
def archive_url(tmp_path: Path) -> Iterator[str]:
    """An archive of small CIFAR-10 files on a web server of this machine."""
    write_cifar("cifar10", tmp_path / "origin")
    with tarfile.open(tmp_path / "origin" / "cifar.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "origin" / "cifar-10-batches-py", "cifar-10-batches-py")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "origin"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/cifar.tar.gz"
        server.shutdown()


def test_download_fetches_into_a_new_root_and_failure_is_one_line(
    archive_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    accept_any_checksum("cifar10", monkeypatch)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", None)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", archive_url.replace("cifar.tar.gz", "absent"))
    config = DataConfig(name="cifar10", root=str(tmp_path / "new"), download=True)
    with pytest.raises(SbpTuneError, match=r"data.download: cifar10 cannot be fetched to .*/new: ") as failure:
        load_dataset(config)
    assert not isinstance(failure.value, InputError)  # the job failed: the config is right
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", archive_url)
    assert len(load_dataset(config).test) == 50
