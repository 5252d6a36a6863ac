"""Changes as interventions of the library's sweep."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.explorer.asked import Asked
from analyses.explorer.limits import WHO
from analyses.explorer.state import Change, State
from interp.errors import InterpError
from interp.geometry import seen
from interp.model import Transformer
from interp.names import block_name
from interp.sweep import Add, Intervention, Patch, Set

POINTS = {"resid_pre": "hook_resid_pre", "attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out", "z": "attn.hook_z"}


def point_of(change: Change) -> str:
    """The hook point where a change is made."""
    site = {"ablate": "z", "patch": change.site}.get(change.kind, "resid_pre")
    return block_name(change.layer, POINTS[site])


def obstacle(model: Transformer, asked: Asked, state: State, change: Change) -> str:
    """Why this model and these texts do not allow a change; empty where they do."""
    config, length = model.config, asked.tokens[state.base].shape[1]
    if change.layer >= config.n_layers:
        return f"{model.name} has layers 0 to {config.n_layers - 1}."
    if change.of_head and change.head is not None and change.head >= config.n_heads:
        return f"{model.name} has heads 0 to {config.n_heads - 1} in a layer."
    if change.position is not None and change.position >= length:
        return f"the {state.base} text has positions 0 to {length - 1}."
    if point_of(change) not in model.hook_points:
        return f"{model.name} has no {point_of(change)}."
    if change.kind == "patch" and asked.unaligned:
        return asked.unaligned
    if change.spreads:
        try:
            vector = added(model, change)
        except InterpError as error:  # a token to steer by that is several
            return str(error)
        if float(vector.norm()) == 0:
            return "its direction is zero, so it changes nothing."
    return ""


def check(model: Transformer, asked: Asked, state: State, change: Change) -> None:
    """Raise InterpError for a change that this model and these texts do not allow."""
    if why := obstacle(model, asked, state, change):
        raise InterpError(f"{WHO}: {change.named}: {why}")


def direction(model: Transformer, seed: int) -> Float[Tensor, "one d_model"]:
    """The random direction of a disturbance, before it is brought to its length."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, model.config.d_model, generator=generator, dtype=torch.float64)


def steering(model: Transformer, change: Change) -> Float[Tensor, " d_model"]:
    """The unembedding of the token that is steered towards, less that of the other."""
    toward = model.W_U[:, model.to_single_token(change.toward)]
    return toward - model.W_U[:, model.to_single_token(change.away)] if change.away else toward


@torch.no_grad()
def added(model: Transformer, change: Change) -> Float[Tensor, " d_model"]:
    """What a disturbance or steering adds, as readers of the stream see it, before it is brought to its length."""
    vector = direction(model, change.seed)[0] if change.kind == "inject" else steering(model, change)
    return seen(model.config, vector.double())


@torch.no_grad()
def interventions(model: Transformer, asked: Asked, state: State, changes: Sequence[Change]) -> list[Intervention]:
    """One for each change, in their order.

    Raises:
        InterpError: a change that cannot be made.
    """
    for change in changes:
        check(model, asked, state, change)
    own_tokens = asked.tokens[state.base]
    patched = sorted({point_of(one) for one in changes if one.kind == "patch"})
    spread = sorted({point_of(one) for one in changes if one.spreads})
    other = "clean" if state.base == "corrupt" else "corrupt"
    there = model.run_with_cache(asked.tokens[other], names=patched)[1] if patched else {}
    here = model.run_with_cache(own_tokens, names=spread)[1] if spread else {}
    made = []
    for change in changes:
        name = point_of(change)
        if change.kind == "ablate":
            made.append(Intervention(name, Set(0.0), change.position, heads=change.head))
        elif change.kind == "patch":
            head = change.head if change.site == "z" else None
            made.append(Intervention(name, Patch(there[name][0]), change.position, heads=head))
        else:
            vector = added(model, change)
            unit = (vector / vector.norm()).to(own_tokens.device, model.dtype)
            stream = here[name][0] if change.position is None else here[name][0, change.position]
            sizes = seen(model.config, stream).norm(dim=-1, keepdim=True)
            made.append(Intervention(name, Add(change.amount * sizes * unit), change.position))
    return made
