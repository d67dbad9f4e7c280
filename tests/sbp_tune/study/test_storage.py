import pytest

from sbp_tune.study.storage import attempts, create_study, number_of, open_study, set_attribute

OBJECTIVES = {"val_accuracy": "max", "kwh": "min"}


@pytest.mark.parametrize("name", ["plain", "with space", "a?b", "a#b", "a%20b", "größe"])
def test_any_folder_name_holds_its_own_storage(tmp_path, name):
    (tmp_path / name).mkdir()
    create_study(tmp_path / name, "demo", OBJECTIVES, {"versions": {"torch": "2"}})
    assert (tmp_path / name / "study.db").is_file() and len(list(tmp_path.iterdir())) == 1
    study = open_study(tmp_path / name)
    assert study.study_name == "demo" and study.metric_names == list(OBJECTIVES)
    assert study.user_attrs["versions"] == {"torch": "2"}


def test_a_trial_is_found_by_any_of_its_attempts(tmp_path):
    study = create_study(tmp_path, "demo", OBJECTIVES, {})
    for ids in (["a"], ["b", "c"]):
        set_attribute(study, study.ask().number, "attempts", ids)
    assert [number_of(study, trial_id) for trial_id in "abcd"] == [0, 1, 1, None]
    assert attempts(study.get_trials()[1]) == ["b", "c"]
