"""What the page writes anew as the state changes, as plain JSON: tokens, predictions, changes, runs. The page shows every text as text."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from analyses.explorer.asked import Asked
from analyses.explorer.effects import Effect, Effects
from analyses.explorer.live import Live
from analyses.explorer.session import Session, called
from analyses.explorer.state import State
from analyses.plots.labels import visible

Json = dict[str, Any]

STRONGEST = 62
"""Per cent of the accent colour behind a token with all attention, so that its text keeps a contrast of 4.5 to 1."""

MOST_RUNS = 12
"""Runs that are listed."""


def texts(asked: Asked, pieces: dict[str, list[str]], state: State) -> Json:
    """Both texts as tokens, to be clicked and dragged."""
    differing, rows = set(asked.differing()), []
    for which, ids in asked.tokens.items():
        changed = which == state.base
        tokens = [
            {
                "text": visible(piece),
                "title": f"position {at}, id {token}" + (", differs" if at in differing else ""),
                "position": at,
                "differs": at in differing,
            }
            for at, (piece, token) in enumerate(zip(pieces[which], ids[0].tolist(), strict=True))
        ]
        label = f"{which}, changed" if changed and len(asked.tokens) > 1 else which
        rows.append({"label": label, "which": which, "run": "changed" if changed else "other", "tokens": tokens})
    return {"rows": rows}


def attended(result: xr.Dataset, state: State) -> Json:
    """The text that is shown, each token as dark as the selected head attends to it from the selected position."""
    one = result["pattern"].isel(prompt=0, layer=state.layer, head=state.head)
    last = one.sizes["query"] - 1
    at = min(state.position, last)
    beyond = f", the last of the {'corrupt' if state.suffix else 'clean'} text" if state.position > last else ""
    shares = np.nan_to_num(one.isel(query=at).to_numpy()).tolist()
    tokens = result["key_token"].isel(prompt=0).to_numpy()
    return {
        "said": f"Head {state.layer}.{state.head} from position {at}{beyond}: the bluer, the more attention.",
        "tokens": [
            {
                "text": visible(str(token)),
                "title": f"{share:.4f} from position {at} to {place}",
                "position": place,
                "share": share,
                "dark": f"{STRONGEST * share:.1f}%",
            }
            for place, (token, share) in enumerate(zip(tokens, shares, strict=True))
        ],
    }


def effects(found: Effects, state: State, obstacles: Sequence[str]) -> Json:
    """The most probable next tokens of each run, and the changes with the effect of each and of all that are on.

    Args:
        found: of the changes that can be made.
        obstacles: why each change cannot be made; empty where it can.
    """
    made = iter(found.alone)
    runs = [
        {
            "run": which,
            "metric": f"{found.metric} {one.metric:.4f}",
            "tokens": [[visible(token), f"{p:.4f}", f"{100 * p:.1f}%"] for token, p in one.tokens],
        }
        for which, one in found.runs.items()
    ]
    changes = [
        {
            "change": asdict(one),
            "named": one.named,
            "on": one.on,
            "dosed": one.spreads,
            "problem": why,
            "numbers": ["–"] * 3 if why else _numbers(next(made)),
        }
        for one, why in zip(state.changes, obstacles, strict=True)
    ]
    read = f"Moved: by how much the {found.metric} of the {state.base} run changes, each change alone; share: of the way to the other run; "
    return {
        "runs": runs,
        "changes": changes,
        "together": None if found.together is None else _numbers(found.together),
        "read": read + "KL from the unchanged run, nats.",
    }


def _numbers(effect: Effect) -> list[str]:
    return [f"{effect.moved:+.4f}", "–" if effect.share is None else f"{effect.share:.3f}", f"{effect.kl:.3g}"]


def runs(session: Session) -> list[Json]:
    """The runs before this one, the latest first."""
    latest = list(enumerate(session.past))[: -MOST_RUNS - 1 : -1]
    return [{"number": number, "called": called(one)} for number, one in latest]


def written(live: Live) -> Json:
    """Two texts side by side."""
    return {
        which: [visible(token) for token in text] for which, text in zip(("clean", "corrupt"), live.tokens, strict=True)
    }
