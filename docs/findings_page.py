"""The page of findings, written from the data that are kept, and its pictures."""

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from findings_circuits import (
    attending,
    carried,
    chosen,
    facts,
    first_for_capitals,
    helping,
    judged,
    moved_by,
    movers,
    strongest,
    unsettled,
)
from findings_inside import growing, unsure_inside, verdict_within, within
from findings_numbers import Estimate, rows
from findings_outside import (
    ORDER,
    beside_twin,
    beyond,
    committing,
    others,
    said_beyond,
    texts,
    unsure_outside,
)

from analyses.plots.browser import keep_open
from analyses.plots.theme import FAINT, LINES, SYMBOLS, figure

DOCS = Path(__file__).parent
PAGE, PICTURES = DOCS / "findings.md", DOCS / "findings"

INTRODUCTION = """# Findings in SmolLM2-135M

What the analyses find in a pretrained model of 30 layers and 270 heads ([its card](models/smollm2-135m.md)), and in the same
architecture at random initialisation. Every number has its 95 % interval over pairs of prompts in brackets; where pairs come from a few
templates it is said over what else. All is computed from rows that are kept, one for each prompt, in `docs/data/findings/`. The command
beneath a table measures them and goes on where it was stopped, up to 100 pairs; how many there are so far stands with each table, and
`python docs/findings.py names` lists it. `python docs/findings.py page` writes this page anew. A test measures the first of them again.
"""


def page() -> str:
    """The whole page."""
    parts = [
        INTRODUCTION,
        *(f"- {line}" for line in lead()),
        "",
        "## Circuits and heads\n",
        *_lines(movers()),
        f"![{_heads_said()}](findings/heads.png)\n",
        *_lines(facts()),
        *_lines(attending()),
        "## The cascade\n",
        *_lines(within()),
        *_lines(growing()),
        *_lines(beyond()),
        f"![{_outside_said()}](findings/outside.png)\n",
        *_lines(others()),
        *_lines(committing()),
        "## What is not significant\n",
        *(f"- {line}" for line in (*unsettled(), *unsure_outside(), *unsure_inside())),
    ]
    return "\n".join(parts).rstrip() + "\n"


def lead() -> list[str]:
    """What was found, first of all."""
    forth, _ = chosen()
    whole = [(t, one) for t in ORDER if (one := texts("", t))]
    return [
        f"Indirect objects: {moved_by(helping(forth), forth)}",
        f"Capitals: {carried()} {first_for_capitals()}",
        strongest(),
        f"Inside: {verdict_within()}",
        f"Outside: {' '.join(said_beyond(whole))} {beside_twin()}",
    ]


def _lines(lines: list[str]) -> list[str]:
    return [*lines, ""]


def _heads_said() -> str:
    return (
        "Effect of the chosen heads on the right name, denoising and noising, in logits with 95 % intervals over pairs"
    )


def _outside_said() -> str:
    return "Share of draws that still differ at the end, and R, against temperature, SmolLM2 beside smalltown and random twins"


def write_page() -> None:
    """Write the page and its pictures."""
    keep_open()
    PICTURES.mkdir(exist_ok=True)
    for name, draw in (("heads", heads_figure), ("outside", outside_figure)):
        draw().write_image(PICTURES / f"{name}.png", scale=2)
    PAGE.write_text(page(), encoding="utf-8")


def _error(found: list[Estimate]) -> dict[str, object]:
    return {
        "type": "data", "symmetric": False, "array": [one.high - one.value for one in found],
        "arrayminus": [one.value - one.low for one in found], "thickness": 1.6, "width": 4,
    }  # fmt: skip


def heads_figure() -> go.Figure:
    """The chosen heads, both directions."""
    forth, against = chosen()
    names = [*forth, *against][::-1]
    first = len(rows("heads", direction="denoising"))
    fig = figure(
        f"Who moves the name · SmolLM2-135M<br><sup>heads chosen by {first} pairs, judged on "
        f"{judged(forth[0], 'denoising')[3]} others; 95 % intervals over pairs</sup>",
        700, 440,
    )  # fmt: skip
    for number, (direction, shift) in enumerate((("denoising", 0.14), ("noising", -0.14))):
        found = [judged(name, direction)[0] for name in names]
        fig.add_scatter(
            x=[one.value for one in found], y=np.arange(len(names)) + shift, error_x=_error(found), mode="markers", name=direction,
            marker={"size": 9, "color": LINES[number], "symbol": ("circle", "diamond")[number]},
        )  # fmt: skip
    fig.add_vline(x=0, line={"color": FAINT, "width": 1, "dash": "dot"})
    fig.update_xaxes(title="logits towards the right name")
    fig.update_yaxes(title="head", tickvals=list(range(len(names))), ticktext=names, showgrid=False)
    fig.update_layout(margin={"t": 96})
    return fig


def outside_figure() -> go.Figure:
    """Survival and R against temperature, one above the other."""
    fig = figure("A changed word outside · against temperature<br><sup>all four kinds of prompts; 95 % intervals over templates "
    "and prompts</sup>", 700, 640)  # fmt: skip
    names = {
        "": "SmolLM2",
        "-twin": "SmolLM2, random init",
        "-smalltown": "smalltown",
        "-smalltown-twin": "smalltown, random init",
    }
    for number, (tail, name) in enumerate(names.items()):
        there = [(t, one) for t in ORDER if (one := texts(tail, t))]
        x = [t + 0.008 * (number - 1.5) for t, _ in there]
        for axis, found in (("y2", [one.survival for _, one in there]), ("y", [one.ratio for _, one in there])):
            usable = [(at, one) for at, one in zip(x, found, strict=True) if np.isfinite(one.value)]
            fig.add_scatter(
                x=[at for at, _ in usable], y=[one.value for _, one in usable], error_y=_error([one for _, one in usable]), yaxis=axis,
                mode="lines+markers", name=name, showlegend=axis == "y2", legendgroup=name,
                line={"color": LINES[number]}, marker={"size": 8, "color": LINES[number], "symbol": SYMBOLS[number]},
            )  # fmt: skip
    fig.update_layout(
        yaxis={"domain": [0, 0.46], "title": {"text": "R (tokens per changed token)"}},
        yaxis2={
            "domain": [0.54, 1], "title": {"text": "share that still differ"}, "range": [-0.03, 1.05], "anchor": "x", "tickformat": ".0%",
        },
        legend={"orientation": "h", "y": 1.01, "x": 0, "xanchor": "left"}, margin={"t": 112},
    )  # fmt: skip
    fig.add_shape(type="line", x0=0.47, x1=1.33, y0=1, y1=1, line={"color": FAINT, "width": 1, "dash": "dot"})
    fig.update_xaxes(title="temperature of sampling", tickvals=list(ORDER))
    return fig
