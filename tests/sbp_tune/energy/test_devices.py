from __future__ import annotations

import pytest

from sbp_tune.energy.devices import nvml_uuid, resolve_gpus
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
    from sbp_tune.energy.nvml import Nvml

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
