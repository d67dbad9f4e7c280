"""The figures of one page: what has no data is left out, what breaks is named, and neither costs the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from analysis.figures import style
from analysis.page import Link, figure_html, paragraph
from analysis.text import escaped, one_line
from sbp_tune.errors import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_log = logging.getLogger(__name__)


class Gallery:
    """Makes figures HTML. left_out: titles of those without data, with the reason of each."""

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}

    def show(
        self,
        title: str,
        make: Callable[[], tuple[Figure, str]],
        link: Link = "",
        tools: bool = False,
        note: str = "",
    ) -> list[str]:
        """A figure under its title, with what it shows in a sentence; nothing where there is no data for it.

        make, called here, gives the figure and the sentence. An InputError of it means that the study has no such
        data; any other error is a fault, which the page names and the log keeps whole.
        """
        try:
            figure, said = make()
            if reason := style.nothing_to_show(figure):
                self.left_out[title] = reason
                return []
            drawing = figure_html(figure, link, tools)
        except InputError as error:
            self.left_out[title] = str(error)
            return []
        except Exception as error:
            _log.warning("report: %s could not be drawn", title, exc_info=True)
            problem = f"This figure could not be drawn: {type(error).__name__}: {one_line(error)}"
            return [f"<h3>{escaped(title)}</h3>", paragraph(problem, "problem")]
        texts = [paragraph(said)] if said else []
        texts += [paragraph(note, "note")] if note else []
        return [f"<h3>{escaped(title)}</h3>", *texts, drawing]

    def notes(self) -> list[str]:
        """Which figures were left out, and why."""
        reasons = [f"{title} ({one_line(reason).rstrip('.')})" for title, reason in self.left_out.items()]
        return [paragraph(f"Figures left out for want of data: {'; '.join(reasons)}.", "note")] if reasons else []
