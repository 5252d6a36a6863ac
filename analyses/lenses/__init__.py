"""What the residual stream says at each layer, read through the unembedding."""

from analyses.lenses.logit import logit_lens

__all__ = ["logit_lens"]
