"""The shape of a model."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from interp.errors import ConfigError

Activation = Literal["gelu", "gelu_new", "relu", "silu"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture of a GPT-2-style transformer (Radford et al. 2019): learned positions, pre-norm, tied unembedding.

    Args:
        n_layers: blocks.
        d_model: width of the residual stream.
        n_heads: attention heads in each block.
        d_head: width of a head; GPT-2 has `d_model // n_heads`.
        d_mlp: neurons of each MLP; GPT-2 has `4 * d_model`.
        n_ctx: longest context in tokens.
        d_vocab: number of token ids.
        activation: of the MLP. GPT-2 uses `gelu_new`, the tanh approximation.
        norm_eps: added to the variance in a layer norm.
        init_std: standard deviation of freshly initialised weights.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    n_ctx: int
    d_vocab: int
    activation: Activation = "gelu_new"
    norm_eps: float = 1e-5
    init_std: float = 0.02

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"ModelConfig.{field.name} must be a positive whole number, got {value!r}.")
        if self.activation not in get_args(Activation):
            raise ConfigError(
                f"ModelConfig.activation must be one of {', '.join(get_args(Activation))}, got {self.activation!r}."
            )
        for name in ("norm_eps", "init_std"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"ModelConfig.{name} must be positive, got {getattr(self, name)!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dictionary, for provenance."""
        return asdict(self)
