"""Derivatives of the residual stream: tangents on their way up and cotangents on their way down, many beside one run of a prompt.

A tangent at a position touches later positions and higher layers only, like a row of the sweep, so only those are carried; each map of a
block is applied to all vectors at once, with what the run left in its norms, patterns and nonlinearities.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ConfigError
from interp.fused import each_head
from interp.model import MLP, Attention, Block, Transformer
from interp.names import block_name
from interp.norms import Norm
from interp.positions import turned, turns_at
from interp.streams import streams
from interp.view import whole

Vectors = Float[Tensor, "vector place d_model"]
Arrived = Float[Tensor, "vector lower d_model"]

LARGEST = 2**25
"""Numbers that vectors may take together within a block."""


class LinearNorm:
    """The derivative of a norm at a run's values; what is not there changes nothing.

    Args:
        x: [place, ...], what entered it.
        held: whether what it divides by counts as constant.
    """

    def __init__(self, norm: nn.Module, x: Tensor, held: bool = False) -> None:
        self._norm, self._held = norm if isinstance(norm, Norm) else None, held
        if self._norm is None:
            return
        self._axes = tuple(range(-self._norm.weight.ndim, 0))
        centred = x - x.mean(self._axes, keepdim=True) if self._norm.centres else x
        self._scale = (centred.pow(2).mean(self._axes, keepdim=True) + self._norm.eps).sqrt()
        self._normalized = centred / self._scale
        self._weight = self._norm.weight.to(x.dtype)

    def push(self, t: Tensor, places: slice) -> Tensor:
        """The tangent that leaves, at some places."""
        if self._norm is None:
            return t
        t = t - t.mean(self._axes, keepdim=True) if self._norm.centres else t
        return self._across(t, places) * self._weight

    def pull(self, u: Tensor, places: slice) -> Tensor:
        """The cotangent that arrives, at some places."""
        if self._norm is None:
            return u
        u = self._across(u * self._weight, places)
        return u - u.mean(self._axes, keepdim=True) if self._norm.centres else u

    def products(
        self,
        tangents: Float[Tensor, "prompt source position d_model"],
        cotangents: Float[Tensor, "prompt position head d_head"],
        weight: Float[Tensor, "head d_model d_head"],
    ) -> Float[Tensor, "prompt source head"]:
        """Tangents before the norm times cotangents behind it and a linear map, summed over positions: as by `pull`, which would make a
        vector of the stream for every head and place."""
        if self._norm is not None:
            weight = weight * self._weight[:, None]
            weight = weight - weight.mean(1, keepdim=True) if self._norm.centres else weight
            cotangents = cotangents / self._scale[..., None]
        pulled = einsum(cotangents, weight, "n p h e, h d e -> n h p d")
        if self._norm is not None and not self._held:  # what points along the value itself is lost
            along = einsum(
                einsum(self._normalized, weight, "n p d, h d e -> n p h e"), cotangents, "n p h e, n p h e -> n h p"
            )
            pulled.addcmul_(along[..., None], self._normalized[:, None], value=-1 / self._weight.numel())
        found: Tensor = pulled.flatten(2) @ tangents.flatten(2).mT  # few rows times many, the faster way round
        return found.mT

    def _across(self, t: Tensor, places: slice) -> Tensor:
        """Division by the size: what points along the value itself is lost, unless that is held. Symmetric."""
        if self._held:
            return t / self._scale[places]
        n = self._normalized[places]
        return (t - n * (n * t).mean(self._axes, keepdim=True)) / self._scale[places]


class LinearMLP:
    """The derivative of an MLP at a run's values; `pre` and `pre_linear` are [position, d_mlp]."""

    def __init__(self, mlp: MLP, pre: Tensor, pre_linear: Tensor | None = None) -> None:
        self._mlp, self._dtype = mlp, pre.dtype
        with torch.inference_mode(False), torch.enable_grad():
            at = pre.clone().requires_grad_(True)
            active = mlp.activation(at)
            (slope,) = torch.autograd.grad(active.sum(), at)
        self._slope = slope if pre_linear is None else slope * pre_linear
        self._active = active.detach() if pre_linear is not None else None

    def push(self, t: Tensor, places: slice) -> Tensor:
        w = {name: weight.to(self._dtype) for name, weight in self._mlp.named_parameters()}
        gate = "input.weight" if self._active is None else "gate.weight"
        post = F.linear(t, w[gate]) * self._slope[places]
        if self._active is not None:
            post = post + F.linear(t, w["input.weight"]) * self._active[places]
        return F.linear(post, w["output.weight"])

    def pull(self, u: Tensor, places: slice) -> Tensor:
        w = {name: weight.to(self._dtype) for name, weight in self._mlp.named_parameters()}
        gate = "input.weight" if self._active is None else "gate.weight"
        post = u @ w["output.weight"]
        out: Tensor = (post * self._slope[places]) @ w[gate]
        return out if self._active is None else out + (post * self._active[places]) @ w["input.weight"]


class LinearAttention:
    """The derivative of attention at a run's values.

    Args:
        q, k: [position, head, d_head], as they came from their maps; v likewise.
        pattern: [head, query, key].
    """

    def __init__(self, attention: Attention, q: Tensor, k: Tensor, v: Tensor, pattern: Tensor) -> None:
        self._attention, self._config, self._pattern = attention, attention.config, pattern
        self._groups = self._config.n_heads // self._config.kv_heads
        self._q_norm, self._k_norm = LinearNorm(attention.q_norm, q), LinearNorm(attention.k_norm, k)
        self._positions = torch.arange(len(q), device=q.device)
        whole = slice(0, len(q))
        self._q = self._turned(attention.q_norm(q).to(q.dtype)[None], whole)[0]
        self._k = self._each_head(self._turned(attention.k_norm(k).to(k.dtype)[None], whole))[0]
        self._v = self._each_head(v[None])[0]
        self._slope: Tensor | None = None
        if self._config.score_cap is not None:
            scores = einsum(self._q * self._config.score_scale, self._k, "i h e, j h e -> h i j")
            self._slope = 1 - torch.tanh(scores / self._config.score_cap).pow(2)

    def push(self, t: Tensor, first: int) -> Tensor:
        """From positions `first` on, to the same: every position reads those before it, of which the earlier have no tangent."""
        last = first + t.shape[1]
        own, keys = slice(first, last), slice(0, last)
        parts = torch.split(F.linear(t, self._attention.qkv.weight.to(t.dtype)), self._attention.widths, dim=-1)
        q, k, v = (rearrange(part, "n p (h e) -> n p h e", e=self._config.d_head) for part in parts)
        q = self._turned(self._q_norm.push(q, own), own) * self._config.score_scale
        k = self._each_head(self._turned(self._k_norm.push(k, own), own)) * self._config.score_scale
        scores = einsum(q, self._k[keys], "n i h e, j h e -> n h i j")
        scores[..., first:] += einsum(self._q[own], k, "i h e, n j h e -> n h i j")
        pattern = self._pattern[:, own, keys]
        moved = self._softmax(scores if self._slope is None else scores * self._slope[:, own, keys], pattern)
        z = einsum(moved, self._v[keys], "n h i j, j h e -> n i h e")
        z = z + einsum(pattern[..., first:], self._each_head(v), "h i j, n j h e -> n i h e")
        return F.linear(z.flatten(2), self._attention.o.weight.to(t.dtype))

    def pull(self, u: Tensor, first: int, down_to: int) -> Tensor:
        """From positions `first` on, to positions `down_to` to the last of them."""
        last = first + u.shape[1]
        own, keys = slice(first, last), slice(down_to, last)
        z = rearrange(u @ self._attention.o.weight.to(u.dtype), "n p (h e) -> n p h e", e=self._config.d_head)
        pattern = self._pattern[:, own, :last]
        scores = self._softmax(einsum(z, self._v[:last], "n i h e, j h e -> n h i j"), pattern)
        scores = (scores if self._slope is None else scores * self._slope[:, own, :last]) * self._config.score_scale
        q = einsum(scores, self._k[:last], "n h i j, j h e -> n i h e")
        k = self._together(einsum(scores[..., down_to:], self._q[own], "n h i j, i h e -> n j h e"))
        v = self._together(einsum(pattern[..., down_to:], z, "h i j, n i h e -> n j h e"))
        q = self._q_norm.pull(self._turned(q, own, back=True), own)
        k = self._k_norm.pull(self._turned(k, keys, back=True), keys)
        q_weight, k_weight, v_weight = torch.split(self._attention.qkv.weight.to(u.dtype), self._attention.widths)
        out: Tensor = k.flatten(2) @ k_weight + v.flatten(2) @ v_weight
        out[:, first - down_to :] += q.flatten(2) @ q_weight
        return out

    def _turned(self, x: Tensor, places: slice, back: bool = False) -> Tensor:
        if self._attention.rotary is None:
            return x
        cos, sin = turns_at(self._positions[places][None], len(self._positions), self._attention.rotary, x.dtype)
        return turned(x, cos, -sin if back else sin)

    def _each_head(self, x: Tensor) -> Tensor:
        return each_head(x, self._config.n_heads)

    def _together(self, x: Tensor) -> Tensor:
        """What the heads of a group say of the keys or values that they share."""
        return x if self._groups == 1 else rearrange(x, "n p (h g) e -> n p h g e", g=self._groups).sum(3)

    def _softmax(self, t: Tensor, pattern: Tensor) -> Tensor:
        """The derivative of the softmax, which is symmetric."""
        weighted = t * pattern
        return weighted - pattern * weighted.sum(-1, keepdim=True)


class LinearBlock:
    """The derivative of a block at a run's values: the stream that leaves by the stream that enters.

    Args:
        x: [position, d_model], what enters it.
    """

    def __init__(self, model: Transformer, layer: int, x: Float[Tensor, "position d_model"]) -> None:
        self._block = block = cast(Block, model.blocks[layer])
        self._wide = torch.promote_types(x.dtype, torch.float32)
        with torch.no_grad():
            names = [block_name(layer, f"attn.{name}") for name in ("hook_q", "hook_k", "hook_v", "hook_pattern")]
            with model.capture(names) as values:
                z = block.attend(x[None], replace(whole(model.config, x[None], None), explicit=True))
            q, k, v, pattern = (values[name][0].to(self._wide) for name in names)
            attended = block.attn.output(z)
            written = block.ln1_post(attended)
            middle = x[None] + written
            self._ln1 = LinearNorm(block.ln1, (middle[0] if block.norms_sum else x).to(self._wide))
            self._ln1_post = LinearNorm(block.ln1_post, attended[0].to(self._wide))
            self._attention = LinearAttention(block.attn, q, k, v, pattern)
            if block.mlp is None:
                return
            middle = block.ln1(middle) if block.norms_sum else middle
            before = x[None] if block.parallel else middle
            read = block.ln2(before) if block.reads_normed else before
            names = [
                name
                for point in ("pre", "pre_linear")
                if (name := block_name(layer, f"mlp.hook_{point}")) in model.hook_points
            ]
            with model.capture(names) as values:
                out = block.mlp(read)
            self._mlp = LinearMLP(block.mlp, *(values[name][0].to(self._wide) for name in names))
            self._ln2_post = LinearNorm(block.ln2_post, out[0].to(self._wide))
            summed = middle + block.ln2_post(out)
            self._ln2 = LinearNorm(block.ln2, (summed if block.norms_sum else before)[0].to(self._wide))

    def push(self, t: Vectors, first: int) -> Vectors:
        """Tangents of the positions from `first` on, as they leave: of as many positions as came in."""
        places = slice(first, first + t.shape[1])
        t = t.to(self._wide)
        attended = self._attention.push(self._read(self._ln1, t, places), first)
        middle = self._after(self._ln1, t + self._ln1_post.push(attended, places), places)
        if self._block.mlp is None:
            return middle
        read = self._read(self._ln2, t if self._block.parallel else middle, places)
        out = middle + self._ln2_post.push(self._mlp.push(read, places), places)
        return self._after(self._ln2, out, places)

    def pull(self, u: Vectors, first: int, down_to: int) -> Arrived:
        """Cotangents of the positions from `first` on, as they arrive at the positions from `down_to` on."""
        places = slice(first, first + u.shape[1])
        u = u.to(self._wide)
        aside: Tensor | float = 0.0
        if self._block.mlp is not None:
            u = self._ln2.pull(u, places) if self._block.norms_sum else u
            read = self._mlp.pull(self._ln2_post.pull(u, places), places)
            read = self._ln2.pull(read, places) if self._block.reads_normed else read
            u, aside = (u, read) if self._block.parallel else (u + read, 0.0)
        u = self._ln1.pull(u, places) if self._block.norms_sum else u
        arrived = self._attention.pull(self._ln1_post.pull(u, places), first, down_to)
        below = slice(down_to, places.stop)
        arrived = self._ln1.pull(arrived, below) if self._block.reads_normed else arrived
        arrived[:, first - down_to :] += u + aside
        return arrived

    def _read(self, norm: LinearNorm, t: Tensor, places: slice) -> Tensor:
        return norm.push(t, places) if self._block.reads_normed else t

    def _after(self, norm: LinearNorm, t: Tensor, places: slice) -> Tensor:
        return norm.push(t, places) if self._block.norms_sum else t


@dataclass(frozen=True, eq=False)
class Linearised:
    """The derivative of the stream at one layer by the stream at a lower one, at one prompt.

    Args:
        entering: [layer, position, d_model], the stream that enters each block, and that which leaves the last; see `interp.streams`.
    """

    model: Transformer
    entering: Sequence[Float[Tensor, "position d_model"]]
    _blocks: dict[int, LinearBlock] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def at(cls, model: Transformer, tokens: Int[Tensor, " position"]) -> "Linearised":
        """At a run of token ids."""
        return cls(model, [stream[0] for stream in streams(model, tokens[None])])

    def __len__(self) -> int:
        """Positions of the prompt."""
        return len(self.entering[0])

    @torch.no_grad()
    def up(self, tangents: Vectors, first: int, start: int, stop: int) -> Iterator[Vectors]:
        """Push tangents at the positions from `first` on into block `start`; what leaves each block up to `stop - 1`, in turn.

        Tangents may leave out the last positions of the prompt, which then get none; not where attention is bidirectional.
        """
        for pushed in self.up_from({first: tangents}, start, stop):
            yield pushed[first]

    @torch.no_grad()
    def up_from(self, tangents: Mapping[int, Vectors], start: int, stop: int) -> Iterator[dict[int, Vectors]]:
        """As `up`, of tangents from several positions on, by the first of them: each block is looked at once for all."""
        pushed = dict(tangents)
        for first, vectors in pushed.items():
            self._check(first, vectors.shape[1])
        for layer in range(start, stop):
            block = self._block(layer)
            pushed = {
                first: torch.cat([block.push(part, first) for part in self._parts(vectors)])
                for first, vectors in pushed.items()
            }
            yield pushed

    @torch.no_grad()
    def down(self, cotangents: Vectors, first: int, start: int, stop: int, down_to: int = 0) -> Iterator[Arrived]:
        """Pull cotangents of the stream that leaves block `stop - 1`, at the positions from `first` on, down; what arrives at the stream
        that enters each block down to `start`, at the positions from `down_to` on, in turn."""
        self._check(first, cotangents.shape[1])
        for layer in reversed(range(start, stop)):
            block = self._block(layer)
            cotangents = torch.cat([block.pull(part, first, down_to) for part in self._parts(cotangents, down_to)])
            first = down_to
            yield cotangents

    def push(self, tangents: Vectors, first: int, start: int, stop: int) -> Vectors:
        """What leaves block `stop - 1`; see `up`."""
        pushed = tangents
        for leaving in self.up(tangents, first, start, stop):
            pushed = leaving
        return pushed

    def pull(self, cotangents: Vectors, first: int, start: int, stop: int, down_to: int = 0) -> Arrived:
        """What arrives at the stream that enters block `start`; see `down`."""
        pulled = cotangents
        for arriving in self.down(cotangents, first, start, stop, down_to):
            pulled = arriving
        return pulled

    def dense(self, source: tuple[int, int], target: tuple[int, int]) -> Float[Tensor, "d_model d_model"]:
        """The whole Jacobian from one (layer, position) to another, [what leaves, what enters]: d_model tangents, of which only positions
        between the two are carried."""
        (start, at), (stop, to) = source, target
        first, last = (at, to + 1) if self.model.config.causal else (0, len(self))
        width = self.model.config.d_model
        unit = torch.eye(
            width, device=self.entering[0].device, dtype=torch.promote_types(self.model.dtype, torch.float32)
        )
        placed = unit.new_zeros(width, last - first, width)
        placed[:, at - first] = unit
        return self.push(placed, first, start, stop)[:, to - first].mT

    def _check(self, first: int, count: int) -> None:
        if not self.model.config.causal and (first or count != len(self)):
            raise ConfigError("Linearised: with bidirectional attention vectors at all positions are needed.")

    def _block(self, layer: int) -> LinearBlock:
        """Kept for the next time, where all blocks together are small."""
        if layer in self._blocks:
            return self._blocks[layer]
        config = self.model.config
        block = LinearBlock(self.model, layer, self.entering[layer])
        each = 8 * config.d_model + 2 * config.d_mlp + 3 * config.n_heads * (config.d_head + len(self))
        if config.n_layers * len(self) * each <= LARGEST:
            self._blocks[layer] = block
        return block

    def _parts(self, vectors: Vectors, down_to: int | None = None) -> Sequence[Tensor]:
        """As many vectors as a block takes at once."""
        config = self.model.config
        count = vectors.shape[1] if down_to is None else max(len(self) - down_to, vectors.shape[1])
        pairs = config.n_heads * vectors.shape[1] * len(self)
        size = count * (4 * config.d_model + 2 * config.d_mlp) + 3 * pairs
        return torch.split(vectors, max(1, LARGEST // size))
