"""Weights by TransformerLens' keys, as checkpoints that were saved from a `HookedTransformer` have them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import interp
from interp.errors import CheckpointError, nearest
from interp.transformer_lens.config import HookedTransformerConfig
from interp.transformer_lens.stand_in import StandIn

TABLES = (".mask", ".IGNORE", ".rotary_sin", ".rotary_cos", ".alibi")
"""Ends of keys that hold no weights."""


class Loaded(NamedTuple):
    """What was not there, and what had no place."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class WithStates(nn.Module):
    """A model whose state is told by TransformerLens' keys. It has the parts of `WithWeights`."""

    core: interp.Transformer
    cfg: HookedTransformerConfig

    def _places(self) -> dict[str, Tensor]:
        """Every weight that a `HookedTransformer` has, by its key: views of the model's."""
        model: Any = self
        core, cfg = self.core.config, self.cfg
        normed = ("w", "b") if cfg.normalization_type == "LN" else ("w",) if cfg.normalization_type == "RMS" else ()
        places = {"embed.W_E": model.W_E} | ({"pos_embed.W_pos": model.W_pos} if core.positions == "learned" else {})
        shared = "_" if core.kv_heads != core.n_heads else ""
        for layer, block in enumerate(model.blocks):
            at = f"blocks.{layer}."
            for norm in ("ln1", "ln2")[: 1 if cfg.attn_only else 2]:
                places |= {f"{at}{norm}.{name}": getattr(getattr(block, norm), name) for name in normed}
            places |= {f"{at}attn.{name}": getattr(block.attn, name) for name in ("W_Q", "b_Q", "W_O", "b_O")}
            places |= {f"{at}attn.{shared}{name}": block.attn.own(name) for name in ("W_K", "b_K", "W_V", "b_V")}
            if not cfg.attn_only:
                names = ("W_in", "b_in", "W_out", "b_out", *(["W_gate"] if cfg.gated_mlp else []))
                places |= {f"{at}mlp.{name}": getattr(block.mlp, name) for name in names}
        places |= {f"ln_final.{name}": getattr(model.ln_final, name) for name in normed}
        return places | {"unembed.W_U": model.W_U, "unembed.b_U": model.b_U}

    def state_dict(  # type: ignore[override]
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Every weight by its key, as a view; detached unless `keep_vars`."""
        found: dict[str, Any] = {} if destination is None else destination
        for name, value in self._places().items():
            own = value.as_subclass(Tensor) if isinstance(value, StandIn) else value
            found[prefix + name] = own if keep_vars else own.detach()
        return found

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Loaded:
        """Write weights into the model's. Masks and tables of positions are passed over.

        Raises:
            CheckpointError: a shape that does not fit; where it is strict, keys that are missing, or that the model does not have.
        """
        places = self._places()
        given = {name: value for name, value in state_dict.items() if not name.endswith(TABLES)}
        missing, beyond = (
            [name for name in one if name not in other] for one, other in ((places, given), (given, places))
        )
        if strict and (missing or beyond):
            about = (
                f"{beyond[0]!r} has no place in the model. {nearest(beyond[0], places)}"
                if beyond
                else f"{missing[0]!r} is missing."
            )
            raise CheckpointError(f"load_state_dict: {about}")
        for name in places.keys() & given.keys():
            if places[name].shape != given[name].shape:
                raise CheckpointError(
                    f"load_state_dict: {name} has shape {tuple(given[name].shape)}, the model's {tuple(places[name].shape)}."
                )
        for name in places.keys() & given.keys():
            if not isinstance(places[name], StandIn):
                places[name].copy_(given[name])
        for name, value in self._places().items():
            if name in given and not torch.equal(value, given[name].to(value)):
                raise CheckpointError(f"load_state_dict: the model has no {name}, which is not 0 in what is loaded.")
        return Loaded(missing, beyond)
