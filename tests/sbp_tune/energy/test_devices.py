from __future__ import annotations

import pytest

from sbp_tune.energy.devices import (
    assigned_gpus,
    cpu_name,
    name_gpus_by_uuid,
    nvml_uuid,
    resolve_gpus,
    trial_gpus,
)
from sbp_tune.energy.nvml import Nvml
from sbp_tune.errors import SbpTuneError

MIG = "MIG-4c9b8a7d-1e2f-5a3b-8c4d-9e0f1a2b3c4d"


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2, 3]),
        ("0", [0]),
        ("2,1", [2, 1]),
        (" 3 , 0 ", [3, 0]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,2,-1,1", [0, 2]),  # the programming guide's own example
        ("0,4,1", [0]),
        ("4", []),
        ("1,1", []),
        ("1x,+2", [1, 2]),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", [1]),
        ("GPU-1a", [0]),
        ("GPU-8932f94", [2]),
        ("GPU-8932f9", []),  # ambiguous
        ("GPU-c0,GPU-1a", [3, 0]),
        ("GPU-c0,GPU-c0ff", []),
        ("GPU-c0,0", [3]),  # one form a list
        ("0,GPU-c0", [0]),
        ("GPU-00000000-0000-0000-0000-000000000000", []),
    ],
)
def test_visible_devices_as_cuda_reads_them(visible, indices, nvml, uuids):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert resolve_gpus(environ, nvml) == [uuids[index] for index in indices]


def test_a_mig_instance_keeps_its_name(nvml):
    assert resolve_gpus({"CUDA_VISIBLE_DEVICES": MIG}, nvml) == [MIG]


def test_the_order_is_that_of_nvml_not_of_the_uuids(library, uuids):
    library.gpus.reverse()
    assert resolve_gpus({"CUDA_VISIBLE_DEVICES": "0"}, Nvml(library)) == [uuids[3]]


def test_numbers_among_different_gpus_need_the_pci_order(library, nvml, uuids):
    library.gpus[3].name = "NVIDIA H200"
    with pytest.raises(SbpTuneError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        resolve_gpus({"CUDA_VISIBLE_DEVICES": "0"}, nvml)
    ordered = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert resolve_gpus(ordered, nvml) == [uuids[0]]
    assert resolve_gpus({"CUDA_VISIBLE_DEVICES": "GPU-1a"}, nvml) == [uuids[0]]


def test_torch_writes_uuids_without_prefix(uuids):
    assert nvml_uuid(uuids[1].removeprefix("GPU-")) == uuids[1]
    assert nvml_uuid(uuids[1]) == uuids[1]
    assert nvml_uuid(MIG) == MIG


@pytest.mark.parametrize(
    ("ids", "indices"),
    [
        ([], []),
        ([0], [0]),
        (["0"], [0]),
        (["3", "1"], [3, 1]),
        ([2, 2], [2]),
        (["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"], [1]),
        (["GPU-8932f94", "GPU-1a"], [2, 0]),
        ([1, "GPU-c0"], [1, 3]),
    ],
)
def test_what_ray_assigned(ids, indices, nvml, uuids):
    environ = {"CUDA_VISIBLE_DEVICES": "1"}  # the trial's own; Ray's numbers are the machine's
    assert assigned_gpus(ids, environ, nvml) == [uuids[index] for index in indices]
    assert assigned_gpus([MIG], environ, nvml) == [MIG]


@pytest.mark.parametrize("wrong", [4, "-1", "", "GPU-8932f9", "1a6f2f0c", "GPU-00000000-0000-0000-0000-000000000000"])
def test_an_assigned_gpu_that_is_not_there_is_an_error(wrong, nvml, uuids):
    with pytest.raises(SbpTuneError, match=f"was assigned, but there is no such GPU.*{uuids[3]}"):
        assigned_gpus([wrong], {}, nvml)


def test_assigned_numbers_among_different_gpus_need_the_pci_order(library, nvml, uuids):
    library.gpus[3].name = "NVIDIA H200"
    with pytest.raises(SbpTuneError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        assigned_gpus([0], {}, nvml)
    assert assigned_gpus(["GPU-1a"], {}, nvml) == [uuids[0]]


@pytest.mark.parametrize("visible", [None, "", "-1", "NoDevFiles", "0", "GPU-1a", MIG])
def test_a_cpu_trial_never_gets_a_gpu(visible, uuids):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert trial_gpus(0, environ=environ, nvml=None) == []  # NVML is not even opened
    assert trial_gpus(0, assigned=["0"], used=[uuids[0]], environ=environ, nvml=None) == []


def test_the_best_evidence_counts(nvml, uuids):
    environ = {"CUDA_VISIBLE_DEVICES": "2"}
    bare = uuids[1].removeprefix("GPU-")
    assert trial_gpus(1, environ=environ, nvml=nvml) == [uuids[2]]
    assert trial_gpus(1, assigned=["1"], environ=environ, nvml=nvml) == [uuids[1]]
    assert trial_gpus(1, assigned=["1"], used=[bare], environ=environ, nvml=nvml) == [uuids[1]]
    assert trial_gpus(1, used=[bare], environ={}, nvml=nvml) == [uuids[1]]
    assert trial_gpus(0.5, assigned=[3], environ={}, nvml=nvml) == [uuids[3]]
    assert trial_gpus(2, assigned=["3", "0"], environ={}, nvml=nvml) == [uuids[3], uuids[0]]
    assert trial_gpus(1, assigned=[MIG], environ={}, nvml=nvml) == [MIG]


def test_evidence_that_disagrees_is_an_error_and_never_a_guess(nvml, uuids):
    with pytest.raises(SbpTuneError, match=f"computes on {uuids[0]}, but was given {uuids[1]}"):
        trial_gpus(1, assigned=["1"], used=[uuids[0]], environ={}, nvml=nvml)
    with pytest.raises(SbpTuneError, match=r"a trial with 1 GPUs, but found GPU-1a6f.*, GPU-c0ff"):
        trial_gpus(1, environ={}, nvml=nvml)  # all four are visible: which one?
    with pytest.raises(SbpTuneError, match="found none"):
        trial_gpus(1, environ={"CUDA_VISIBLE_DEVICES": ""}, nvml=nvml)
    with pytest.raises(SbpTuneError, match="not on this machine"):
        trial_gpus(1, used=["00000000-0000-0000-0000-000000000000"], environ={}, nvml=nvml)


def test_torchs_name_is_taken_where_nvml_knows_no_gpu(library):
    library.gpus = []
    assert trial_gpus(1, used=["1a6f2f0c-8a2d-4b7e-9d9b-0c4b2f6e7a11"], environ={}, nvml=Nvml(library))


def test_a_permuted_driver_changes_no_uuid(library, uuids):
    library.gpus = [library.gpus[index] for index in (2, 0, 3, 1)]
    nvml = Nvml(library)
    assert trial_gpus(1, assigned=["0"], environ={}, nvml=nvml) == [uuids[2]]
    assert trial_gpus(1, assigned=[uuids[0]], environ={}, nvml=nvml) == [uuids[0]]


@pytest.mark.parametrize(
    ("given", "indices"),
    [("0", [0]), ("2,1", [2, 1]), (" 3 ", [3])],
)
def test_what_ray_names_by_number_a_trial_sees_by_uuid(given, indices, nvml, uuids):
    environ = {"CUDA_VISIBLE_DEVICES": given}
    name_gpus_by_uuid(environ, nvml)
    named = ",".join(uuids[index] for index in indices)
    assert environ == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": named}
    assert resolve_gpus(environ, nvml) == [uuids[index] for index in indices]
    name_gpus_by_uuid(environ, nvml)  # a process that is used again
    assert environ["CUDA_VISIBLE_DEVICES"] == named


@pytest.mark.parametrize("given", ["", "-1", "9", MIG, "GPU-1a", "NoDevFiles"])
def test_what_is_no_number_of_a_gpu_here_stays(given, nvml):
    environ = {"CUDA_VISIBLE_DEVICES": given}
    name_gpus_by_uuid(environ, nvml)
    assert environ["CUDA_VISIBLE_DEVICES"] == given


def test_without_a_list_none_is_made(nvml):
    environ = {}
    name_gpus_by_uuid(environ, nvml)
    assert environ == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_a_trial_is_billed_all_that_it_was_given_though_it_computes_on_one(nvml, uuids):
    assert trial_gpus(2, assigned=["0", "2"], used=[uuids[2]], environ={}, nvml=nvml) == [uuids[0], uuids[2]]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R)  CPU\n", "Intel Xeon CPU (model 85)"),
        ("model name : AMD EPYC 7R32\n", "AMD EPYC 7R32"),
    ],
)
def test_the_processors_name(text, name, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_name(tmp_path / "cpuinfo") == name
    assert cpu_name(tmp_path / "absent").startswith("cpu")
