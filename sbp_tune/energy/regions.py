"""CodeCarbon's tables of regions, each in a form of its own, as one: names of a region to kg CO2eq per kWh."""

from __future__ import annotations

from typing import Any

# Country -> file below CodeCarbon's data folder; * is the year.
REGIONAL = {
    "USA": "private_infra/*/usa_emissions.json",
    "CAN": "private_infra/*/canada_energy_mix.json",
    "CHN": "private_infra/*/china_provincial_emissions.json",
    "SWE": "private_infra/nordic_emissions.json",
    "NOR": "private_infra/nordic_emissions.json",
    "FIN": "private_infra/nordic_emissions.json",
}

_KG_PER_LB = 0.45359237
# kg per kWh of what Canada's table counts in percent; the figures with which CodeCarbon evaluates it.
_KG_PER_KWH = {"coal": 0.995725971, "petroleum": 0.8166885263, "naturalGas": 0.7438415916}
_NORDIC = {"SWE": "SE", "NOR": "NO", "FIN": "FI"}

RegionTable = dict[tuple[str, ...], float]


def region_table(country: str, data: dict[str, Any]) -> RegionTable:
    """All names of each region, in lower case, the usual one first -> kg CO2eq per kWh.

    country: a key of REGIONAL; data: what its file holds.
    """
    if country == "USA":  # lbs per MWh (EPA eGRID); also its own sources and the whole country
        rows = {name: row for name, row in data.items() if not name.startswith("_") and name != "usa"}
        return {
            (name, row["regionCode"].casefold()): row["emissions"] * _KG_PER_LB / 1000 for name, row in rows.items()
        }
    if country == "CAN":  # percent by source
        return {
            (name,): sum(mix[source] * factor for source, factor in _KG_PER_KWH.items()) / mix["total"]
            for name, mix in data.items()
        }
    factors = {code: row["emission_factor"] / 1000 for code, row in data["data"].items()}  # g per kWh
    if country == "CHN":
        return {(*data["data"][code]["names"], code.casefold()): factor for code, factor in factors.items()}
    return {(code.casefold(),): factor for code, factor in factors.items() if code.startswith(_NORDIC[country])}
