"""Images by class, counted where they lie."""

import pytest
from PIL import Image

from analysis.tables import data_table_info, print_tables
from analysis.tables.data_sets import data_sheets


@pytest.fixture
def folder(tmp_path):
    """Five images of a class that the thesis lists too, ten of one that it does not."""
    for name, count in (("n04483307", 5), ("zebra", 10)):
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{index}.png")
    return tmp_path


def test_a_row_a_class(build, folder):
    data = {"data__name": "image_folder", "data__root": str(folder), "data__image_size": 8}
    info = data_table_info(build.study(*(build.sparse(0.9, 1.0, **data, data__batch_size=size) for size in (8, 16))))
    assert info.rows[["class", "train", "val", "test"]].values.tolist() == [["n04483307", 3, 1, 1], ["zebra", 6, 2, 2]]
    sheet = data_sheets(info)[0]  # one, though the batches differ
    assert sheet.title == "Images of image_folder" and sheet.cells[-1] == ["all classes", "9", "3", "3"]


def test_the_thesis_beside_the_same_classes(build, folder):
    data = {"data__name": "image_folder", "data__root": str(folder), "data__class_count": 2}
    study = build.study(build.sparse(0.9, 1.0, **data))
    sheet = data_sheets(data_table_info(study, published=True))[0]
    assert sheet.cells[0] == ["n04483307", "3", "1", "1", "810", "270", "270"]
    assert sheet.cells[1] == ["zebra", "6", "2", "2", "–", "–", "–"]
    assert sheet.cells[2] == ["n02089973 (English Foxhound)", "–", "–", "–", "482", "160", "162"]
    assert len(sheet.cells) == 9 and sheet.cells[-1] == ["all classes", "9", "3", "3", "–", "–", "–"]


def test_data_that_are_not_here_are_said_to_be(build, tmp_path):
    study = build.study(
        build.sparse(0.9, 1.0, data__name="image_folder", data__root=str(tmp_path / "none")),
        build.sparse(0.9, 1.0, data__name="digits"),
    )
    text = print_tables(study, table="data")
    assert "image_folder cannot be counted on this machine: data.root" in text and "no such folder" in text
    assert "1079" in text and "Images of digits" in text


def test_nothing_names_a_data_set(build):
    assert data_table_info(build.study(build.sparse(0.9, 1.0))).notes == ("No trial names a data set.",)
    assert data_table_info(build.study()).rows.empty
