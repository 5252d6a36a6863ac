"""What a tuned lens is trained on: the stream entering each layer, and what the model predicts; computed, or read from a collection."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.activations import Activations
from interp.errors import ResultError
from interp.metrics import log_probabilities
from interp.model import Transformer
from interp.names import block_name
from interp.streams import streams


class Targets:
    """Rows to train on.

    Args:
        collected: where the streams are read from; None runs the model.
    """

    def __init__(
        self, model: Transformer, tokens: Int[Tensor, "row position"], collected: Activations | None = None
    ) -> None:
        self.model, self.tokens, self.collected = model, tokens, collected
        if collected is not None:
            self._names = names_of(model, collected)

    def __len__(self) -> int:
        return len(self.tokens)

    @torch.no_grad()
    def of(self, rows: Sequence[int]) -> tuple[list[Tensor], Float[Tensor, "place vocab"]]:
        """The stream entering each layer [place, d_model], and the model's own log-probabilities."""
        if self.collected is None:
            every = [stream.flatten(0, 1) for stream in streams(self.model, self.tokens[list(rows)])]
        else:
            every = self._read(self.collected, rows)
        *entering, final = every
        return entering, log_probabilities(self.model.unembed(final[None])[0])

    def _read(self, collected: Activations, rows: Sequence[int]) -> list[Tensor]:
        model, device = self.model, self.tokens.device
        places = torch.from_numpy(collected.places[list(rows)]).to(device)
        there = places >= 0
        found = []
        for name in self._names:
            if name is None:  # the embedding, which the tokens give
                embedded = model.embed(self.tokens[list(rows)])
                index = places.clamp(min=0)[..., None].expand(-1, -1, embedded.shape[-1])
                values = embedded.gather(1, index)
            else:
                values = collected.read(name, rows).to(device, model.dtype)
            found.append(values[there])
        return found


def names_of(model: Transformer, collected: Activations) -> list[str | None]:
    """The hook point that holds each stream, from the one entering block 0 to the one leaving the last; None where it is embedded anew.

    Raises ResultError where one of them was not collected, or the activations are another model's.
    """
    collected.check_model(model)
    found: list[str | None] = []
    for layer in range(model.config.n_layers + 1):
        ways = [block_name(layer, "hook_resid_pre")] if layer < model.config.n_layers else []
        ways += [block_name(layer - 1, "hook_resid_post")] if layer else []
        name = next((way for way in ways if way in collected.names), None)
        if name is None and layer:
            raise ResultError(
                f"{collected.path} has no stream entering layer {layer}; collect blocks.*.hook_resid_post to train a lens on it."
                if layer < model.config.n_layers
                else f"{collected.path} has no stream leaving the last block; collect blocks.*.hook_resid_post to train a lens on it."
            )
        found.append(name)
    return found
