"""Synthetic sysfs: the hwmon folders of Jetsons."""

from __future__ import annotations

from pathlib import Path

import pytest


class FakeHwmon:
    """INA3221 monitors: three channels each, of which some are not connected."""

    AGX_ORIN = (
        {"VDD_GPU_SOC": (20_000, 800), "VDD_CPU_CV": (20_000, 300), "VIN_SYS_5V0": (5_000, 900)},
        {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5_000, 300)},
    )
    ORIN_NX = ({"VDD_IN": (5_000, 4_000), "VDD_CPU_GPU_CV": (5_000, 2_000), "VDD_SOC": (5_000, 600)},)
    AGX_XAVIER = (
        {"GPU": (19_000, 500), "CPU": (19_000, 200), "SOC": (19_000, 100)},
        {"CV": (19_000, 0), "VDDRQ": (19_000, 50), "SYS5V": (5_000, 800)},
    )

    def __init__(self, root: Path) -> None:
        self.root = root
        other = root / "hwmon0"
        other.mkdir(parents=True)
        (other / "name").write_text("tmp451\n")
        (other / "in1_label").write_text("VDD_IN\n")  # of another chip

    def board(self, monitors: tuple[dict[str, tuple[int, int]], ...]) -> Path:
        for number, channels in enumerate(monitors, start=1):
            folder = self.root / f"hwmon{number}"
            folder.mkdir()
            (folder / "name").write_text("ina3221\n")
            (folder / "in7_label").write_text("sum of shunt voltages\n")
            for channel, (label, (millivolts, milliamperes)) in enumerate(channels.items(), start=1):
                (folder / f"in{channel}_label").write_text(f"{label}\n")
                (folder / f"in{channel}_enable").write_text("1\n")
                (folder / f"in{channel}_input").write_text(f"{millivolts}\n")
                (folder / f"curr{channel}_input").write_text(f"{milliamperes}\n")
        return self.root

    def draw(self, label: str, milliamperes: int) -> None:
        self.channel(label, "curr").write_text(f"{milliamperes}\n")

    def channel(self, label: str, kind: str) -> Path:
        (path,) = [p for p in self.root.glob("hwmon[1-9]/in?_label") if p.read_text().strip() == label]
        return path.with_name(f"{kind}{path.name[2]}_input")


@pytest.fixture
def hwmon(tmp_path: Path) -> FakeHwmon:
    return FakeHwmon(tmp_path / "hwmon")
