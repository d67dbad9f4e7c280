from __future__ import annotations

import pytest

from sbp_tune.energy.counters.unsupported import not_measured


@pytest.fixture
def drm(tmp_path):
    for number, vendor, address in [(0, "0x1002", "0000:03:00.0"), (1, "0x10de", "0000:65:00.0"), (2, "0x1002", None)]:
        device = tmp_path / f"card{number}" / "device"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        slot = f"PCI_SLOT_NAME={address}\n" if address else ""
        (device / "uevent").write_text(f"DRIVER=amdgpu\n{slot}")
    (tmp_path / "card0-DP-1").mkdir()
    (tmp_path / "version").write_text("drm 1.1.0\n")
    return tmp_path


def test_amd_gpus_are_named_and_not_0(drm):
    first, second = not_measured(drm, "linux")
    assert first == "AMD GPU 0000:03:00.0: not measured: no counter of AMD GPUs is read yet"
    assert second.startswith("AMD GPU card2: not measured")


def test_apple_silicon_is_named(tmp_path):
    (line,) = not_measured(tmp_path / "none", "darwin", "arm64")
    assert line.startswith("Apple silicon GPU and processor: not measured: ")
    assert not_measured(tmp_path / "none", "darwin", "x86_64") == []
    assert not_measured(tmp_path / "none", "linux", "aarch64") == []
