"""The growth ledger: which head and which MLP makes a disturbance grow or shrink, layer by layer, to the last digit."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import einsum, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.cascade.directions import Directions, draw
from analyses.cascade.entering import Clean
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.cache import ActivationCache
from interp.config import ModelConfig
from interp.decompose import check_sum, frozen_norm, written_by_heads
from interp.errors import InterpError, ResultError
from interp.generation import left_aligned
from interp.geometry import seen
from interp.model import Attention, Transformer
from interp.names import block_name
from interp.norms import Norm
from interp.prompts import Prompt
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

WHO = "cascade.ledger"

Kept = Bool[Tensor, " position"]
"""Which positions count."""

LARGEST_RESIDUAL = {torch.float64: 1e-6, torch.float32: 1e-2}
"""What the entries of a layer may lack of its growth, nats."""

PARTS = ("qk", "ov_direction", "ov_scale")
"""Of a head: what changes because it looks elsewhere; because what it reads turns; because the norm scales it otherwise."""

OUTPUT_SCALE = "output_scale"
"""One part more where a norm stands on what attention writes: because that norm scales it otherwise."""


@takes_whole("layer", "position", "seed")
@torch.no_grad()
def ledger(
    model: Transformer,
    prompts: Prompt,
    other: Prompt | None = None,
    *,
    dose: float = 1e-2,
    layer: int = 0,
    position: int = -1,
    directions: Directions = "isotropic",
    seed: int = 0,
    bos: bool | None = None,
) -> xr.Dataset:
    """Split ln k[l], the growth of a disturbance over each layer, into one entry for each head and MLP, of any architecture whose stream
    is a sum: also with attention and MLP side by side, and with norms on what they write.

    With delta' = delta + sum_c Delta f_c, the products a_c = <Delta f_c, delta + delta'> sum to E' - E exactly; divided by twice the
    logarithmic mean of E and E' they sum to ln k = ln sqrt(E'/E). The same on the stream itself gives its own growth, and the difference
    is the ledger of growth relative to the stream, both over all positions that count. That is neither the growth of Gamma, which is
    on site and against the stream there, nor `relative_reproduction` of `gain`, all positions against the stream where it was injected.

    A head's change is split by midpoints, Delta(A V) = mean(A) Delta V + Delta A mean(V), and that of V by those of the norm,
    Delta(g u) = mean(g) Delta u + Delta g mean(u); so is what a norm makes of a head's output. Negative entries damp.

    Args:
        prompts: one or several.
        other: prompts of equal token length that differ from them: the difference of the two runs is the disturbance. None injects one
            at `layer` and `position` (negative counts from the end), of relative size `dose`, in a direction of `directions`, see `gain`.

    Returns:
        A Dataset over prompt and layer: `log_k`; `head_entry` (head), `mlp_entry` and `bias_entry`, which sum to it (the last is that of
        attention's output bias, 0 but where a norm scales what is written); `head_part` (part, head), which sum to the heads' entries;
        `stream_head`, `stream_mlp` and `stream_bias`, the entries of the stream's own growth `log_stream_growth`; `residual`, what the
        entries lack. Energies are of the stream as its readers see it (`interp.geometry`), summed over the positions that are not set
        apart (`analyses.set_apart`; of two prompts, in neither). With several prompts means with intervals.

    Raises:
        ConfigError: a post-norm model, whose stream is no sum.
        InterpError: prompts of unequal length, a place that is not there or is set apart, or a dtype too coarse.
        ResultError: entries that do not sum, a disturbance that vanishes, or a stream that is not finite.
    """
    check_sum(model, WHO)
    if isinstance(dose, bool) or not isinstance(dose, Real) or not 0 < dose < float("inf"):
        raise InterpError(f"{WHO}: dose must be a positive number, got {dose!r}.")
    if model.dtype not in LARGEST_RESIDUAL:
        raise InterpError(f"{WHO}: {model.dtype} is too coarse for a ledger; load in float32 or float64.")
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    others = None if other is None else left_aligned(model.to_tokens(other, bos=bos))
    if others is not None and (others.shape != tokens.shape or bool(((others == PAD) != (tokens == PAD)).any())):
        raise InterpError(f"{WHO}: the two prompts of each pair must have the same number of tokens.")
    if others is None and not 0 <= layer < model.config.n_layers:
        raise InterpError(
            f"{WHO}: layer {layer} is not a place to inject: layers are 0 to {model.config.n_layers - 1}."
        )
    clean = Clean.of(model, tokens)
    clean.check_some_are_left(WHO)
    other_run = None if others is None else Clean.of(model, others)
    entries = []
    for prompt, length in enumerate(clean.lengths):
        kept = clean.kept[prompt, :length]
        if other_run is None:
            pair = _injected(clean, prompt, dose, layer, position, directions, seed)
            entries.append(_entries(model, *pair, layer, kept))
        else:
            kept = kept & other_run.kept[prompt, :length]
            pair = clean.entering[0][prompt, :length], other_run.entering[0][prompt, :length]
            entries.append(_entries(model, *pair, 0, kept))
    about = {
        "dose": dose if others is None else None,
        "layer": layer if others is None else 0,
        "position": position if others is None else None,
        "directions": "other prompt" if others is not None else directions if isinstance(directions, str) else "given",
        "bos": bos,
        "set_apart": clean.apart.about() | ({} if other_run is None else {"other": other_run.apart.about()}),
    }
    return _result(model, tokens, others, entries, about, seed)


@dataclass(frozen=True, eq=False)
class _Run:
    """What a run holds of one layer, [position, ...]."""

    before: Tensor
    after: Tensor
    pattern: Float[Tensor, "head query key"]
    normed: Tensor
    scale: Tensor | None
    results: Float[Tensor, "position head d_model"]
    output_scale: Tensor | None
    heads: Float[Tensor, "position head d_model"]
    bias: Tensor
    mlp: Tensor


def _entries(model: Transformer, clean: Tensor, disturbed: Tensor, start: int, kept: Kept) -> dict[str, Tensor]:
    """The ledger of one pair of streams [position, d_model] that enter layer `start`."""
    rows: list[dict[str, Tensor]] = []
    for layer in range(start, model.config.n_layers):
        runs = _layer(model, clean, layer), _layer(model, disturbed, layer)
        rows.append(_of_layer(model, layer, *runs, kept))
        clean, disturbed = runs[0].after, runs[1].after
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


@torch.no_grad()
def _layer(model: Transformer, stream: Tensor, layer: int) -> _Run:
    norms = model.config.norms
    points = ["attn.hook_pattern", "attn.hook_result", "hook_resid_post"]
    points += ["hook_mlp_out"] if model.config.mlp != "none" else []
    points += ["ln1.hook_scale", "ln1.hook_out"] if "reads" in norms else []
    points += ["ln1_post.hook_scale"] if "output" in norms else []
    with model.capture([block_name(layer, point) for point in points]) as captured:
        model.run_blocks(stream[None], start_at_layer=layer, stop_at_layer=layer + 1)
    heads, bias = written_by_heads(model, ActivationCache(captured), layer)
    values = {name.removeprefix(block_name(layer, "")): value[0] for name, value in captured.items()}
    return _Run(
        stream,
        values["hook_resid_post"],
        values["attn.hook_pattern"],
        values.get("ln1.hook_out", stream),
        values.get("ln1.hook_scale"),
        values["attn.hook_result"],
        values.get("ln1_post.hook_scale"),
        heads[0],
        torch.zeros_like(stream) if bias is None else bias[0].expand_as(stream),
        values.get("hook_mlp_out", torch.zeros_like(stream)),
    )


def _of_layer(model: Transformer, layer: int, clean: _Run, disturbed: _Run, kept: Kept) -> dict[str, Tensor]:
    delta, after = disturbed.before - clean.before, disturbed.after - clean.after
    log_k, weigh = _weights(model.config, delta, after, kept)
    stream_growth, weigh_stream = _weights(model.config, clean.before, clean.after, kept)
    head = weigh((disturbed.heads - clean.heads).transpose(0, 1))
    bias, mlp = weigh(torch.stack([disturbed.bias - clean.bias, disturbed.mlp - clean.mlp]))
    parts = torch.stack([weigh(part) for part in _parts(model, layer, clean, disturbed)])
    stream_head = weigh_stream(clean.heads.transpose(0, 1))
    stream_bias, stream_mlp = weigh_stream(torch.stack([clean.bias, clean.mlp]))
    residual = torch.stack(
        [
            (head.sum() + mlp + bias - log_k).abs(),
            (parts.sum(0) - head).abs().max(),
            (stream_head.sum() + stream_mlp + stream_bias - stream_growth).abs(),
        ]
    ).max()
    return {
        "log_k": log_k,
        "head_entry": head,
        "mlp_entry": mlp,
        "bias_entry": bias,
        "head_part": parts,
        "log_stream_growth": stream_growth,
        "stream_head": stream_head,
        "stream_mlp": stream_mlp,
        "stream_bias": stream_bias,
        "residual": residual,
    }


def _weights(
    config: ModelConfig, before: Tensor, after: Tensor, kept: Kept
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """ln sqrt(E'/E), and the function from changes [part, position, d_model] to their entries [part]."""
    first, last = seen(config, before)[kept], seen(config, after)[kept]
    energy, later = first.pow(2).sum(), last.pow(2).sum()
    if float(energy) == 0 or float(later) == 0:
        raise ResultError(
            f"{WHO}: the disturbance is exactly zero at the positions that count, so its growth does not exist. Raise the dose."
        )
    log_ratio = (later / energy).log()
    # Near equality (a - b) / ln(a / b) loses its digits; its limit is their mean.
    mean = (later - energy) / log_ratio if float(log_ratio.abs()) > 1e-6 else (later + energy) / 2

    def weigh(changes: Float[Tensor, "part position d_model"]) -> Float[Tensor, " part"]:
        entries: Tensor = (seen(config, changes)[:, kept] * (first + last)).sum((-2, -1)) / (2 * mean)
        return entries

    return log_ratio / 2, weigh


def _parts(
    model: Transformer, layer: int, clean: _Run, disturbed: _Run
) -> list[Float[Tensor, "head position d_model"]]:
    """The change of what each head adds, split: the pattern's, the direction's and the scale's of what the values read, and where a norm
    stands on what is written, its scale's."""
    attention = model.get_submodule(block_name(layer, "attn"))
    assert isinstance(attention, Attention)
    groups = model.config.n_heads // model.config.kv_heads
    w_v = repeat(attention.W_V, "h d e -> (h g) d e", g=groups)
    bias = attention.qkv.bias
    width = attention.widths[2]
    b_v = torch.zeros(width) if bias is None else bias[-width:]
    b_v = repeat(b_v.to(w_v).reshape(model.config.kv_heads, -1), "h e -> (h g) e", g=groups)

    def values(x: Tensor) -> Float[Tensor, "head position d_head"]:
        return einsum(x, w_v, "p d, h d e -> h p e")

    turn, scaled = _norm_parts(model, layer, clean, disturbed)
    pattern = (clean.pattern + disturbed.pattern) / 2
    mean_value = values((clean.normed + disturbed.normed) / 2) + b_v[:, None]
    moved = [(disturbed.pattern - clean.pattern) @ mean_value, pattern @ values(turn), pattern @ values(scaled)]
    results = [z @ attention.W_O for z in moved]
    post = model.get_submodule(block_name(layer, "ln1_post"))
    if not isinstance(post, Norm) or clean.output_scale is None or disturbed.output_scale is None:
        return results
    gain, other = 1 / clean.output_scale, 1 / disturbed.output_scale
    between = 2 / (gain + other)  # the scale whose inverse is the mean of both
    mean = (clean.results + disturbed.results).transpose(0, 1) / 2
    return [*(frozen_norm(post, result, between) for result in results), frozen_norm(post, mean, 1 / (other - gain))]


def _norm_parts(model: Transformer, layer: int, clean: _Run, disturbed: _Run) -> tuple[Tensor, Tensor]:
    """The change of what the norm gives out, by midpoints: by its direction and by its scale."""
    norm = model.get_submodule(block_name(layer, "ln1"))
    if clean.scale is None or disturbed.scale is None or not isinstance(norm, Norm):
        return disturbed.normed - clean.normed, torch.zeros_like(clean.normed)
    first, last = (frozen_norm(norm, x, torch.ones_like(clean.scale)) for x in (clean.before, disturbed.before))
    gain, other = 1 / clean.scale, 1 / disturbed.scale
    return (gain + other) / 2 * (last - first), (other - gain) * (first + last) / 2


@torch.no_grad()
def _injected(
    clean: Clean, prompt: int, dose: float, layer: int, position: int, directions: Directions, seed: int
) -> tuple[Tensor, Tensor]:
    at = clean.position(prompt, position, WHO)
    place = torch.tensor([[prompt, at]], device=clean.tokens.device)
    unit = draw(clean, layer, place, directions, 1, seed, WHO)[0, 0]
    entering = clean.entering[layer][prompt, : clean.lengths[prompt]]
    disturbed = entering.clone()
    disturbed[at] += dose * seen(clean.model.config, entering[at]).norm() * unit
    return entering, disturbed


def _result(
    model: Transformer,
    tokens: Tensor,
    others: Tensor | None,
    entries: list[dict[str, Tensor]],
    about: dict[str, Any],
    seed: int,
) -> xr.Dataset:
    values = {name: torch.stack([one[name] for one in entries]).cpu().double().numpy() for name in entries[0]}
    worst, allowed = float(values["residual"].max()), LARGEST_RESIDUAL[model.dtype]
    if not worst < allowed:
        raise ResultError(
            f"{WHO}: the entries lack {worst:.2g} nats of the growth, more than {allowed:g}. Load the model in float64 or raise the dose."
        )
    described = {
        "log_k": ((), "ln k, growth of the disturbance over the layer"),
        "head_entry": (("head",), "entry of the head"),
        "mlp_entry": ((), "entry of the MLP"),
        "bias_entry": ((), "entry of attention's output bias"),
        "head_part": (("part", "head"), "entry of a part of the head's change"),
        "log_stream_growth": ((), "growth of the stream over the layer"),
        "stream_head": (("head",), "entry of the head in the stream's growth"),
        "stream_mlp": ((), "entry of the MLP in the stream's growth"),
        "stream_bias": ((), "entry of the attention's bias in the stream's growth"),
        "residual": ((), "what the entries lack of the growth"),
    }
    variables: dict[str, Variable] = {}
    for name, (dims, long_name) in described.items():
        variables[name] = (("prompt", "layer", *dims), values[name], long_name, "nats")
        if len(tokens) > 1 and name != "residual":
            variables |= over_prompts(name, values[name], ("layer", *dims), long_name, "nats")
    return make(
        "cascade_ledger",
        variables,
        {
            "layer": np.arange(about["layer"], model.config.n_layers),
            "head": np.arange(model.config.n_heads),
            "part": [*PARTS, *([OUTPUT_SCALE] if "output" in model.config.norms else [])],
            **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
            **token_coords(model, tokens),
        },
        model=model,
        prompts={"prompt": tokens} | ({} if others is None else {"other": others}),
        parameters=about,
        seed=seed if others is None else None,
    )
