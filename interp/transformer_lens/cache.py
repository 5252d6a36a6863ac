"""The activations of a run with TransformerLens' names, and the sums that are made of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeVar

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, HookError, TokenError, nearest
from interp.loading.devices import device_there
from interp.transformer_lens.slices import Slice, SliceInput
from interp.transformer_lens.texts import Ids
from interp.transformer_lens.utils import get_act_name
from interp.whole_numbers import whole_number

if TYPE_CHECKING:
    from interp.transformer_lens.model import HookedTransformer

Stack = Float[Tensor, "component *place d_model"]
Labelled = Tensor | tuple[Tensor, list[str]]
Default = TypeVar("Default")


class ActivationCache(Mapping[str, Tensor]):
    """Values by hook name: `cache["blocks.0.attn.hook_pattern"]`, `cache["pattern", 0]` and `cache["pattern", 0, "attn"]` are one.

    Args:
        cache_dict: name to value.
        model: whose run it was.
        has_batch_dim: whether values have an axis for the rows.
    """

    def __init__(self, cache_dict: dict[str, Tensor], model: "HookedTransformer", has_batch_dim: bool = True) -> None:
        self.cache_dict, self.model, self.has_batch_dim = cache_dict, model, has_batch_dim

    def __getitem__(self, key: Any) -> Tensor:
        if isinstance(key, tuple):
            if not 1 <= len(key) <= 3:
                raise HookError(f"cache: give a name, or a name with a layer and what it is of; got {key!r}.")
            point, *rest = key
            if rest and rest[0] is not None and not isinstance(rest[0], str):
                layer = whole_number(rest[0], "cache: a layer", HookError)
                rest[0] = layer + self.model.cfg.n_layers if -self.model.cfg.n_layers <= layer < 0 else layer
            name = get_act_name(point, *rest)
        else:
            name = get_act_name(key)
        if name not in self.cache_dict:
            raise HookError(f"{name!r} was not cached. {nearest(name, self.cache_dict)}")
        return self.cache_dict[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cache_dict)

    def __len__(self) -> int:
        return len(self.cache_dict)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a name, or what is to stand for it where it was not cached."""
        try:
            return self[key]
        except HookError:
            return default

    def __contains__(self, key: object) -> bool:
        return key in self.cache_dict

    def __repr__(self) -> str:
        return f"ActivationCache with keys {list(self.cache_dict)}"

    def to(self, device: torch.device | str, move_model: bool = False) -> "ActivationCache":
        """The values on another device, here; with the model, where that is asked for."""
        place = device_there(device, HookError)
        self.cache_dict = {name: value.to(place) for name, value in self.cache_dict.items()}
        if move_model:
            self.model.to(place)
        return self

    def toggle_autodiff(self, mode: bool = False) -> None:
        """Switch torch's gradients on or off, everywhere."""
        torch.set_grad_enabled(mode)

    def remove_batch_dim(self) -> "ActivationCache":
        """Without the axis of the rows, here. Raises HookError where there are several."""
        if self.has_batch_dim:
            several = next((name for name, value in self.cache_dict.items() if len(value) != 1), None)
            if several is not None:
                raise HookError(
                    f"remove_batch_dim: {several} has {len(self.cache_dict[several])} rows; there must be one."
                )
            self.cache_dict = {name: value[0] for name, value in self.cache_dict.items()}
            self.has_batch_dim = False
        return self

    def apply_slice_to_batch_dim(self, batch_slice: SliceInput) -> "ActivationCache":
        """A cache of some rows; of one row that is given by its number, without their axis."""
        if not self.has_batch_dim:
            raise HookError("apply_slice_to_batch_dim: this cache has no axis of rows.")
        at = Slice(batch_slice)
        chosen = {name: at.apply(value, 0) for name, value in self.cache_dict.items()}
        return ActivationCache(chosen, self.model, has_batch_dim=not at.drops)

    def _stop(self, layer: int | None) -> int:
        """Up to which layer: None and -1 are all. Raises ConfigError for one that is not there."""
        n_layers = self.model.cfg.n_layers
        stop = -1 if layer is None else whole_number(layer, "cache: a layer", ConfigError)
        stop = n_layers if stop == -1 else stop
        if not 0 <= stop <= n_layers:
            raise ConfigError(f"cache: layer {layer} is out of range: 0 to {n_layers}, or -1 for all.")
        return stop

    def _layer_inside(self, layer: int | None, mlp_input: bool) -> int:
        stop = self._stop(layer)
        if mlp_input and stop == self.model.cfg.n_layers:
            raise ConfigError("cache: mlp_input is of a layer; give one.")
        return stop

    def _sliced(self, name: str, at: Slice) -> Tensor:
        return at.apply(self[name], -2)

    def _stacked(
        self,
        parts: dict[str, Tensor],
        layer: int | None,
        mlp_input: bool,
        pos_slice: SliceInput,
        apply_ln: bool,
        labels: bool,
    ) -> Labelled:
        stack = torch.stack(list(parts.values()))
        if apply_ln:
            stack = self.apply_ln_to_stack(
                stack, layer, mlp_input=mlp_input, pos_slice=pos_slice, has_batch_dim=self.has_batch_dim
            )
        return (stack, list(parts)) if labels else stack

    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: SliceInput = None,
        mlp_input: bool = False,
        return_labels: bool = False,
    ) -> Labelled:
        """The stream as it enters each layer up to one, and the one that enters that: [layer, *place, d_model].

        Args:
            layer: None and -1 are all, with the stream that leaves the last.
            incl_mid: also between attention and MLP.
            apply_ln: normed, as what reads the stream there does; at the end of the model each by its own scale.
            mlp_input: also what the MLP of that layer reads.
        """
        stop, at = self._layer_inside(layer, mlp_input), Slice(pos_slice)
        parts = {}
        for number in range(stop):
            parts[f"{number}_pre"] = self._sliced(f"blocks.{number}.hook_resid_pre", at)
            if incl_mid:
                parts[f"{number}_mid"] = self._sliced(f"blocks.{number}.hook_resid_mid", at)
        if stop == self.model.cfg.n_layers:
            parts["final_post"] = self._sliced(f"blocks.{stop - 1}.hook_resid_post", at)
        else:
            parts[f"{stop}_pre"] = self._sliced(f"blocks.{stop}.hook_resid_pre", at)
            if mlp_input:
                parts[f"{stop}_mid"] = self._sliced(f"blocks.{stop}.hook_resid_mid", at)
        stack = torch.stack(list(parts.values()))
        if apply_ln and stop == self.model.cfg.n_layers:
            stack = self.model.ln_final(stack)
        elif apply_ln:
            stack = self.apply_ln_to_stack(
                stack, stop, mlp_input, pos_slice=pos_slice, has_batch_dim=self.has_batch_dim
            )
        return (stack, list(parts)) if return_labels else stack

    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: Literal["all", "mlp", "attn"] = "all",
        apply_ln: bool = False,
        pos_slice: SliceInput = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Labelled:
        """What embeddings, attention layers and MLPs wrote into the stream that enters a layer: [component, *place, d_model].

        Args:
            mlp_input: of what that layer's MLP reads, so with its attention.
            mode: only attention or only MLPs.
        """
        stop, at = self._layer_inside(layer, mlp_input), Slice(pos_slice)
        if mode not in ("all", "mlp", "attn"):
            raise ConfigError(f"decompose_resid: mode must be 'all', 'mlp' or 'attn', got {mode!r}.")
        parts = self._embeddings(at) if incl_embeds else {}
        for number in range(stop):
            for kind in ("attn", "mlp"):
                if mode in ("all", kind) and not (kind == "mlp" and self.model.cfg.attn_only):
                    parts[f"{number}_{kind}_out"] = self._sliced(f"blocks.{number}.hook_{kind}_out", at)
        if mlp_input and mode in ("all", "attn"):
            parts[f"{stop}_attn_out"] = self._sliced(f"blocks.{stop}.hook_attn_out", at)
        return self._stacked(parts, stop, mlp_input, pos_slice, apply_ln, return_labels)

    def _embeddings(self, at: Slice) -> dict[str, Tensor]:
        parts = {"embed": self._sliced("hook_embed", at)}
        return parts | (
            {"pos_embed": self._sliced("hook_pos_embed", at)} if "hook_pos_embed" in self.cache_dict else {}
        )

    def compute_head_results(self) -> None:
        """Add what each head wrote, `attn.hook_result`, to the cache where it is not there."""
        for layer, block in enumerate(self.model.blocks):
            name = f"blocks.{layer}.attn.hook_result"
            if name not in self.cache_dict:
                z = self[f"blocks.{layer}.attn.hook_z"]
                self.cache_dict[name] = einsum(z, block.attn.W_O.detach().to(z), "... h e, h e d -> ... h d")

    def stack_head_results(
        self,
        layer: int = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: SliceInput = None,
        apply_ln: bool = False,
    ) -> Labelled:
        """What each head of the layers before one wrote: [layer head, *place, d_model], labels `L0H0`, ...

        Args:
            incl_remainder: also what the stream that enters the layer has besides.
        """
        stop, at = self._stop(layer), Slice(pos_slice)
        self.compute_head_results()
        heads = [at.apply(self["result", number], -3).movedim(-2, 0) for number in range(stop)]
        labels = [f"L{number}H{head}" for number in range(stop) for head in range(self.model.cfg.n_heads)]
        return self._with_rest(heads, labels, stop, at, incl_remainder, pos_slice, apply_ln, return_labels)

    def _with_rest(
        self, found: list[Tensor], labels: list[str], stop: int, at: Slice, rest: bool, pos_slice: SliceInput, apply_ln: bool,
        return_labels: bool,
    ) -> Labelled:  # fmt: skip
        whole = self._sliced(f"blocks.{stop - 1}.hook_resid_post" if stop else "blocks.0.hook_resid_pre", at)
        stack = torch.cat([whole.new_zeros(0, *whole.shape), *found])
        if rest:
            stack, labels = torch.cat([stack, (whole - stack.sum(0))[None]]), [*labels, "remainder"]
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, stop, pos_slice=pos_slice, has_batch_dim=self.has_batch_dim)
        return (stack, labels) if return_labels else stack

    def stack_activation(
        self, activation_name: str, layer: int = -1, sublayer_type: str | None = None
    ) -> Float[Tensor, "layer ..."]:
        """One hook point of every layer before one. Raises ConfigError for layer 0, which none comes before."""
        stop = self._stop(layer)
        if stop == 0:
            raise ConfigError("stack_activation: there is no layer before 0; give a later one, or -1 for all.")
        return torch.stack([self[activation_name, number, sublayer_type] for number in range(stop)])

    def get_neuron_results(
        self, layer: int, neuron_slice: SliceInput = None, pos_slice: SliceInput = None
    ) -> Float[Tensor, "*place neuron d_model"]:
        """What each neuron of a layer wrote; -1 is the last layer."""
        layer = whole_number(layer, "cache: a layer", ConfigError)
        layer = layer + self.model.cfg.n_layers if -self.model.cfg.n_layers <= layer < 0 else layer
        at = Slice(neuron_slice)
        post = at.apply(self._sliced(f"blocks.{layer}.mlp.hook_post", Slice(pos_slice)), -1)
        return post[..., None] * at.apply(self.model.blocks[layer].mlp.W_out.detach().to(post), 0)

    def stack_neuron_results(
        self,
        layer: int,
        pos_slice: SliceInput = None,
        neuron_slice: SliceInput = None,
        return_labels: bool = False,
        incl_remainder: bool = False,
        apply_ln: bool = False,
    ) -> Labelled:
        """What each neuron of the layers before one wrote: [layer neuron, *place, d_model], labels `L0N0`, ..."""
        stop, at, chosen = self._stop(layer), Slice(pos_slice), Slice(neuron_slice)
        several = [chosen.given] if isinstance(chosen.given, int) else chosen.given
        numbers = chosen.indices(self.model.cfg.d_mlp or 0)
        neurons = [self.get_neuron_results(number, several, pos_slice).movedim(-2, 0) for number in range(stop)]
        labels = [f"L{number}N{neuron}" for number in range(stop) for neuron in numbers]
        return self._with_rest(neurons, labels, stop, at, incl_remainder, pos_slice, apply_ln, return_labels)

    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: SliceInput = None,
        return_labels: bool = False,
    ) -> Labelled:
        """Heads, neurons (or MLPs), embeddings and biases, which sum to the stream: [component, *place, d_model]."""
        stop, at = self._layer_inside(layer, mlp_input), Slice(pos_slice)
        found, labels = self.stack_head_results(stop + mlp_input, pos_slice=pos_slice, return_labels=True)
        parts = dict(zip(labels, found, strict=True))
        if not self.model.cfg.attn_only and expand_neurons:
            found, labels = self.stack_neuron_results(stop, pos_slice=pos_slice, return_labels=True)
            parts |= dict(zip(labels, found, strict=True))
        elif not self.model.cfg.attn_only:
            parts |= {f"{number}_mlp_out": self._sliced(f"blocks.{number}.hook_mlp_out", at) for number in range(stop)}
        parts |= self._embeddings(at)
        bias = self.model.accumulated_bias(stop, mlp_input, include_mlp_biases=expand_neurons).detach()
        parts["bias"] = bias.expand_as(parts["embed"])
        return self._stacked(parts, stop, mlp_input, pos_slice, apply_ln, return_labels)

    def apply_ln_to_stack(
        self,
        residual_stack: Stack,
        layer: int | None = None,
        mlp_input: bool = False,
        pos_slice: SliceInput = None,
        batch_slice: SliceInput = None,
        has_batch_dim: bool = True,
        recompute_ln: bool = False,
    ) -> Stack:
        """Parts of a stream divided by the scale that the whole had where it was read: centred first, by a layer norm. Without gain and
        bias, which folding moves into the weights.

        Args:
            layer: by whose norm; None, -1 and the number of layers are the final one.
            mlp_input: by the one before the MLP.
            pos_slice, batch_slice: which positions and rows the parts are of.
            has_batch_dim: whether they have an axis of rows.
            recompute_ln: at the end of the model, norm each part by its own scale, gain and bias included.
        """
        cfg = self.model.cfg
        if not isinstance(residual_stack, Tensor) or residual_stack.shape[-1:] != (cfg.d_model,):
            raise HookError(f"apply_ln_to_stack: give parts of a stream, [component, *place, {cfg.d_model}].")
        if cfg.normalization_type is None:
            return residual_stack
        stop = self._stop(layer)
        if stop == cfg.n_layers and recompute_ln:
            return self.model.ln_final(residual_stack)
        name = "ln_final" if stop == cfg.n_layers else f"blocks.{stop}.{'ln2' if mlp_input else 'ln1'}"
        if cfg.normalization_type.startswith("LN"):
            residual_stack = residual_stack - residual_stack.mean(-1, keepdim=True)
        scale = self._sliced(f"{name}.hook_scale", Slice(pos_slice))
        if self.has_batch_dim:
            rows = Slice(batch_slice)
            scale = rows.apply(scale, 0)
            scale = scale[0] if not has_batch_dim and not rows.drops and len(scale) == 1 else scale
        if not _broadcasts(scale.shape[:-1], residual_stack.shape[:-1]):
            raise HookError(
                f"apply_ln_to_stack: the parts are of shape {tuple(residual_stack.shape)}, but at the places asked for the cache holds "
                f"{tuple(scale.shape[:-1])}; give the same pos_slice and batch_slice as for the parts."
            )
        return residual_stack / scale

    def logit_attrs(
        self,
        residual_stack: Stack,
        tokens: str | SupportsIndex | Sequence[str | SupportsIndex] | Ids,
        incorrect_tokens: str | SupportsIndex | Sequence[str | SupportsIndex] | Ids | None = None,
        pos_slice: SliceInput = None,
        batch_slice: SliceInput = None,
        has_batch_dim: bool = True,
    ) -> Float[Tensor, " component *place"]:
        """What each part adds to the logit of a token, or to its difference from that of another: [component, *place].

        Args:
            tokens: one, one for each row, or one for each row and position; ids, or texts that are one token each.
            incorrect_tokens: those that are compared with.
            pos_slice, batch_slice, has_batch_dim: see `apply_ln_to_stack`.

        Raises:
            TokenError: tokens that are none of the model's, or not one for each row (and position) of the parts.
        """
        directions = self._directions(tokens, pos_slice, batch_slice)
        if incorrect_tokens is not None:
            others = self._directions(incorrect_tokens, pos_slice, batch_slice)
            directions = directions - others
        normed = self.apply_ln_to_stack(
            residual_stack, -1, pos_slice=pos_slice, batch_slice=batch_slice, has_batch_dim=has_batch_dim
        )
        if directions.ndim > 1 and not _broadcasts(directions.shape[:-1], normed.shape[1:-1]):
            raise TokenError(
                f"logit_attrs: tokens of shape {tuple(directions.shape[:-1])} do not fit the parts' {tuple(normed.shape[1:-1])}."
            )
        attributions: Tensor = (normed * directions.to(normed)).sum(-1)
        return attributions

    def _directions(self, tokens: Any, pos_slice: SliceInput, batch_slice: SliceInput) -> Tensor:
        """Unembedding vectors that broadcast over [*place, d_model]."""
        ids = self.model.ids_of(tokens, self.model.cfg.d_vocab_out)
        one_each = ids.ndim == 1
        at, rows = Slice(pos_slice), Slice(batch_slice)
        by_row = self.has_batch_dim and ids.ndim > 0
        if ids.ndim == 1 + by_row:  # positions are the last axis
            ids = at.apply(ids, -1) if ids.ndim else ids
        ids = rows.apply(ids, 0) if by_row else ids
        directions = self.model.W_U.mT.detach()[ids]
        single = by_row and one_each and not at.drops
        return directions[..., None, :] if single else directions


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    """Whether a shape fits another, to which it is broadcast on the left."""
    return len(shape) <= len(to) and all(one in (1, other) for one, other in zip(shape[::-1], to[::-1], strict=False))
