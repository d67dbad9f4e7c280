"""Hardware that is there, but whose energy nothing here reads: said, so that it is never taken for 0."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

DRM = Path("/sys/class/drm")
_AMD = "0x1002"


def not_measured(drm: Path = DRM, system: str = sys.platform, machine: str | None = None) -> list[str]:
    """One line for each device that draws power without being measured; drm, system, machine: for tests."""
    lines = [f"AMD GPU {name}: not measured: no counter of AMD GPUs is read yet" for name in _amd_gpus(drm)]
    if system == "darwin" and (machine or platform.machine()) == "arm64":
        lines.append("Apple silicon GPU and processor: not measured: macOS gives their power to root only")
    return lines


def _amd_gpus(drm: Path) -> list[str]:
    """PCI addresses of the GPUs, or what the kernel calls them."""
    found = []
    for card in sorted(drm.glob("card*")):
        vendor = card / "device" / "vendor"  # connectors (card0-DP-1) have no vendor
        try:
            if vendor.read_text(encoding="ascii").strip() == _AMD:
                found.append(_address(card))
        except OSError:
            continue
    return found


def _address(card: Path) -> str:
    lines = (card / "device" / "uevent").read_text(encoding="ascii").splitlines()
    return next((line.partition("=")[2] for line in lines if line.startswith("PCI_SLOT_NAME=")), card.name)
