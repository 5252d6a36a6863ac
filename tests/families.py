"""Small random models of each family as `transformers` builds and saves them, and their arithmetic at full precision."""

import math
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import nn

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 50}
GROUPED = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 40}
LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 100.0,
}  # fmt: skip
NEO = {"hidden_size": 16, "num_heads": 4, "vocab_size": 50, "max_position_embeddings": 40, "num_layers": 4}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_embd": 16, "n_head": 4, "n_layer": 3, "n_positions": 40, "vocab_size": 50}),
    "gpt2 untied": (
        "GPT2", {"n_embd": 16, "n_head": 4, "n_layer": 3, "n_positions": 40, "vocab_size": 50, "tie_word_embeddings": False}
    ),
    "gpt_neo": ("GPTNeo", {**NEO, "attention_types": [[["global", "local"], 2]], "window_size": 4}),
    "gpt_neo all local": ("GPTNeo", {**NEO, "attention_types": [[["local"], 4]], "window_size": 3, "intermediate_size": 20}),
    "gpt_neox": ("GPTNeoX", {**SIZES, "max_position_embeddings": 40, "rotary_pct": 0.5}),
    "gpt_neox sequential, tied": (
        "GPTNeoX",
        {**SIZES, "max_position_embeddings": 40, "use_parallel_residual": False, "tie_word_embeddings": True, "rotary_pct": 1.0},
    ),
    "gpt_neox without attention biases": ("GPTNeoX", {**SIZES, "max_position_embeddings": 40, "attention_bias": False, "rotary_pct": 0.5}),
    "llama": ("Llama", {**GROUPED, "tie_word_embeddings": True}),
    "llama untied, with biases": ("Llama", {**GROUPED, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    "llama scaled as llama3": ("Llama", {**GROUPED, "rope_parameters": LLAMA3}),
    "llama scaled linearly, wide heads": (
        "Llama", {**GROUPED, "head_dim": 8, "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1000.0}}
    ),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": 5}),
    "mistral without a window": ("Mistral", {**GROUPED, "sliding_window": None, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {**GROUPED, "tie_word_embeddings": True}),
    "qwen2 untied, windowed": ("Qwen2", {**GROUPED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 8}),
    "qwen3 tied, with biases": ("Qwen3", {**GROUPED, "head_dim": 8, "attention_bias": True, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", {**GROUPED, "head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 11}),
    "gemma2 without caps": (
        "Gemma2", {**GROUPED, "head_dim": 8, "attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": 8}
    ),
    "gemma3": ("Gemma3Text", {**GROUPED, "head_dim": 8, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"] * 2}),
    "gemma3 scaled": (
        "Gemma3Text",
        {
            **GROUPED, "head_dim": 8, "sliding_window": 4,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
            },
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "olmo2": ("Olmo2", GROUPED),
    "olmo2 tied, with biases": ("Olmo2", {**GROUPED, "attention_bias": True, "tie_word_embeddings": True}),
}  # fmt: skip


def theirs(kind: str, seed: int = 0) -> nn.Module:
    """A random model of `transformers`, with weights large enough that every part matters."""
    name, options = KINDS[kind]
    special = {} if name == "GPT2" else {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    config = getattr(transformers, f"{name}Config")(**options, **special)
    kind = "GPT2LMHeadModel" if name == "GPT2" else f"{name.removesuffix('Text')}ForCausalLM"
    model = getattr(transformers, kind)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
            else:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (0.5 if "embed" in parameter else 0.3))
    model.requires_grad_(False)
    return model


def _rates(config: Any, layer_type: str | None, dims: int) -> torch.Tensor:
    said = config.rope_parameters if layer_type is None else config.rope_parameters[layer_type]
    rates = []
    for pair in range(dims // 2):
        rate = said["rope_theta"] ** (-2 * pair / dims)
        if said["rope_type"] == "linear":
            rate /= said["factor"]
        if said["rope_type"] == "llama3":  # as its authors write it, by wavelength
            context, low, high = (
                said[name] for name in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
            )
            wavelength = 2 * math.pi / rate
            smooth = (context / wavelength - low) / (high - low)
            if wavelength > context / low:
                rate /= said["factor"]
            elif wavelength > context / high:
                rate = (1 - smooth) * rate / said["factor"] + smooth * rate
        rates.append(rate)
    return torch.tensor(rates, dtype=torch.float64)


@contextmanager
def full_precision(model: nn.Module, monkeypatch: Any):
    """`transformers` computes norms, angles, softmax and GPT-Neo's scores in float32 whatever the weights are: here in float64."""
    for module in model.modules():
        kind = type(module).__name__
        if kind.endswith("RMSNorm"):
            gain, eps = (1 + module.weight if "Gemma" in kind else module.weight), getattr(module, "eps", None)
            eps = module.variance_epsilon if eps is None else eps

            def normed(x, gain=gain, eps=eps):
                return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain

            module.forward = normed
        if kind.endswith("RotaryEmbedding"):

            def turns(x, position_ids, layer_type=None, config=model.config):
                head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
                said = config.rope_parameters
                dims = int(head * (said.get("partial_rotary_factor", 1.0) if layer_type is None else 1.0))
                angles = position_ids[..., None] * _rates(config, layer_type, dims)
                angles = torch.cat([angles, angles], -1)
                return angles.cos(), angles.sin()

            module.forward = turns
    softmax, to = nn.functional.softmax, torch.Tensor.to

    def wide_softmax(x, dim=None, dtype=None, **options):
        return softmax(x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype, **options)

    def wide_to(self, *args, **options):
        narrow = self.dtype == torch.float64 and torch.float32 in (*args, *options.values())
        return self if narrow else to(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "softmax", wide_softmax)
        patch.setattr(torch.Tensor, "to", wide_to)
        yield
