"""Results in a few rows, for the terminal."""

import json
from html import unescape

import numpy as np
import xarray as xr
from rich.table import Table
from rich.text import Text

from analyses.plots.grid import centre_of, chosen_prompt, grid
from analyses.plots.labels import visible

SHOWN = 10


def strongest_cells(result: xr.Dataset) -> Table:
    """The cells that move the answer most: their effect, and with several pairs its 95 % interval; or what each method finds first."""
    done = json.loads(result.attrs["parameters"])
    number = chosen_prompt(result, None)
    table = Table("cell", title=result.attrs["kind"].replace("_", " "), title_justify="left")
    if result.attrs["kind"] == "patching_methodology":
        table = Table("method", "strongest cells (share moved)", title=table.title, title_justify="left")
        for at, method in enumerate(result["variant"].to_numpy()):
            cells = grid(result.isel(variant=at), "moved", number, done["site"])
            best = [f"{cells.names[r][c]} ({cells.z[r, c]:+.2f})" for r, c in cells.strongest(3)]
            table.add_row(str(method), _plain("; ".join(best)))
        return table
    centre = centre_of(done)
    cells = grid(result, "effect", number, done["site"])
    table.add_column("effect (0 corrupt, 1 clean)", justify="right")
    estimates = grid(result, "estimate", number, done["site"]) if "estimate" in result else None
    if estimates is not None:
        table.add_column("estimate", justify="right")
    if cells.interval is not None:
        table.add_column("95 % interval", justify="right")
    for place in cells.strongest(SHOWN, centre):
        row: list[str | Text] = [_plain(cells.names[place[0]][place[1]]), f"{cells.z[place]:.3f}"]
        row += [] if estimates is None else [f"{estimates.z[place]:.3f}"]
        row += [] if cells.interval is None else ["{:.3f} to {:.3f}".format(*cells.interval[(slice(None), *place)])]
        table.add_row(*row)
    return table


def largest_heads(result: xr.Dataset) -> Table:
    """Of a direct logit attribution, the heads that write most, what they read, and what happens without them."""
    one = result.isel(prompt=0)
    direct = one["head_effect"].to_numpy()
    tokens = [visible(str(token)) for token in one["token"].to_numpy()]
    units = str(one["metric"].attrs["units"])
    table = Table(
        "head", "reads most from", title=f"{one['metric'].attrs['long_name']}: {float(one['metric']):.2f} {units}"
    )
    for name in ("direct", "total", "self-repair"):
        table.add_column(name, justify="right")
    for at in np.argsort(-np.abs(direct), axis=None, kind="stable")[:SHOWN]:
        layer, head = divmod(int(at), direct.shape[1])
        position = int(np.abs(one["source_effect"][layer, head].to_numpy()).argmax())
        numbers = [f"{float(one[name][layer, head]):+.2f}" for name in ("head_effect", "total_effect", "self_repair")]
        table.add_row(f"{layer}.{head}", Text(f"position {position} {tokens[position]}"), *numbers)
    return table


def _plain(label: str) -> Text:
    """A figure's label for the terminal, which reads no HTML and shall read no markup."""
    return Text(unescape(label))
