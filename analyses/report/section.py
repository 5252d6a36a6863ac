"""What a page consists of: sections, each with what was found in a sentence, and figures with how to read them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import plotly.graph_objects as go
import xarray as xr
from markupsafe import Markup

from analyses.plots.labels import counted
from analyses.report.steps import LeftOut, made_of

Drawn: TypeAlias = go.Figure | Markup | LeftOut
"""A figure, a piece of HTML that needs no escaping, or why there is neither."""


@dataclass(frozen=True)
class Shown:
    """A figure on a page.

    Args:
        name: by which it is linked to, once on a page; the name of its result.
        figure: what is shown.
        read: how to read it; nothing where it was left out.
    """

    name: str
    figure: Drawn
    read: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        title: its heading.
        sentence: what was found, in numbers; empty where there is none.
        figures: in their order.
        absent: why there is nothing to show, where there is nothing.
        folded: whether its figures are to be opened first.
        plain: whether they are as small as text, and nothing is folded.
        note: how to read them, where they are read together.
    """

    title: str
    sentence: str = ""
    figures: Sequence[Shown] = ()
    absent: str | Markup = ""
    folded: bool = True
    plain: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        """By which it is linked to; no result is named so."""
        return f"about-{self.title.lower().replace(' ', '-')}"

    @property
    def counted(self) -> str:
        """How many figures it has."""
        return counted(len(self.figures), "figure")


def shown(
    results: Mapping[str, xr.Dataset], name: str, read: str, draw: Callable[..., Drawn], *needs: str
) -> list[Shown]:
    """The figure that is drawn of the results that it needs (default: that of its name); why not, where one of them was left out; none
    where one is not there at all."""
    needs = needs or (name,)
    made = made_of(results, needs, lambda: draw(*(results[one] for one in needs)))
    if made is None:
        return []
    return [Shown(name, made, "" if isinstance(made, LeftOut) else read)]


def said(results: Mapping[str, xr.Dataset], say: Callable[..., str], *needs: str) -> str:
    """What is said of results, or nothing where one of them is not there."""
    return say(*(results[one] for one in needs)) if all(one in results for one in needs) else ""
