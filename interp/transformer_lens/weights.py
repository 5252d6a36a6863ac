"""Weights by TransformerLens' names and shapes: stacked over layers, and of each part: views or stand-ins; gradients go through them."""

from typing import Any, cast

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

import interp
from interp.errors import ConfigError, TokenError
from interp.model import MLP, Attention, Block
from interp.norms import Norm
from interp.prompts import as_ids
from interp.transformer_lens.config import HookedTransformerConfig
from interp.transformer_lens.factored import FactoredMatrix
from interp.transformer_lens.points import HookPoint
from interp.transformer_lens.stand_in import StandIn, stand_in
from interp.whole_numbers import sliced, whole_number


class Part:
    """A part of the model: its weights, and its hook points as attributes.

    A weight that is assigned to is written into the model's: `block.attn.W_Q = value`. Assigning to `.data` of one reaches no model.
    """

    _weights: tuple[str, ...] = ()

    def __init__(self, model: "WithWeights", prefix: str) -> None:
        self._model, self._prefix = model, prefix

    def __getattr__(self, name: str) -> HookPoint:
        points = self.__dict__["_model"].hook_dict if name.startswith("hook_") else {}
        full = self.__dict__["_prefix"] + name if name.startswith("hook_") else name
        if full not in points:
            raise AttributeError(f"{type(self).__name__} {self.__dict__['_prefix']!r} has no {name!r}.")
        return cast(HookPoint, points[full])

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._weights:
            object.__setattr__(self, name, value)
            return
        own = getattr(self, name)
        if not isinstance(own, StandIn):
            with torch.no_grad():
                own.copy_(value)
        elif not torch.equal(own, value.to(own).expand_as(own)):
            raise ConfigError(f"{self._prefix}{name} cannot be assigned to: the model has no such weight of its own.")


class AttentionPart(Part):
    """Of one layer's heads."""

    _weights = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O", "_W_K", "_W_V", "_b_K", "_b_V")

    @property
    def _of(self) -> Attention:
        return cast(Attention, self._model.core.get_submodule(self._prefix.rstrip(".")))

    def _each(self, weights: Tensor) -> Tensor:
        """One for each head, where heads share theirs."""
        groups = self._model.cfg.n_heads // len(weights)
        return weights if groups == 1 else stand_in(weights.repeat_interleave(groups, dim=0))

    def own(self, name: str) -> Tensor:
        """A weight as it is, where heads share theirs with one for each that there is: `W_K`, `b_K`, `W_V` or `b_V`."""
        of, part = self._of, "QKV".index(name[-1])
        if name.startswith("W"):
            return cast(Tensor, getattr(of, name))
        bias = _or_zeros(of.qkv)
        return torch.split(bias, of.widths)[part].reshape(-1, self._model.cfg.d_head)

    @property
    def _W_K(self) -> Float[Tensor, "kv_head d_model d_head"]:
        return self.own("W_K")

    @property
    def _W_V(self) -> Float[Tensor, "kv_head d_model d_head"]:
        return self.own("W_V")

    @property
    def _b_K(self) -> Float[Tensor, "kv_head d_head"]:
        return self.own("b_K")

    @property
    def _b_V(self) -> Float[Tensor, "kv_head d_head"]:
        return self.own("b_V")

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        return self._of.W_Q

    @property
    def W_K(self) -> Float[Tensor, "head d_model d_head"]:
        return self._each(self._of.W_K)

    @property
    def W_V(self) -> Float[Tensor, "head d_model d_head"]:
        return self._each(self._of.W_V)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        return self._of.W_O

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:
        return self._each(self.own("b_Q"))

    @property
    def b_K(self) -> Float[Tensor, "head d_head"]:
        return self._each(self.own("b_K"))

    @property
    def b_V(self) -> Float[Tensor, "head d_head"]:
        return self._each(self.own("b_V"))

    @property
    def b_O(self) -> Float[Tensor, " d_model"]:
        return _or_zeros(self._of.o)

    @property
    def QK(self) -> FactoredMatrix:
        return FactoredMatrix(self.W_Q, self.W_K.mT)

    @property
    def OV(self) -> FactoredMatrix:
        return FactoredMatrix(self.W_V, self.W_O)


class MLPPart(Part):
    """Of one layer's MLP."""

    _weights = ("W_in", "W_gate", "W_out", "b_in", "b_out")

    @property
    def _of(self) -> MLP:
        found = self._model.core.get_submodule(self._prefix.rstrip(".").rpartition(".")[0])
        mlp = cast(Block, found).mlp
        if mlp is None:
            raise ConfigError("an attention-only model has no MLP.")
        return mlp

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        return self._of.input.weight.mT

    @property
    def W_gate(self) -> Float[Tensor, "d_model d_mlp"]:
        gate = self._of.gate
        if gate is None:
            raise ConfigError("the MLP is not gated.")
        return gate.weight.mT

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        return self._of.output.weight.mT

    @property
    def b_in(self) -> Float[Tensor, " d_mlp"]:
        return _or_zeros(self._of.input)

    @property
    def b_out(self) -> Float[Tensor, " d_model"]:
        return _or_zeros(self._of.output)

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = self._of(x)
        return out


class NormPart(Part):
    """A norm of the stream. Folded, its gain is 1 and its bias 0."""

    _weights = ("w", "b")

    @property
    def _of(self) -> nn.Module:
        return self._model.core.get_submodule(self._prefix.rstrip("."))

    @property
    def w(self) -> Float[Tensor, " d_model"]:
        return cast(Norm, self._of).weight

    @property
    def b(self) -> Float[Tensor, " d_model"]:
        of = cast(Norm, self._of)
        return stand_in(torch.zeros_like(of.weight)) if of.bias is None else of.bias

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = self._of(x)
        return out


class BlockPart(Part):
    """One block; called, it runs."""

    def __init__(self, model: "WithWeights", layer: int) -> None:
        super().__init__(model, f"blocks.{layer}.")
        self._layer = layer
        self.attn = AttentionPart(model, f"{self._prefix}attn.")
        self.mlp = MLPPart(model, f"{self._prefix}mlp.")
        self.ln1, self.ln2 = (NormPart(model, f"{self._prefix}{name}.") for name in ("ln1", "ln2"))

    def __call__(self, residual: Tensor) -> Tensor:
        return self._model.core.run_blocks(residual, start_at_layer=self._layer, stop_at_layer=self._layer + 1)


class Blocks(list[BlockPart]):
    """All blocks. Raises ConfigError for a layer that is not there."""

    def __getitem__(self, layer: Any) -> Any:
        if isinstance(layer, slice):
            return [super(Blocks, self).__getitem__(at) for at in sliced(layer, len(self), "blocks", ConfigError)]
        number = whole_number(layer, "blocks: a layer", ConfigError)
        if not -len(self) <= number < len(self):
            raise ConfigError(f"blocks: layer {number} is out of range; the model has {len(self)}.")
        return super().__getitem__(number)


class EmbedPart(Part):
    """The token embedding."""

    _weights = ("W_E",)

    @property
    def W_E(self) -> Float[Tensor, "vocab d_model"]:
        return self._model.W_E

    def __call__(self, tokens: Tensor) -> Tensor:
        tokens = as_ids(tokens)
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(self.W_E):
            raise TokenError(f"embed: ids must be from 0 to {len(self.W_E) - 1}; padding has no embedding.")
        return self.W_E[tokens] * self._model.core.config.embed_scale


class PositionPart(Part):
    """The position embedding."""

    _weights = ("W_pos",)

    @property
    def W_pos(self) -> Float[Tensor, "position d_model"]:
        return self._model.W_pos


class UnembedPart(Part):
    """From the normed stream to logits."""

    _weights = ("W_U", "b_U")

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        return self._model.W_U

    @property
    def b_U(self) -> Float[Tensor, " vocab"]:
        return self._model.b_U

    def __call__(self, normed: Tensor) -> Tensor:
        return self._model.core.to_logits(normed, slice(0, self._model.cfg.d_vocab_out))


class WithWeights(nn.Module):
    """The weights of a model. It fills `core` and `cfg`, and has hook points."""

    core: interp.Transformer
    cfg: HookedTransformerConfig
    hook_dict: dict[str, HookPoint]

    @property
    def blocks(self) -> "Blocks":
        return Blocks(BlockPart(self, layer) for layer in range(self.cfg.n_layers))

    @property
    def embed(self) -> EmbedPart:
        return EmbedPart(self, "embed.")

    @property
    def pos_embed(self) -> PositionPart:
        return PositionPart(self, "pos_embed.")

    @property
    def ln_final(self) -> NormPart:
        return NormPart(self, "ln_final.")

    @property
    def unembed(self) -> UnembedPart:
        return UnembedPart(self, "unembed.")

    @property
    def W_E(self) -> Float[Tensor, "vocab d_model"]:
        whole: Tensor = self.core.W_E
        return whole if len(whole) == self.cfg.d_vocab else whole[: self.cfg.d_vocab]

    @property
    def W_pos(self) -> Float[Tensor, "position d_model"]:
        """Raises ConfigError where the model has no position embedding."""
        if not self.core.config.has_position_embedding:
            raise ConfigError(
                f"{self.cfg.model_name} has no position embedding; its positions are {self.core.config.positions}."
            )
        return self.core.W_pos

    @property
    def W_E_pos(self) -> Float[Tensor, "vocab_and_position d_model"]:
        return torch.cat([self.W_E, self.W_pos])

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        return self.core.W_U[:, : self.cfg.d_vocab_out]

    @property
    def b_U(self) -> Float[Tensor, " vocab"]:
        bias = self.core.b_U
        return stand_in(self.core.W_E.new_zeros(self.cfg.d_vocab_out)) if bias is None else bias[: self.cfg.d_vocab_out]

    def _stacked(self, part: str, name: str) -> Tensor:
        return torch.stack([getattr(getattr(block, part), name) for block in self.blocks])

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        return self._stacked("attn", "W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        return self._stacked("attn", "W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer head d_model d_head"]:
        return self._stacked("attn", "W_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        return self._stacked("attn", "W_O")

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return self._stacked("mlp", "W_in")

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return self._stacked("mlp", "W_gate")

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        return self._stacked("mlp", "W_out")

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        return self._stacked("attn", "b_Q")

    @property
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        return self._stacked("attn", "b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer head d_head"]:
        return self._stacked("attn", "b_V")

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        return self._stacked("attn", "b_O")

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        return self._stacked("mlp", "b_in")

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        return self._stacked("mlp", "b_out")

    @property
    def QK(self) -> FactoredMatrix:
        """[layer, head, d_model, d_model], from queries to keys."""
        return FactoredMatrix(self.W_Q, self.W_K.mT)

    @property
    def OV(self) -> FactoredMatrix:
        """[layer, head, d_model, d_model], from what is attended to to what is written."""
        return FactoredMatrix(self.W_V, self.W_O)

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """The sum of the output biases before a layer.

        Args:
            mlp_input: with that of the layer's own attention.

        Raises:
            ConfigError: a layer that is not there.
        """
        layer = whole_number(layer, "accumulated_bias: a layer", ConfigError, least=0)
        if layer > self.cfg.n_layers - mlp_input:
            raise ConfigError(f"accumulated_bias: layer {layer} is out of range: 0 to {self.cfg.n_layers - mlp_input}.")
        attention = self.blocks[: layer + mlp_input]
        total = sum((block.attn.b_O for block in attention), start=self.core.W_E.new_zeros(self.cfg.d_model))
        if include_mlp_biases and not self.cfg.attn_only:
            total = sum((block.mlp.b_out for block in self.blocks[:layer]), start=total)
        return total

    def all_head_labels(self) -> list[str]:
        return [f"L{layer}H{head}" for layer in range(self.cfg.n_layers) for head in range(self.cfg.n_heads)]

    def all_composition_scores(self, mode: str) -> Float[Tensor, "layer head layer head"]:
        """How much of what each head writes each later head reads through its queries ("Q"), keys or values: the norm of the product
        over the product of the norms (Elhage et al. 2021). 0 where the reader does not come later."""
        readers = {"Q": self.QK, "K": self.QK.T, "V": self.OV}
        if mode not in readers:
            raise ConfigError(f"all_composition_scores: mode must be Q, K or V, got {mode!r}.")
        writes, reads = self.OV, readers[mode]
        between = einsum(writes.B, reads.A, "l h e d, m g d f -> l h m g e f")
        left, right = writes.A.mT @ writes.A, reads.B @ reads.B.mT
        squared = einsum(between, left, between, right, "l h m g e f, l h e i, l h m g i j, m g f j -> l h m g")
        scores = squared.clamp(min=0).sqrt() / writes.norm()[..., None, None] / reads.norm()
        layers = torch.arange(self.cfg.n_layers, device=scores.device)
        later: Tensor = layers[:, None, None, None] < layers[:, None]
        return scores.masked_fill(~later, 0.0)


def _or_zeros(linear: nn.Linear) -> Tensor:
    return stand_in(linear.weight.new_zeros(linear.out_features)) if linear.bias is None else linear.bias
