"""Parts that all sections of a config are made of: strictness, plug-in names, fractions."""

from __future__ import annotations

import difflib
import pkgutil
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """Base of all sections: strict types, no unknown keys, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True)


def plugin_names(folder: str) -> list[str]:
    """Names of the plug-ins in a folder of this package: one public file each, listed without import."""
    path = Path(__file__).parent / folder
    return sorted(module.name for module in pkgutil.iter_modules([str(path)]) if module.name[0] != "_")


def plugin(folder: str) -> AfterValidator:
    """Validator of a name: it must be that of a plug-in in the folder."""

    def check(name: str) -> str:
        names = plugin_names(folder)
        if name not in names:
            raise ValueError(f"allowed: {', '.join(names)}{near(name, names)}")
        return name

    return AfterValidator(check)


def near(name: str, names: list[str]) -> str:
    """' (did you mean x?)' for a misspelt name, else nothing."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _fraction(value: float) -> float:
    if value > 1:
        raise ValueError(
            f"p is a fraction, not a percent: the part that is kept, in (0, 1] ({value:g} % is {value / 100:g})"
        )
    if value <= 0:
        raise ValueError("allowed: the fraction that is kept, in (0, 1]")
    return value


KeepFraction = Annotated[float, AfterValidator(_fraction)]
