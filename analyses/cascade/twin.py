"""The null that a measured cascade is compared with: the same architecture before any training."""

from interp.model import Transformer
from interp.whole_numbers import takes_whole


@takes_whole("seed")
def random_twin(model: Transformer, seed: int = 0) -> Transformer:
    """A model of the same shape, tokenizer, dtype and device at random initialisation (see `Transformer`)."""
    twin = Transformer(model.config, tokenizer=model.tokenizer, name=f"{model.name} at random init", seed=seed)
    return twin.to(device=model.device, dtype=model.dtype).requires_grad_(False).eval()
