"""Results in a few rows, for the terminal."""

import json
from collections.abc import Mapping
from html import unescape
from typing import Any

import numpy as np
import xarray as xr
from rich.table import Table
from rich.text import Text

from analyses.lenses import TunedLens
from analyses.lenses.compared import compared_cells, compared_names
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
    for name in ("direct", "total", "direct less total"):
        table.add_column(name, justify="right")
    for at in np.argsort(-np.abs(direct), axis=None, kind="stable")[:SHOWN]:
        layer, head = divmod(int(at), direct.shape[1])
        position = int(np.abs(one["source_effect"][layer, head].to_numpy()).argmax())
        numbers = [f"{float(one[name][layer, head]):+.2f}" for name in ("head_effect", "total_effect", "self_repair")]
        table.add_row(f"{layer}.{head}", Text(f"position {position} {tokens[position]}"), *numbers)
    return table


def lens_rows(result: xr.Dataset) -> Table:
    """Of a lens, what each step predicts at the last position of the first prompt."""
    one = result.isel(prompt=0)
    one = one.isel(position=np.flatnonzero(one["token_id"].to_numpy() >= 0)[-1])
    final = visible(str(one["top_token"][-1, 0].item()))
    table = Table("stream after", "predicts", title="after the last token", title_justify="left")
    for name in ("probability", "entropy (nats)", "KL to final (nats)", Text(f"rank of {final}")):
        table.add_column(name, justify="right")
    for at, step in enumerate(one["step"].to_numpy()):
        row = one.isel(layer=at)
        numbers = [f"{float(row['top_probability'][0]):.3f}", f"{float(row['entropy']):.2f}", f"{float(row['kl']):.3f}"]
        predicted = Text(visible(str(row["top_token"][0].item())))
        table.add_row(str(step), predicted, *numbers, f"{float(row['final_rank']):.0f}")
    return table


def lens_training(lens: TunedLens) -> Table:
    """Of a tuned lens just trained, the divergence on the rows kept out, before and after."""
    history = lens.about["validation_kl"]
    before, after = history[0][1], min(history, key=lambda entry: sum(entry[1]))[1]
    table = Table(
        "layer", title=f"KL to the final distribution on held-out rows, nats ({lens.about['trained_steps']} steps)"
    )
    for name in ("logit lens", "tuned lens"):
        table.add_column(name, justify="right")
    for layer, (first, last) in enumerate(zip(before, after, strict=True)):
        table.add_row(str(layer), f"{first:.3f}", f"{last:.3f}")
    return table


def lens_comparison(results: Mapping[str, xr.Dataset], title: str) -> Table:
    """The logit lens beside a tuned one by layer, as `analyses.compare_lenses` gives them; `title` says on which text."""
    table = Table("layer", title=f"{title}: means with 95 % intervals, nats", title_justify="left")
    for name in compared_names()[1:]:
        table.add_column(name, justify="right")
    for cells in compared_cells(results):
        table.add_row(*cells)
    return table


def wavefront_rows(result: xr.Dataset) -> Table:
    """Of the cascade's picture: both texts as they go on, and how far apart their streams are in the end."""
    table = Table("weights", "", "goes on", title="one disturbance, inside and outside", title_justify="left")
    for name in ("at the last token", "in the text"):
        table.add_column(f"distance {name}", justify="right")
    drawn = result["generated"].to_numpy() == 1
    for weights in result["weights"].to_numpy():
        one = result.sel(weights=weights)
        output = one["distance"].to_numpy()[-1]
        numbers = [f"{output[~drawn][-1]:.3f}", f"{output[drawn].mean():.3f}"]
        for said, name in (("clean", "token"), ("disturbed", "other_token")):
            text = Text(visible("".join(str(token) for token in one[name].to_numpy()[drawn])))
            table.add_row(str(weights), said, text, *numbers)
            weights, numbers = "", ["", ""]
    return table


def survey_rows(manifest: Mapping[str, Any]) -> Table:
    """How many rows a survey took, and why others were put aside."""
    table = Table("rows", title=manifest["request"]["analysis"], title_justify="left")
    table.add_column("", justify="right")
    table.add_row("in the data set", f"{manifest['rows']:,}")
    table.add_row("measured", f"{manifest['accepted']:,}")
    table.add_row("put aside", f"{manifest['rejected']:,}")
    for reason, count in list(manifest["reasons"].items())[:SHOWN]:
        table.add_row(Text(reason), f"{count:,}")
    return table


def _plain(label: str) -> Text:
    """A figure's label for the terminal, which reads no HTML and shall read no markup."""
    return Text(unescape(label))
