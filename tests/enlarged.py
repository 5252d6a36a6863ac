"""Results stretched to the shape of a large model: 48 layers of 25 heads, 120 tokens; what they say means nothing any more."""

import json

import numpy as np
import xarray as xr

LAYERS, HEADS, TOKENS = 48, 25, 120

SIZES = {
    "head": HEADS,
    "writer_head": HEADS,
    "writer_layer": LAYERS,
    "block": LAYERS,
    "position": TOKENS,
    "query": TOKENS,
    "key": TOKENS,
    "injection": TOKENS - 1,
    "distance": TOKENS - 1,
    "time": TOKENS,
    "lag": TOKENS,
    "candidate": 12,
    "other_candidate": 12,
}
"""Of dimensions whose size does not depend on the kind of result."""


def enlarged(result: xr.Dataset) -> xr.Dataset:
    """A result as a large model would have it: dimensions grow, names and places are made anew, values are repeated."""
    sizes = {dim: SIZES[dim] for dim, size in result.sizes.items() if dim in SIZES and 0 < size < SIZES[dim]}
    config = json.loads(result.attrs["model_config"])
    for dim in ("layer", "step", "other_step"):
        if dim in result.sizes:
            per, more = divmod(result.sizes[dim], config["n_layers"])
            sizes[dim] = per * LAYERS + more
    named = {}
    if "component" in result.sizes:
        named["component"] = _components([str(name) for name in result["component"].to_numpy()])
    if "source_layer" in result.coords:
        named["source"] = ["input", *(f"a{layer}.h{head}" for layer in range(LAYERS) for head in range(HEADS))]
        named["source"] += [f"m{layer}" for layer in range(LAYERS)]
    sizes |= {dim: len(names) for dim, names in named.items()}
    places = {dim: np.arange(size) * result.sizes[dim] // size for dim, size in sizes.items()}
    large = result.isel(places)
    for dim, size in sizes.items():
        if dim in named:
            large = large.assign_coords({dim: named[dim]})
        elif dim in ("step", "other_step"):
            large = large.assign_coords({dim: _steps(size)})
        elif dim in result.coords and result[dim].dtype.kind in "iuf":
            first, second = (float(one) for one in result[dim].to_numpy()[[0, 1]]) if result.sizes[dim] > 1 else (0, 1)
            counted = first + (second - first) * np.arange(size)
            large = large.assign_coords({dim: counted.astype(result[dim].dtype)})
    if "step" in result.coords and result["step"].dims == ("layer",):
        large = large.assign_coords(step=("layer", _steps(sizes["layer"])))
    if "source_layer" in result.coords:
        heads = np.repeat(np.arange(LAYERS), HEADS), np.tile(np.arange(HEADS), LAYERS)
        layer = np.concatenate([[-1], heads[0], np.arange(LAYERS)])
        head = np.concatenate([[-1], heads[1], np.full(LAYERS, -1)])
        large = large.assign_coords(source_layer=("source", layer), source_head=("source", head))
    config |= {"n_layers": LAYERS, "n_heads": HEADS, "n_ctx": 4 * TOKENS}
    large.attrs = result.attrs | {"model_config": json.dumps(config), "model": "a-model-of-48-layers-25-heads"}
    return large


def _steps(count: int) -> list[str]:
    """`embed`, and after it as many as there are."""
    halves = ("attn", "mlp") if count > LAYERS + 1 else ("mlp",)
    return ["embed", *(f"{layer}.{half}" for layer in range(LAYERS) for half in halves)][:count]


def _components(names: list[str]) -> list[str]:
    """The same parts of so many layers."""
    per_layer = [name.removeprefix("0.") for name in names if name.startswith("0.")]
    per_layer = (
        [*map(str, range(HEADS)), *(part for part in per_layer if not part.isdigit())]
        if "0" in per_layer
        else per_layer
    )
    whole = [name for name in names if "." not in name]
    begin = [name for name in whole if "embed" in name]
    middle = [f"{layer}.{part}" for layer in range(LAYERS) for part in per_layer]
    return [*begin, *middle, *(name for name in whole if name not in begin)]
