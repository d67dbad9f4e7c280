"""The shell of an HTML page that needs no network: style, Plotly's script, tables, folded text."""

from __future__ import annotations

import html
import re
from string import Template
from typing import TYPE_CHECKING

import pandas as pd

from analysis.text import escaped, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_NUMBER = re.compile(r"–|-?[\d.,]+(e[-+]?\d+)?( (%|\w+))?")

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
:root { --text: #1c1c1c; --muted: #5f5f5f; --ground: #ffffff; --card: #f5f6f7; --line: #d9dcdf; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e8; --muted: #a5a5a5; --ground: #16181b; --card: #1f2226; --line: #373b40; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem; background: var(--ground);
  color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
.conclusion { background: var(--card); border-left: 4px solid #0072B2; padding: .8rem 1rem; max-width: none; }
.note { color: var(--muted); font-size: .9rem; max-width: none; }
.figure { width: 100%; }
.figure text { fill: var(--text) !important; }
.figure .hoverlayer text { fill: #1c1c1c !important; }
.scroll { overflow-x: auto; margin: 0 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--muted); font-weight: 600; white-space: nowrap; }
td { white-space: nowrap; }
.number { text-align: right; }
.long { min-width: 18rem; white-space: normal; overflow-wrap: anywhere; }
pre { background: var(--card); padding: 1rem; overflow-x: auto; font-size: .85rem; }
summary { cursor: pointer; }
</style>
<script>$plotly</script>
</head>
<body>
$body
</body>
</html>
""")


def page(title: str, body: str) -> str:
    """A self-contained HTML document. The title is plain text, the body HTML."""
    from plotly.offline import get_plotlyjs

    return _PAGE.substitute(title=escaped(title), plotly=get_plotlyjs(), body=body)


def figure_html(figure: Figure, height: int) -> str:
    """A figure as HTML for `page`, as wide as the page and `height` pixels high."""
    options = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    drawing = figure.to_html(full_html=False, include_plotlyjs=False, config=options, default_height=f"{height}px")
    return f'<div class="figure">{drawing}</div>'


def table(frame: pd.DataFrame) -> str:
    """A table that scrolls sideways inside its own box; cells and headers are escaped, numbers to the right."""
    cells = [[shown(value) for value in row] for row in frame.itertuples(index=False)]
    classes = [_column_class([row[place] for row in cells]) for place in range(frame.shape[1])]
    head = "".join(f"<th{css}>{escaped(name)}</th>" for css, name in zip(classes, frame.columns, strict=True))
    rows = "\n".join(
        "<tr>" + "".join(f"<td{css}>{escaped(text)}</td>" for css, text in zip(classes, row, strict=True)) + "</tr>"
        for row in cells
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
