"""The shape of a model."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from interp.errors import ConfigError

Activation = Literal["gelu", "gelu_new", "relu", "silu"]
Positions = Literal["learned", "sinusoidal", "rotary", "alibi", "none"]
Norm = Literal["layernorm", "rmsnorm", "none"]
Placement = Literal["pre", "post"]
MLPKind = Literal["plain", "gated", "none"]

CHOICES = {"activation": Activation, "positions": Positions, "norm": Norm, "norm_placement": Placement, "mlp": MLPKind}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture of a transformer language model. The defaults are those of GPT-2 (Radford et al. 2019).

    Args:
        n_layers: blocks.
        d_model: width of the residual stream.
        n_heads: attention heads in each block.
        d_head: width of a head; GPT-2 has `d_model // n_heads`.
        d_mlp: neurons of each MLP; GPT-2 has `4 * d_model`.
        n_ctx: longest context in tokens.
        d_vocab: number of token ids.
        activation: of the MLP: `gelu` (exact), `gelu_new` (its tanh approximation), `relu` or `silu`.
        positions: how the model knows them: `learned` or `sinusoidal` (Vaswani et al. 2017) embeddings added to the token's,
            `rotary` queries and keys (Su et al. 2021, arXiv 2104.09864), `alibi`, a penalty on distance in the scores
            (Press et al. 2021, arXiv 2108.12409), or `none`.
        norm: `layernorm` (Ba et al. 2016), `rmsnorm` (Zhang and Sennrich 2019, arXiv 1910.07467) or `none`.
        norm_placement: `pre`, before attention and MLP, with a final norm before the unembedding; or `post`, after each
            addition to the stream, without a final norm (Vaswani et al. 2017).
        norm_eps: added to the variance in a norm.
        mlp: `plain`, `gated` (Shazeer 2020, arXiv 2002.05202) or `none`, which leaves attention only.
        n_kv_heads: heads that have keys and values of their own, shared by groups of query heads (Ainslie et al. 2023,
            arXiv 2305.13245); None is one for each head.
        tied: whether the unembedding is the embedding, transposed.
        bias: whether linear maps and layer norms have biases.
        unembed_bias: whether the logits have a bias of their own.
        causal: whether a position sees only itself and earlier ones; False is bidirectional.
        rotary_base: slowest wavelength of rotary positions is about `2 pi rotary_base`.
        init_std: standard deviation of freshly initialised weights.

    Raises:
        ConfigError: sizes, choices or their combination that cannot be.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    n_ctx: int
    d_vocab: int
    activation: Activation = "gelu_new"
    positions: Positions = "learned"
    norm: Norm = "layernorm"
    norm_placement: Placement = "pre"
    norm_eps: float = 1e-5
    mlp: MLPKind = "plain"
    n_kv_heads: int | None = None
    tied: bool = True
    bias: bool = True
    unembed_bias: bool = False
    causal: bool = True
    rotary_base: float = 10000.0
    init_std: float = 0.02

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"ModelConfig.{field.name} must be a positive whole number, got {value!r}.")
            if field.type is float and not 0 < value < float("inf"):
                raise ConfigError(f"ModelConfig.{field.name} must be positive, got {value!r}.")
            if field.type is bool and not isinstance(value, bool):
                raise ConfigError(f"ModelConfig.{field.name} must be True or False, got {value!r}.")
        for name, choice in CHOICES.items():
            if getattr(self, name) not in get_args(choice):
                valid = ", ".join(get_args(choice))
                raise ConfigError(f"ModelConfig.{name} must be one of {valid}, got {getattr(self, name)!r}.")
        groups = self.n_kv_heads
        if groups is not None and (not isinstance(groups, int) or groups < 1 or self.n_heads % groups):
            raise ConfigError(f"ModelConfig.n_kv_heads must divide n_heads = {self.n_heads}, got {groups!r}.")
        if self.positions == "rotary" and self.d_head % 2:
            raise ConfigError(f"ModelConfig.d_head must be even for rotary positions, got {self.d_head}.")

    @property
    def kv_heads(self) -> int:
        """Heads that have keys and values of their own."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def has_position_embedding(self) -> bool:
        """Whether positions are told by vectors added to the stream."""
        return self.positions in ("learned", "sinusoidal")

    @property
    def has_final_norm(self) -> bool:
        """Whether a norm stands before the unembedding."""
        return self.norm != "none" and self.norm_placement == "pre"

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dictionary, for provenance."""
        return asdict(self)
