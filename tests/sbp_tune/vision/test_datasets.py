"""What every data set must do, with real files in each one's own format."""

from __future__ import annotations

import http.server
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from small_datasets import accept_any_checksum, write_all_flowers, write_cifar, write_flowers

from sbp_tune.config import DataConfig, plugin_names
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.vision.data import load_dataset


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
    write_all_flowers(tmp_path)
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
