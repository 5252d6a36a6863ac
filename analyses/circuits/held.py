"""What reaches readers from a sender where every other head is held: along the stream, and through the MLPs between or past them.

With the heads held nothing passes from one position to another, so that what is moved is known position by position, without a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor, nn

from analyses.circuits.edges import Destination, Source
from analyses.circuits.runs import Batch
from interp.config import ModelConfig
from interp.decompose import frozen_norm
from interp.model import Block, Transformer
from interp.names import MLP_INPUT, block_name
from interp.norms import Norm
from interp.sweep.inputs import is_input, needed_for, weights


@dataclass(frozen=True)
class Reader:
    """Receivers that read alike: one part of some heads of a layer, an MLP, or the logits.

    Args:
        one: of them.
        heads: all of theirs; None of an MLP or the logits.
        freeze: whether the norm through which they read keeps the scale that it had.
    """

    one: Destination
    heads: list[int] | None
    freeze: bool

    @classmethod
    def all(cls, model: Transformer, receivers: Sequence[Destination], freeze: bool) -> "list[Reader]":
        """Of all receivers, in the order in which they read."""
        together: dict[tuple[int, str], list[Destination]] = {}
        for receiver in receivers:
            together.setdefault((receiver.read, receiver.part), []).append(receiver)
        return [
            cls(
                some[0],
                None if some[0].head is None else [cast(int, receiver.head) for receiver in some],
                freeze and _norm(model, some[0]) is not None,
            )
            for _, some in sorted(together.items())
        ]

    @property
    def read(self) -> int:
        """When, see `Destination`."""
        return self.one.read

    def changed(self, config: ModelConfig) -> list[str]:
        """What a sweep changes: the input; where the norm behind it keeps its scale, what the reader makes of what it reads."""
        layer, part = self.one.layer, self.one.part
        if not self.freeze:
            return [self.one.input_name(config)]
        if layer is None:
            return ["ln_final.hook_out"]
        if self.heads is not None:
            return [block_name(layer, f"attn.hook_{part}")]
        gated = ["mlp.hook_pre_linear"] if config.mlp == "gated" else []
        return [block_name(layer, point) for point in ("mlp.hook_pre", *gated)]

    def width(self, config: ModelConfig) -> int:
        """Numbers at each position of what is changed."""
        if not self.freeze or self.one.layer is None:
            return config.d_model
        return config.d_mlp * len(self.changed(config)) if self.heads is None else config.d_head * len(self.heads)


class Held:
    """Runs in which heads are held.

    Args:
        through_mlps: whether MLPs are computed anew; else they are held too.
        freeze: whether the norms of MLPs keep the scales that they had in these runs.
        max_bytes: bound on what MLPs compute at once.
    """

    def __init__(
        self,
        model: Transformer,
        batch: Batch,
        readers: Sequence[Reader],
        through_mlps: bool,
        freeze: bool,
        max_bytes: int,
    ) -> None:
        self._model, self._batch, self._readers, self._max_bytes = model, batch, readers, max_bytes
        self._through, self._freeze = through_mlps and model.config.mlp != "none", freeze
        names = {name for name in self._names() if name in model.hook_points}
        self._values: dict[str, Tensor] = {}
        if names:
            real = model.check_tokens(batch.tokens)
            with model.capture([name for name in model.hook_points if name in names]) as self._values:
                model.ln_final(model.run_blocks(model.embed(batch.tokens), real=real))

    def _names(self) -> list[str]:
        """The hook points of which the values in these runs are needed."""
        config, found = self._model.config, list[str]()
        for reader in self._readers:
            if reader.freeze:
                found.append(_scale(reader.one))
            if reader.read > self._readers[0].read:
                found += [self._stands(name) for name in reader.changed(config)]
        if self._through:
            for layer in range(min(config.n_layers, self._readers[-1].read // 2)):
                found.append(self._stands(block_name(layer, MLP_INPUT)))
                found += [block_name(layer, f"{norm}.hook_scale") for norm in ("ln2", "ln2_post") if self._freeze]
        return found

    def _stands(self, name: str) -> str:
        """The hook point that has the value of what a sweep changes."""
        return needed_for(self._model, name)[0] if is_input(name) else name

    def reaching(
        self,
        moved: Float[Tensor, "sender place d_model"],
        senders: Sequence[Source],
        places: Bool[Tensor, "pair position"],
    ) -> dict[int, Float[Tensor, "sender place d_model"]]:
        """How far the stream has moved when it is read, by `Destination.read` of the readers, under each sender by itself.

        Args:
            moved: how far what each writes does, 0 elsewhere than at these places.
            senders: in the order in which they write.
            places: of the pairs' tokens, in their order.
        """
        config, stream = self._model.config, torch.zeros_like(moved)
        reads, found = {reader.read for reader in self._readers}, {}
        for step in range(max(reads) + 1):
            if step in reads:
                found[step] = stream.clone()
            if self._through and step and step % 2 == 0 and step < max(reads):
                at = step - 1 if config.parallel else step
                before = sum(sender.written < at for sender in senders)
                if before:
                    stream[:before] += self._anew(step // 2 - 1, stream[:before], places)
            for number, sender in enumerate(senders):
                if sender.written == step:
                    stream[number] = moved[number]
        return found

    def _anew(
        self, layer: int, moved: Float[Tensor, "sender place d_model"], places: Bool[Tensor, "pair position"]
    ) -> Float[Tensor, "sender place d_model"]:
        """How far what an MLP writes moves where what it reads has; exactly 0 where that has not."""
        block, config = cast(Block, self._model.blocks[layer]), self._model.config
        assert block.mlp is not None
        read = self._values[self._stands(block_name(layer, MLP_INPUT))][places]
        wrote = self._batch.own.by(Source(f"m{layer}", layer))[places]
        scales = [
            self._values[name][places] if name in self._values else None
            for name in (block_name(layer, f"{norm}.hook_scale") for norm in ("ln2", "ln2_post"))
        ]
        sender, place = (moved != 0).any(-1).nonzero(as_tuple=True)
        made = torch.zeros_like(moved)
        size = max(1, self._max_bytes // ((3 * config.d_mlp + 6 * config.d_model) * moved.element_size()))
        for some, there in zip(torch.split(sender, size), torch.split(place, size), strict=True):
            before, behind = (None if scale is None else scale[there] for scale in scales)
            new = block.mlp(_normed(block.ln2, read[there] + moved[some, there], before)[None])[0]
            made[some, there] = _normed(block.ln2_post, new, behind) - wrote[there]
        return made

    def seen(
        self,
        reader: Reader,
        moved: Float[Tensor, "sender place d_model"],
        places: Bool[Tensor, "pair position"],
    ) -> dict[str, Float[Tensor, "sender place ..."]]:
        """How far what a sweep changes moves, by its name, where the stream that is read has moved."""
        names = reader.changed(self._model.config)
        if not reader.freeze:
            return {names[0]: moved if reader.heads is None else moved[:, :, None]}
        norm = _norm(self._model, reader.one)
        assert norm is not None
        read = frozen_norm(norm, moved, self._values[_scale(reader.one)][places]).to(moved.dtype)
        if reader.one.layer is None:
            return {names[0]: read}
        block = cast(Block, self._model.blocks[reader.one.layer])
        if reader.heads is not None:
            weight = weights(block.attn, reader.one.part)[reader.heads]
            return {names[0]: einsum(read, weight, "s p d, h d e -> s p h e")}
        assert block.mlp is not None
        maps = [block.mlp.input] if block.mlp.gate is None else [block.mlp.gate, block.mlp.input]
        return {name: read @ one.weight.mT for name, one in zip(names, maps, strict=True)}

    def value(self, reader: Reader, name: str, pair: int) -> Float[Tensor, "position ..."]:
        """What a sweep changes, as it is in these runs, of a pair; of a reader that is not among the first."""
        value = self._values[self._stands(name)][pair, : self._batch.lengths[pair]]
        if reader.heads is None:
            return value
        return value[:, reader.heads] if reader.freeze else value[:, None]


def _norm(model: Transformer, reader: Destination) -> Norm | None:
    """Through which a reader reads the stream; None where there is none."""
    if reader.layer is None:
        norm: nn.Module = model.ln_final
    else:
        block = cast(Block, model.blocks[reader.layer])
        norm = block.ln2 if reader.part == "mlp" else block.ln1
    return norm if isinstance(norm, Norm) else None


def _scale(reader: Destination) -> str:
    """The hook point of that norm's scale."""
    if reader.layer is None:
        return "ln_final.hook_scale"
    return block_name(reader.layer, f"{'ln2' if reader.part == 'mlp' else 'ln1'}.hook_scale")


def _normed(norm: nn.Module, x: Tensor, scale: Tensor | None) -> Tensor:
    """What a norm makes of a stream; where its scale is given, at that. The stream itself where there is none."""
    if not isinstance(norm, Norm):
        return x
    if scale is None:
        return norm.fused(x)
    out = frozen_norm(norm, x, scale)
    return (out if norm.bias is None else out + norm.bias).to(x.dtype)
