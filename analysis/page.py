"""The shell of an HTML page that needs no network: style, scripts, figures, tables, folded text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Literal

import pandas as pd

from analysis.text import escaped, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Link = Literal["", "points", "lines", "curves"]
"""How a figure marks selected trials: points, lines of which a trace holds many, or traces of a trial each."""

_ASSETS = Path(__file__).parent / "assets"
_NUMBER = re.compile(r"–|-?[\d.,]+(e[-+]?\d+)?( (%|\w+))?")
_HEIGHT = 460

# The policy makes the promise enforceable: the page may run its own script and load nothing.
_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; img-src data: blob:">
<title>$title</title>
<style>
$style</style>
<script>$plotly</script>
</head>
<body>
$body
<div id="selection" role="status" hidden><p></p><button type="button">Clear</button><p></p></div>
<script>
$script</script>
</body>
</html>
""")


def page(title: str, body: str) -> str:
    """A self-contained HTML document. The title is plain text, the body HTML."""
    from plotly.offline import get_plotlyjs

    style, script = ((_ASSETS / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return _PAGE.substitute(title=escaped(title), style=style, plotly=get_plotlyjs(), body=body, script=script)


def figure_html(figure: Figure, link: Link = "", tools: bool = False) -> str:
    """A figure as HTML for `page`, as wide as the page and as high as its layout says.

    link: how trials selected elsewhere are marked in it, and that its own points select; tools: buttons that say what
    dragging does. Its data is JSON in which no text can end the script.
    """
    from plotly.io import to_json

    drawing = figure.to_plotly_json()
    for trace in drawing["data"]:
        if trace["type"] == "scattergl":  # Plotly compiles what WebGL draws, which the page's policy forbids
            trace["type"] = "scatter"
    data = to_json(drawing, validate=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    options = f' data-link="{link}"' + (" data-tools" if tools else "")
    height = figure.layout.height or _HEIGHT
    return (
        f'<div class="figure"{options}><div class="plot" style="height:{height:.0f}px"></div>'
        f'<script type="application/json">{data}</script></div>'
    )


def section(title: str, anchor: str, parts: Iterable[str]) -> str:
    """A part of the page under a heading of plain text, with an id to jump to."""
    return "\n".join([f'<section id="{anchor}">', f"<h2>{escaped(title)}</h2>", *parts, "</section>"])


def contents(titles: Iterable[tuple[str, str]]) -> str:
    """Links to sections: title and id of each."""
    links = [f'<a href="#{anchor}">{escaped(title)}</a>' for title, anchor in titles]
    return f"<nav>{''.join(links)}</nav>"


def table(frame: pd.DataFrame, linked: bool = False) -> str:
    """A table that scrolls sideways inside its own box; cells and headers are escaped, numbers to the right.

    linked: a row selects the trial of its `trial` column, and is marked where that is selected.
    """
    cells = [[shown(value) for value in row] for row in frame.itertuples(index=False)]
    classes = [_column_class([row[place] for row in cells]) for place in range(frame.shape[1])]
    head = "".join(f"<th{css}>{escaped(name)}</th>" for css, name in zip(classes, frame.columns, strict=True))
    trials = [f' data-trial="{int(trial)}"' for trial in frame["trial"]] if linked else [""] * len(cells)
    rows = "\n".join(
        f"<tr{trial}>"
        + "".join(f"<td{css}>{escaped(text)}</td>" for css, text in zip(classes, row, strict=True))
        + "</tr>"
        for trial, row in zip(trials, cells, strict=True)
    )
    return f'<div class="scroll"><table>\n<tr>{head}</tr>\n{rows}\n</table></div>'


def _column_class(texts: list[str]) -> str:
    if all(_NUMBER.fullmatch(text) for text in texts):
        return ' class="number"'
    return ' class="long"' if max(map(len, texts)) > 60 else ""


def paragraph(text: str, css: str = "") -> str:
    """Plain text as a paragraph."""
    return f'<p class="{css}">{escaped(text)}</p>' if css else f"<p>{escaped(text)}</p>"


def folded(summary: str, text: str) -> str:
    """Plain text with its line breaks, shown on a click."""
    return f"<details><summary>{escaped(summary)}</summary><pre>{html.escape(text)}</pre></details>"
