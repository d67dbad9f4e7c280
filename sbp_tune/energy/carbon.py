"""kWh to kg CO2eq with the tables that CodeCarbon ships. No network, CodeCarbon not imported, nothing guessed.

Countries: yearly averages of the newest year (Our World in Data). Regions: `regions`. Cloud regions: what the
providers publish (`data/cloud/impact.csv`). A place that is in no table is an InputError with near matches.
"""

from __future__ import annotations

import csv
import difflib
import functools
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sbp_tune.energy.regions import REGIONAL, region_table
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.place import place_problem


def intensity(
    country: str | None = None, region: str | None = None, cloud: str | None = None, cloud_region: str | None = None
) -> float:
    """Carbon intensity of a place's electricity, kg CO2eq per kWh.

    country: ISO 3166 alpha-3 code; region: a state, province or bidding zone of it, by name or, where the table
    has one, code; or, instead
    of these, cloud and cloud_region: a provider and its name for the region. InputError for a place that is not
    in CodeCarbon's tables, with the nearest ones, and for an impossible combination.
    """
    if problem := place_problem(country, region, cloud, cloud_region):
        raise InputError(problem)
    if cloud is not None and cloud_region is not None:
        return _cloud_intensity(cloud, cloud_region)
    if country is None:
        raise InputError("country: missing; needs an ISO 3166 alpha-3 code, or cloud and cloud_region")
    return _country_intensity(country) if region is None else _region_intensity(country, region)


def co2_kg(
    kwh: float,
    country: str | None = None,
    pue: float = 1.0,
    *,
    region: str | None = None,
    cloud: str | None = None,
    cloud_region: str | None = None,
) -> float:
    """kg CO2eq of `kwh` used by the machine, in a building that uses `pue` times as much; place: see `intensity`.

    The only place where PUE is applied.
    """
    return kwh * pue * intensity(country, region, cloud, cloud_region)


def _country_intensity(country: str) -> float:
    table = _table("private_infra/global_energy_mix.json")
    if country not in table:
        near = [f"{code} ({table[code]['country_name']})" for code in _near_countries(country, table)]
        raise InputError(
            f"country: found {country!r}; needs an ISO 3166 alpha-3 code of CodeCarbon's table{_hint(near)}"
        )
    return float(table[country]["carbon_intensity"]) / 1000  # the table is in g per kWh


def _region_intensity(country: str, region: str) -> float:
    national = _country_intensity(country)  # an unknown country is the first thing to say
    if country not in REGIONAL:
        raise InputError(
            f"region: found {region!r}; CodeCarbon has no regions of {country} (only of {', '.join(REGIONAL)}): "
            f"leave it out for the country's average of {1000 * national:.0f} g/kWh"
        )
    table = region_table(country, _table(REGIONAL[country]))
    wanted = " ".join(region.casefold().split())
    for names, kg_per_kwh in table.items():
        if wanted in names:
            return kg_per_kwh
    near = _near(wanted, {name: names[0] for names in table for name in names})
    raise InputError(
        f"region: found {region!r}; not in CodeCarbon's table of {country}"
        f"{_hint(near) or _known(names[0] for names in table)}"
    )


def _cloud_intensity(cloud: str, cloud_region: str) -> float:
    table = _cloud_table()
    providers = sorted({provider for provider, _ in table})
    if cloud not in providers:
        raise InputError(
            f"cloud: found {cloud!r}; CodeCarbon's table has the regions of {', '.join(providers)} only"
            f"{_hint(_near(cloud.lower(), {name: name for name in providers}))}; elsewhere give the country "
            "(and region) where the data centre stands"
        )
    if (cloud, cloud_region) not in table:
        regions = [name for provider, name in table if provider == cloud]
        near = _near(cloud_region.lower(), {name: name for name in regions})
        raise InputError(
            f"cloud_region: found {cloud_region!r}; not in CodeCarbon's table of {cloud}"
            f"{_hint(near) or _known(regions)}"
        )
    return table[cloud, cloud_region] / 1000  # the table is in g per kWh


@functools.cache
def _cloud_table() -> dict[tuple[str, str], float]:
    text = _text("cloud/impact.csv")
    return {(row["provider"], row["region"]): float(row["impact"]) for row in csv.DictReader(text.splitlines())}


@functools.cache
def _table(name: str) -> dict[str, Any]:
    try:
        return json.loads(_text(name))
    except ValueError as error:
        raise SbpTuneError(f"{name}: cannot read CodeCarbon's table: {error}") from error


def _text(name: str) -> str:
    """A data file of CodeCarbon; `*` in its name stands for the newest year."""
    spec = importlib.util.find_spec("codecarbon")  # finds a top-level package without running it
    if spec is None or spec.origin is None:
        raise SbpTuneError("codecarbon is not installed: its tables are needed for CO2; pip install codecarbon")
    data = Path(spec.origin).parent / "data"
    try:
        return max(data.glob(name)).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise SbpTuneError(f"{data / name}: cannot read CodeCarbon's table: {error}") from error


def _hint(near: list[str]) -> str:
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _known(names: Iterable[str]) -> str:
    return f"; known: {', '.join(names)}"


def _near(wrong: str, names: dict[str, str]) -> list[str]:
    """At most three of the values whose keys are spelt alike, or begin alike, the likest first."""
    close = difflib.get_close_matches(wrong, names, n=3, cutoff=0.7) if wrong else []
    close += [name for name in names if len(wrong) >= 3 and name.startswith(wrong)]
    return list(dict.fromkeys(names[name] for name in close))[:3]


def _near_countries(wrong: str, table: dict[str, Any]) -> list[str]:
    """Codes that were probably meant: by alpha-2 code or name, by a name like it, by the first letters."""
    import pycountry  # comes with CodeCarbon; knows alpha-2 codes and official names

    text = wrong.strip().upper()
    try:
        meant = pycountry.countries.lookup({"UK": "GB"}.get(text, text)).alpha_3  # UK is used, but is not ISO
        return [meant] if meant in table else []
    except LookupError:
        pass
    names = {row["country_name"].upper(): code for code, row in table.items()}
    by_name = [names[name] for name in difflib.get_close_matches(text, names, n=3, cutoff=0.75)]
    return by_name or [code for code in table if code[:2] == text[:2]][:4]
