from __future__ import annotations

import socket
import sys

import pytest

from sbp_tune.config import EnergyConfig, check_config
from sbp_tune.energy import EnergyMeter
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
    carbon._table.cache_clear()
    assert intensity("FRA") > 0
    assert "codecarbon" not in sys.modules


@pytest.mark.parametrize(
    ("country", "region", "g_per_kwh"),
    [
        ("USA", "california", 179.064),  # 394.769 lbs/MWh
        ("USA", "California", 179.064),
        ("USA", "CA", 179.064),
        ("USA", " New   York ", None),
        ("CAN", "quebec", 3.937),
        ("CHN", "Inner Mongolia", 647.9),
        ("CHN", "CN-NM", 647.9),
        ("SWE", "SE3", 27.0),
        ("NOR", "no1", 26.0),
    ],
)
def test_a_region_has_its_own_intensity(country, region, g_per_kwh):
    found = intensity(country=country, region=region)
    assert found != intensity(country)
    assert g_per_kwh is None or found == pytest.approx(g_per_kwh / 1000, abs=1e-6)


def test_a_cloud_region_has_the_intensity_its_provider_publishes():
    assert intensity(cloud="gcp", cloud_region="europe-west1") == pytest.approx(0.122)
    assert intensity(cloud="gcp", cloud_region="africa-south1") == pytest.approx(0.646)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"country": "USA", "region": "Califronia"}, "region: found 'Califronia'.*did you mean california"),
        ({"country": "CAN", "region": "british"}, "did you mean british columbia"),
        ({"country": "SWE", "region": "Stockholm"}, "known: se1, se2, se3, se4$"),  # not Norway's, of the same file
        ({"country": "USA", "region": "usa"}, "not in CodeCarbon's table of USA"),
        ({"country": "USA", "region": "_unit"}, "not in CodeCarbon's table of USA"),
        ({"country": "IRL", "region": "Dublin"}, "no regions of IRL .* country's average of 291 g/kWh"),
        ({"country": "IE", "region": "Dublin"}, "did you mean IRL"),
        ({"cloud": "aws", "cloud_region": "eu-west-1"}, "has the regions of gcp only.*give the country"),
        ({"cloud": "GCP", "cloud_region": "us-west1"}, "did you mean gcp"),
        ({"cloud": "gcp", "cloud_region": "europe-west"}, "cloud_region: found .*did you mean europe-west"),
        ({}, "country: missing"),
    ],
)
def test_what_is_in_no_table_is_one_line_and_never_an_average(place, message):
    with pytest.raises(InputError, match=message) as caught:
        intensity(**place)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"region": "california"}, "region: found 'california' without a country"),
        ({"cloud": "gcp"}, "cloud: found 'gcp' without cloud_region"),
        ({"cloud_region": "us-west1"}, "cloud_region: found 'us-west1' without cloud"),
        ({"country": "USA", "cloud": "gcp", "cloud_region": "us-west1"}, "either a cloud region or a country"),
    ],
)
def test_the_names_of_a_place_are_checked_together(place, message):
    with pytest.raises(InputError, match=message):
        intensity(**place)
    with pytest.raises(InputError, match=message):
        EnergyMeter(**place)
    with pytest.raises(InputError, match=f"file.yaml: energy: .*{message}"):
        check_config({"energy": place}, "file.yaml")


@pytest.mark.parametrize(
    ("place", "kg_per_kwh"),
    [
        ({"country": "USA", "region": "california"}, 0.179064),
        ({"cloud": "gcp", "cloud_region": "europe-west1"}, 0.122),
    ],
)
def test_a_meter_knows_regions_and_clouds_and_applies_pue_once(place, kg_per_kwh):
    with EnergyMeter.from_config(EnergyConfig(**place, pue=1.5)) as energy:
        pass
    reading = energy.read()
    assert reading.co2_kg == pytest.approx(1.5 * kg_per_kwh * reading.kwh, rel=1e-4)


def test_the_figures_are_those_of_codecarbon():
    """Each country and region that both know; CodeCarbon's silent world average is what we refuse."""
    from codecarbon.core.emissions import Emissions
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import CloudMetadata, GeoMetadata
    from codecarbon.input import DataSource

    theirs = Emissions(DataSource())
    for country, region in [
        *((code, None) for code in ("IRL", "FRA", "USA", "IND", "BRA")),
        *(("USA", state) for state in ("california", "west virginia", "district of columbia")),
        *(("CAN", province) for province in ("quebec", "alberta", "nova scotia")),
        *(("CHN", province) for province in ("beijing", "yunnan")),
        *(("NOR", "NO4"), ("SWE", "SE1"), ("FIN", "FI")),
    ]:
        place = GeoMetadata(country_iso_code=country, country_name=country, region=region)
        expected = theirs.get_private_infra_emissions(Energy.from_energy(kWh=1), place)
        assert intensity(country, region) == pytest.approx(expected), (country, region)
    cloud = theirs.get_cloud_emissions(Energy.from_energy(kWh=1), CloudMetadata("gcp", "us-east1"))
    assert intensity(cloud="gcp", cloud_region="us-east1") == pytest.approx(cloud)
