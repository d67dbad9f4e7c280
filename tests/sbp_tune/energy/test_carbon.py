from __future__ import annotations

import socket
import sys

import pytest

from sbp_tune.energy.carbon import co2_kg, intensity
from sbp_tune.errors import InputError


def test_ireland_is_in_kg_per_kwh():
    assert intensity("IRL") == pytest.approx(0.290805)


def test_pue_is_applied_once():
    assert co2_kg(10, "IRL", pue=1.5) == pytest.approx(10 * 1.5 * 0.290805)
    assert co2_kg(10, "IRL") == pytest.approx(2.90805)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("IE", "IRL"),
        ("Ireland", "IRL"),
        ("irl", "IRL"),
        ("Irland", "IRL"),
        ("IRE", "IRL"),
        ("UK", "GBR"),
        ("GB", "GBR"),
        ("United Kingdom", "GBR"),
        ("Deutschland", "DEU"),
        ("usa", "USA"),
    ],
)
def test_an_unknown_code_names_the_one_meant(wrong, meant):
    with pytest.raises(InputError, match=f"did you mean {meant}") as caught:
        intensity(wrong)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("wrong", ["", "XXX", "QQ"])
def test_a_code_like_no_other_has_no_hint(wrong):
    with pytest.raises(InputError) as caught:
        intensity(wrong)
    assert "did you mean" not in str(caught.value)


def test_no_network_and_no_import_of_codecarbon(monkeypatch):
    from sbp_tune.energy import carbon

    def no_network(*args: object, **options: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.delitem(sys.modules, "codecarbon", raising=False)
    carbon._energy_mix.cache_clear()
    assert intensity("FRA") > 0
    assert "codecarbon" not in sys.modules
