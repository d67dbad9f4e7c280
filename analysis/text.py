"""Text from a study made safe to show: a name or an error message is never markup or a new line."""

from __future__ import annotations

import html
import math


def one_line(value: object) -> str:
    """Text on one line: control characters and line breaks become spaces, so that it cannot leave a comment."""
    text = str(value)
    if not text.isprintable():  # tells at once what most text is
        text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())


def escaped(value: object) -> str:
    """One line of text in which markup stays text, for HTML and for Plotly's labels (which read some HTML)."""
    return html.escape(one_line(value))


def shown(value: object) -> str:
    """A table cell as plain text: 4 significant digits, whole numbers whole, '–' for what is not there."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        # a column with gaps turns 25 epochs into 25.0
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return one_line(value)
