"""kWh to kg CO2eq with the yearly country averages that CodeCarbon ships. No network, CodeCarbon not imported."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import json
from pathlib import Path

from sbp_tune.errors import InputError, SbpTuneError

_TABLE = Path("data/private_infra/global_energy_mix.json")


def intensity(country: str) -> float:
    """Carbon intensity of a country's electricity, kg CO2eq per kWh; `country` is an ISO 3166 alpha-3 code.

    Yearly average of the newest year in CodeCarbon's table (Our World in Data). InputError for a code that
    is not in the table names the nearest ones.
    """
    table = _energy_mix()
    if country not in table:
        near = " or ".join(f"{code} ({table[code]['country_name']})" for code in _near(country, table))
        hint = f"; did you mean {near}?" if near else ""
        raise InputError(f"country: found {country!r}; needs an ISO 3166 alpha-3 code of CodeCarbon's table{hint}")
    return float(table[country]["carbon_intensity"]) / 1000  # the table is in g per kWh


def co2_kg(kwh: float, country: str, pue: float = 1.0) -> float:
    """kg CO2eq of `kwh` used by the machine, in a building that uses `pue` times as much."""
    return kwh * pue * intensity(country)


@functools.cache
def _energy_mix() -> dict[str, dict]:
    spec = importlib.util.find_spec("codecarbon")  # finds a top-level package without running it
    if spec is None or spec.origin is None:
        raise SbpTuneError("codecarbon is not installed: its country table is needed for CO2; pip install codecarbon")
    path = Path(spec.origin).parent / _TABLE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SbpTuneError(f"{path}: cannot read CodeCarbon's country table: {error}") from error


def _near(wrong: str, table: dict[str, dict]) -> list[str]:
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
