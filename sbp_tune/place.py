"""Which names of a place on the grid go together: a rule of configs and of the carbon tables alike."""

from __future__ import annotations


def place_problem(country: str | None, region: str | None, cloud: str | None, cloud_region: str | None) -> str | None:
    """What is wrong with the combination of names, None if nothing is; the names themselves are not looked up."""
    if region is not None and country is None:
        return f"region: found {region!r} without a country; a region is one of a country"
    if (cloud is None) != (cloud_region is None):
        have, lack = ("cloud", "cloud_region") if cloud_region is None else ("cloud_region", "cloud")
        return f"{have}: found {cloud or cloud_region!r} without {lack}; both name a place"
    if cloud is not None and country is not None:
        return f"cloud: found {cloud!r} and country {country!r}; the place is either a cloud region or a country"
    return None
