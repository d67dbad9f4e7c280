from __future__ import annotations

import pynvml
import pytest

from sbp_tune.energy.nvml import Nvml
from sbp_tune.errors import SbpTuneError


def test_units_are_joules_and_watts(library, nvml, clock, uuids):
    before = nvml.total_energy_j(uuids[1])
    clock.advance(100)
    assert nvml.total_energy_j(uuids[1]) - before == pytest.approx(6000)
    assert nvml.power_w(uuids[1]) == 60
    assert nvml.power_limit_w(uuids[1]) == 70


def test_what_a_device_does_not_support_is_none(library, nvml, uuids):
    library.gpus[0].unsupported = {"energy", "power", "limit"}
    assert nvml.total_energy_j(uuids[0]) is None
    assert nvml.power_w(uuids[0]) is None
    assert nvml.power_limit_w(uuids[0]) is None
    assert [gpu.energy_counter for gpu in nvml.inventory()] == [False, True, True, True]


def test_inventory_lists_gpus_in_the_order_of_the_driver(library, uuids):
    library.gpus = [library.gpus[index] for index in (2, 0, 3, 1)]
    inventory = Nvml(library).inventory()
    assert [gpu.uuid for gpu in inventory] == [uuids[index] for index in (2, 0, 3, 1)]
    assert [gpu.index for gpu in inventory] == [0, 1, 2, 3]


def test_a_lost_gpu_is_named(library, nvml, uuids):
    library.gpus[2].lost = True
    with pytest.raises(SbpTuneError, match=uuids[2]):
        nvml.power_w(uuids[2])


def test_an_unknown_gpu_is_an_error_that_lists_those_there(nvml, uuids):
    with pytest.raises(SbpTuneError, match=f"not on this machine.*{uuids[0]}"):
        nvml.power_w("GPU-00000000-0000-0000-0000-000000000000")


def test_without_a_driver_there_are_no_gpus_and_a_reason(library):
    def no_library() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    library.nvmlInit = no_library
    nvml = Nvml(library)
    assert nvml.inventory() == []
    assert "NVML Shared Library Not Found" in nvml.reason


def test_a_driver_without_gpus_has_a_reason(library):
    library.gpus = []
    assert Nvml(library).reason == "the NVIDIA driver lists no GPU"
