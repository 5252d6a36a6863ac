"""Pieces of the page that are made anew as the state changes: tokens, predictions, changes, runs. React escapes every text in them."""

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
import numpy as np
import xarray as xr
from dash import html
from dash.development.base_component import Component

from analyses.explorer.asked import Asked
from analyses.explorer.effects import Effect, Effects
from analyses.explorer.live import Live
from analyses.explorer.session import Session, called
from analyses.explorer.state import State
from analyses.plots.labels import visible

MOST_RUNS = 12
"""Runs that are listed."""

STRONGEST = 62
"""Per cent of the accent colour behind a token with all attention, so that its text keeps a contrast of 4.5 to 1."""


def chips(pieces: Sequence[str], ids: Sequence[int], run: str, differs: set[int]) -> list[Component]:
    """Tokens in a row, to be clicked and dragged."""
    return [
        html.Button(
            visible(piece),
            className=f"token{' differs' if at in differs else ''}",
            title=f"position {at}, id {token}" + (", differs" if at in differs else ""),
            draggable="true" if run == "other" else "false",
            tabIndex=-1,
            **{"data-position": str(at), "data-run": run},
        )
        for at, (piece, token) in enumerate(zip(pieces, ids, strict=True))
    ]


def texts(asked: Asked, pieces: dict[str, list[str]], state: State) -> list[Component]:
    """Both texts as tokens."""
    differing = set(asked.differing())
    rows = []
    for which, tokens in asked.tokens.items():
        run = "changed" if which == state.base else "other"
        label = f"{which}{', changed' if run == 'changed' and len(asked.tokens) > 1 else ''}"
        row = chips(pieces[which], tokens[0].tolist(), run, differing)
        rows.append(
            html.Div([html.B(label), html.Span(row, className="row", **{"data-run": run})], className="tokens", role="group",
                     **{"aria-label": f"Tokens of the {which} text"})
        )  # fmt: skip
    return rows


def attended(result: xr.Dataset, state: State) -> list[Component]:
    """The text that is shown, each token as dark as the selected head attends to it from the selected position."""
    one = result["pattern"].isel(prompt=0, layer=state.layer, head=state.head)
    at = min(state.position, one.sizes["query"] - 1)
    shares = np.nan_to_num(one.isel(query=at).to_numpy())
    tokens = result["key_token"].isel(prompt=0).to_numpy()
    return [
        html.Button(
            visible(str(token)),
            className="token",
            title=f"{share:.4f} from position {at} to {place}",
            tabIndex=-1,
            style={"--share": f"{STRONGEST * float(share):.1f}%"},
            **{"data-position": str(place), "data-share": f"{share:.6f}"},
        )
        for place, (token, share) in enumerate(zip(tokens, shares, strict=True))
    ]


def predictions(found: Effects) -> list[Component]:
    """The most probable next tokens of each run."""
    tables = []
    for which, one in found.runs.items():
        rows = [
            html.Tr([html.Td(visible(token), className="mono"), html.Td(f"{p:.4f}", className="number"),
                     html.Td(html.I(style={"width": f"{100 * p:.1f}%"}), className="bar", **{"aria-hidden": "true"})])
            for token, p in one.tokens
        ]  # fmt: skip
        title = [which, html.Span(f"{found.metric} {one.metric:.4f}", className="soft", **{"data-metric": which})]
        tables.append(html.Table([html.Caption(title), html.Tbody(rows)], **{"data-run": which}))
    return tables


def changes(found: Effects, state: State) -> list[Component]:
    """The changes with a switch and the effect of each, and of all that are on."""
    if not state.changes:
        return [
            html.P(
                "Nothing is changed. Select a cell and press a button above, or have a click do it.", className="soft"
            )
        ]
    rows = [
        html.Tr(
            [
                html.Td(
                    html.Button(
                        "on" if one.on else "off", className="switch", role="switch", **{
                            "aria-checked": str(one.on).lower(), "aria-label": one.named, "data-do": "switch", "data-number": str(number),
                        },
                    )
                ),
                html.Td(one.named),
                *_numbers(effect),
                html.Td(html.Button("×", className="remove", title="Remove", **{
                    "aria-label": f"Remove: {one.named}", "data-do": "remove", "data-number": str(number)})),
            ],
            className="" if one.on else "off",
        )
        for number, (one, effect) in enumerate(zip(state.changes, found.alone, strict=True))
    ]  # fmt: skip
    if found.together is not None:
        rows.append(
            html.Tr(
                [html.Td(), html.Th("together", scope="row"), *_numbers(found.together), html.Td()],
                className="together",
            )
        )
    heads = ("", "change", "moved", "share", "KL", "")
    return [
        html.Div(
            html.Table([html.Thead(html.Tr([html.Th(one, scope="col") for one in heads])), html.Tbody(rows)]),
            className="wide",
        ),
        html.P(
            f"Moved: by how much the {found.metric} of the {state.base} run changes, each change alone; share: of the way to the other "
            "run; KL from the unchanged run, nats.",
            className="soft",
        ),
    ]


def _numbers(effect: Effect) -> list[Component]:
    said = [f"{effect.moved:+.4f}", "–" if effect.share is None else f"{effect.share:.3f}", f"{effect.kl:.3g}"]
    return [html.Td(one, className="number") for one in said]


def runs(session: Session) -> list[Component]:
    """The runs before this one, the latest first."""
    if not session.past:
        return [html.P("Runs before this one will stand here.", className="soft")]
    latest = list(enumerate(session.past))[: -MOST_RUNS - 1 : -1]
    return [
        html.Button(called(one), className="run", **{"data-do": "back", "data-number": str(number)})
        for number, one in latest
    ]


def written(live: Live) -> list[Component]:
    """Two texts side by side, tokens that differ coloured."""
    different = [one != other for one, other in zip(*live.tokens, strict=True)]
    return [
        html.Div(
            [html.B(which), html.Span([
                html.Span(visible(token), className=f"token{' differs' if apart else ''}")
                for token, apart in zip(tokens, different, strict=True)
            ], className="row")],
            className="tokens", **{"data-text": which},
        )
        for which, tokens in zip(("clean", "corrupt"), live.tokens, strict=True)
    ]  # fmt: skip


def problem(said: str) -> Any:
    """Why something is not shown."""
    return dmc.Text(said, className="problem", size="sm")
