"""What one reader of the stream reads, before its norm: changed there, it changes for that reader alone."""

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

from interp.config import ModelConfig
from interp.errors import HookError, nearest
from interp.head_weights import HeadWeights
from interp.hooks import Hooked, HookPoint, Points, attached_hooks
from interp.names import HEAD_INPUTS, MLP_INPUT, block_name, hook_axes, input_axes
from interp.norms import Norm


class Inputs:
    """The inputs of a block's heads (of queries, keys and values, each for itself) and of its MLP.

    Args:
        ln1, ln2: through which heads and MLP read; what is no norm leaves them as they are.
    """

    def __init__(
        self, points: Points, layer: int, attn: HeadWeights, ln1: nn.Module | None, ln2: nn.Module | None
    ) -> None:
        self._attn, self._ln1, self._ln2 = attn, ln1, ln2
        self._of_heads = [points[block_name(layer, name)] for name in HEAD_INPUTS]
        self._of_mlp = points[block_name(layer, MLP_INPUT)]

    def of_heads(self, x: Float[Tensor, "batch position d_model"]) -> Float[Tensor, "batch position qkv"] | None:
        """How far hooks move queries, keys and values, side by side as their map gives them; None where nobody listens."""
        if not any(point.active for point in self._of_heads):
            return None
        attn, moved = self._attn, []
        for point, weight in zip(self._of_heads, (attn.W_Q, attn.W_K, attn.W_V), strict=True):
            if point.active:
                own = point(x[:, :, None].expand(-1, -1, len(weight), -1))
                change = self.moved(x[:, :, None], own, late=False)
                moved.append(einsum(change, weight, "b p h d, h d e -> b p h e").flatten(2))
            else:
                moved.append(x.new_zeros(*x.shape[:2], weight.shape[0] * weight.shape[2]))
        return torch.cat(moved, dim=-1)

    def of_mlp(self, x: Float[Tensor, "batch position d_model"]) -> Float[Tensor, "batch position d_model"] | None:
        """How far hooks move what the MLP reads, after its norm; None where nobody listens."""
        if not self._of_mlp.active:
            return None
        own = x.view_as(x)  # a value of its own: its gradient is that of this reader, not of the whole stream
        return self.moved(x, self._of_mlp(own), late=True)

    def moved(self, before: Tensor, after: Tensor, *, late: bool) -> Tensor:
        """How far what a reader reads has moved, [..., d_model], where its own input has; exactly 0 where it has not.

        Args:
            late: the reader is the MLP, not a head.
        """
        norm = self._ln2 if late else self._ln1
        return norm.fused(after) - norm.fused(before) if isinstance(norm, Norm) else after - before


class ListeningToInputs(Hooked):
    """A model whose readers' inputs can be made hook points. It fills `all_points`, which has those too."""

    config: ModelConfig
    name: str
    all_points: Points

    def listen_to_inputs(self, *inputs: str) -> None:
        """Which inputs of single readers are hook points too: `hook_q_input`, `hook_k_input`, `hook_v_input`, by head, and `hook_mlp_in`.

        An input is the stream before the reader's norm; a change there leaves the stream to all others. None are at first, for a cache
        of all values would hold the stream once more for each head.

        Raises:
            HookError: an input that the model does not have, or hooks that are attached.
        """
        available = input_axes(self.config)
        if wrong := [name for name in inputs if name not in available]:
            raise HookError(
                f"listen_to_inputs: {wrong[0]!r} is no input of {self.name}. {nearest(wrong[0], available)}"
            )
        if attached := attached_hooks(self):
            raise HookError(f"listen_to_inputs: hooks are attached ({', '.join(attached[:3])}); choose before.")
        self.hook_points = {name: self.all_points[name] for name in hook_axes(self.config, inputs)}


def points_of(config: ModelConfig) -> Points:
    """Every hook point of a model of that shape, with the inputs of its readers."""
    return Points({name: HookPoint(name, axes) for name, axes in hook_axes(config, input_axes(config)).items()})
