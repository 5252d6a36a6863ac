"""The glossary: what each axis means, and the name and axes of every hook point."""

from collections.abc import Callable, Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from interp.config import ModelConfig
from interp.errors import HookError, nearest

AXES: dict[str, str] = {
    "batch": "rows run together",
    "prompt": "prompts of an analysis; the unit of replication",
    "position": "token positions, 0 first",
    "query": "positions that attend",
    "key": "positions attended to",
    "layer": "blocks, 0 first; where a residual stream is meant, the stream entering that block",
    "head": "attention heads of a layer",
    "kv_head": "heads with keys and values of their own; as many as heads unless these are grouped",
    "d_model": "width of the residual stream",
    "d_head": "width of a head",
    "d_mlp": "neurons of a layer's MLP",
    "vocab": "token ids",
    "top": "most probable tokens, best first",
    "candidate": "tokens chosen by the user",
    "other_candidate": "the same, where two are compared",
    "other_position": "the same as position, where two are compared",
    "pc": "principal components, the one with most variance first",
    "axis": "the first of them, along which coordinates are kept",
    "way": "how a head reads another: through its query, key or value",
    "writer_layer": "layers of the heads that are read",
    "writer_head": "those heads",
    "replacement": "what is put in place of a part that is taken out",
    "pair": "pairs of singular directions, largest value first",
    "singular": "singular values, largest first",
    "mode": "independent disturbances, the fastest growing first",
    "distance": "tokens from the place of an injection",
    "direction_kind": "what directions are drawn from",
    "path": "ways of making a disturbance larger",
    "dose": "size of a disturbance over that of the stream where it is injected",
    "part": "what a head's change comes from: where it looks, what it reads there, how the norm scales that",
    "rival": "laws that a power law is compared with",
    "law": "a power and an exponential, which are compared",
    "injection": "places where a disturbance is injected",
    "direction": "directions of a disturbance",
    "source": "parts of the model that write into the stream: the input, heads, MLPs",
    "edge": "from a part of the model to what another reads of it",
    "circuit": "sets of edges",
    "estimator": "what ranks edges: their exact effects, or a method that estimates them",
    "ranking": "whether edges are ranked by signed score or by size",
    "share": "of all edges",
    "knocked_out": "sets of parts that are taken out",
    "count": "how many edges of a ranking are looked at",
    "bound": "lower and upper end of an interval",
    "component": "parts that sum to a quantity: embeddings, attention layers, MLPs, biases",
    "step": "the residual stream after the embedding and after each half of a block",
    "other_step": "the same, where two are compared",
    "time": "steps of a generation, the first new token 0",
    "seed": "draws of the noise from which one prompt is continued",
    "lag": "tokens between a swapped one and one that comes after it",
    "temperature": "of sampling",
    "horizon": "how many generated tokens are looked at",
    "channel": "what carries a disturbance on: activations that are kept, or tokens",
    "cell": "runs in which each channel is open or shut",
    "size": "of avalanches, in tokens",
    "neuron": "neurons of an MLP, where each is patched by itself",
    "draw": "draws of noise for one prompt",
    "variant": "ways of patching the same grid",
    "other_variant": "the same, where two are compared",
    "condition": "what is taken out of the model: nothing, the chosen parts, or random others",
    "clean_position": "positions of the clean prompt, where it is not the one that is patched and lengths differ",
    "corrupt_position": "positions of the corrupt prompt, likewise",
}

RESIDUAL = ("batch", "position", "d_model")
HEADS = ("batch", "position", "head", "d_head")
ATTENTION = ("batch", "head", "query", "key")
SCALE = ("batch", "position", "one")

KV_HEADS = ("batch", "position", "kv_head", "d_head")
NEURONS = ("batch", "position", "d_mlp")

HEAD_INPUTS: dict[str, tuple[str, ...]] = {
    "hook_q_input": (*HEADS[:3], "d_model"),
    "hook_k_input": (*KV_HEADS[:3], "d_model"),
    "hook_v_input": (*KV_HEADS[:3], "d_model"),
}
MLP_INPUT = "hook_mlp_in"
"""What one reader of the stream reads, before its norm: the queries, keys or values of each head by itself, and the MLP."""


Selection = str | Iterable[str] | Callable[[str], bool] | None
"""Hook names chosen by exact name, glob, list of either, or predicate; None is all."""


def block_name(layer: int, point: str) -> str:
    """The full name of a block's hook point: `block_name(3, "attn.hook_z")` is `blocks.3.attn.hook_z`."""
    return f"blocks.{layer}.{point}"


def norm_axes(
    name: str, value: tuple[str, ...] = RESIDUAL, scale: tuple[str, ...] = SCALE
) -> dict[str, tuple[str, ...]]:
    """The hook points of a norm: what it divides by, the quotient, and that times the gain plus the bias, which is what is read."""
    return {f"{name}.hook_scale": scale, f"{name}.hook_normalized": value, f"{name}.hook_out": value}


def input_axes(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """The inputs that a block has, with the axes of their values, by the last part of their names."""
    return HEAD_INPUTS | ({} if config.mlp == "none" else {MLP_INPUT: RESIDUAL})


def block_axes(config: ModelConfig, inputs: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """Every hook point of a block in the order in which a forward pass reaches it, with the axes of its value.

    Args:
        inputs: those of `input_axes` that are hook points too.
    """

    def norm(name: str, place: str) -> dict[str, tuple[str, ...]]:
        return norm_axes(name) if place in config.norms else {}

    axes: dict[str, tuple[str, ...]] = {"hook_resid_pre": RESIDUAL}
    axes |= {name: value for name, value in HEAD_INPUTS.items() if name in inputs} | norm("ln1", "reads")
    axes |= {"attn.hook_q": HEADS, "attn.hook_k": KV_HEADS, "attn.hook_v": KV_HEADS}
    if config.qk_norm != "none":
        for name, heads in (("q", HEADS), ("k", KV_HEADS)):
            scale = (*heads[:2], heads[2] if config.qk_norm == "head" else "one", "one")
            axes |= norm_axes(f"attn.{name}_norm", heads, scale)
    if config.positions == "rotary":
        axes |= {"attn.hook_rot_q": HEADS, "attn.hook_rot_k": KV_HEADS}
    axes |= {"attn.hook_attn_scores": ATTENTION, "attn.hook_pattern": ATTENTION, "attn.hook_z": HEADS}
    axes |= {"attn.hook_result": ("batch", "position", "head", "d_model")}
    axes |= norm("ln1_post", "output") | {"hook_attn_out": RESIDUAL} | norm("ln1", "after")
    if config.mlp != "none":
        axes |= {} if config.parallel else {"hook_resid_mid": RESIDUAL}
        axes |= {MLP_INPUT: RESIDUAL} if MLP_INPUT in inputs else {}
        axes |= norm("ln2", "reads") | {"mlp.hook_pre": NEURONS}
        axes |= {"mlp.hook_pre_linear": NEURONS} if config.mlp == "gated" else {}
        axes |= {"mlp.hook_post": NEURONS} | norm("ln2_post", "output")
        axes |= {"hook_mlp_out": RESIDUAL} | norm("ln2", "after")
    return axes | {"hook_resid_post": RESIDUAL}


def hook_axes(config: ModelConfig, inputs: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """Every hook name of a model of that shape, in forward order, with the axes of its value; `inputs` as for `block_axes`."""
    names: dict[str, tuple[str, ...]] = {"hook_embed": RESIDUAL}
    if config.has_position_embedding:
        names["hook_pos_embed"] = RESIDUAL
    for layer in range(config.n_layers):
        names |= {block_name(layer, point): axes for point, axes in block_axes(config, inputs).items()}
    return names | (norm_axes("ln_final") if config.has_final_norm else {})


def short_name(point: str, layer: int, available: Sequence[str]) -> str:
    """The full name of `("pattern", 3)`: the point of that layer whose last part is `hook_<point>`.

    Raises HookError where the layer has no such point, or has several (the two layer norms).
    """
    if not isinstance(point, str):
        raise HookError(f"a hook point is named by text, such as 'z' or 'resid_pre'; got {point!r}.")
    prefix = f"blocks.{layer}."
    in_layer = [name for name in available if name.startswith(prefix)]
    if not in_layer:
        raise HookError(f"no hook point of layer {layer} is here. {nearest(prefix + point, available)}")
    found = [n for n in in_layer if n in (prefix + point, prefix + "hook_" + point) or n.endswith(".hook_" + point)]
    if len(found) != 1:
        what = (
            f"is ambiguous in layer {layer}: {', '.join(found)}" if found else f"names no hook point of layer {layer}"
        )
        raise HookError(f"{point!r} {what}. {nearest(prefix + 'hook_' + point, in_layer)}")
    return found[0]


def select(selection: Selection, available: Sequence[str], purpose: str) -> list[str]:
    """The available hook names that a selection chooses, in forward order.

    A name that is not available, a glob or predicate that matches nothing, and an empty list are each a HookError:
    a selection never silently misses.
    """
    if selection is None:
        return list(available)
    if isinstance(selection, str):
        chosen = _matching(selection, available, purpose)
    elif callable(selection):
        chosen = {name for name in available if selection(name)}
        if not chosen:
            raise HookError(f"{purpose}: the predicate matches none of the {len(available)} hook points.")
    else:
        patterns = list(selection) if isinstance(selection, Iterable) else [selection]
        if not patterns:
            raise HookError(f"{purpose}: the list of hook names is empty. Pass None for all of them.")
        chosen = set().union(*(_matching(pattern, available, purpose) for pattern in patterns))
    return [name for name in available if name in chosen]


def _matching(pattern: str, available: Sequence[str], purpose: str) -> set[str]:
    if not isinstance(pattern, str):
        raise HookError(f"{purpose}: hook points are chosen by name; got {pattern!r}, {type(pattern).__name__}.")
    if pattern in available:
        return {pattern}
    chosen = {name for name in available if fnmatchcase(name, pattern)}
    if not chosen:
        kind = "pattern" if any(c in pattern for c in "*?[") else "name"
        raise HookError(f"{purpose}: the {kind} {pattern!r} matches no hook point. {nearest(pattern, available)}")
    return chosen
