"""GGUF files of random models, written with the library's writer as llama.cpp's converter writes them."""

from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Kind
from tokenizers import pre_tokenizers

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "vocab_size": 300,
    "initializer_range": 0.2,
}
ROPE = {"rope_type": "default", "rope_theta": 5000.0}

CONFIGS = {
    "llama": lambda **more: transformers.LlamaConfig(**SIZES | HEADS | {"rope_parameters": dict(ROPE)} | more),
    "qwen2": lambda **more: transformers.Qwen2Config(**SIZES | HEADS | {"rope_parameters": dict(ROPE)} | more),
    # transformers reads no size of a head from a file of Qwen 3's, and takes 128.
    "qwen3": lambda **more: transformers.Qwen3Config(
        **SIZES | HEADS | {"head_dim": 128, "rope_parameters": dict(ROPE)} | more
    ),
    # nor Gemma's scale of queries, for which it takes 256.
    "gemma2": lambda **more: transformers.Gemma2Config(
        **SIZES | HEADS | {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 6} | more
    ),
    "gemma3": lambda **more: transformers.Gemma3TextConfig(
        **SIZES
        | HEADS
        | {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 6, "num_hidden_layers": 7}
        | more
    ),
    "gpt2": lambda **more: transformers.GPT2Config(
        n_embd=64, n_head=4, n_layer=3, n_positions=1024, vocab_size=300, initializer_range=0.2, **more
    ),
    "gptneox": lambda **more: transformers.GPTNeoXConfig(
        **SIZES | {"num_attention_heads": 4, "max_position_embeddings": 128} | more
    ),
}
"""A small model of each architecture, by its name in the file."""


def bytes_alone() -> dict[str, object]:
    """Entries of a vocabulary whose tokens are single bytes, but for one pair that no text has."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {"model": "gpt2", "tokens": [*alphabet, "\u0100\u0101"], "merges": ["\u0100 \u0101"]}


def model(architecture: str, seed: int = 0, **more: object) -> torch.nn.Module:
    """A `transformers` model at random, all of whose weights matter."""
    torch.manual_seed(seed)
    made = transformers.AutoModelForCausalLM.from_config(CONFIGS[architecture](**more)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.2)
    return made


def write(
    path: Path,
    architecture: str,
    source: torch.nn.Module,
    *,
    kind: Kind = Kind.F32,
    tokenizer: dict[str, object] | None = None,
    changes: dict[str, object] | None = None,
    drop: tuple[str, ...] = (),
    extra: dict[str, np.ndarray] | None = None,
    raw: dict[str, tuple[np.ndarray, Kind]] | None = None,
) -> Path:
    """Write a model as a GGUF file.

    Args:
        kind: how matrices are stored; vectors are always float32.
        tokenizer: entries `tokenizer.ggml.*`.
        changes: of the metadata; None leaves a key out.
        drop: tensors that are left out, by the file's name.
        extra: further tensors.
        raw: blocks of tensors that stand in place of the model's.
    """
    writer = gguf.GGUFWriter(path, architecture)
    entries = metadata(architecture, source.config) | {
        f"tokenizer.ggml.{key}": value for key, value in (tokenizer or {}).items()
    }
    for key, value in (entries | (changes or {})).items():
        if value is not None:
            add(writer, key, value)
    raw = raw or {}
    for name, value in (tensors(architecture, source) | (extra or {})).items():
        if name in drop or name in raw:
            continue
        if value.ndim == 1 or kind == Kind.F32:
            writer.add_tensor(name, value)
        else:
            writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
    for name, (blocks, raw_kind) in raw.items():
        writer.add_tensor(name, blocks, raw_dtype=raw_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    """A key with its value, of the type that llama.cpp gives to such."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def metadata(architecture: str, config: transformers.PreTrainedConfig) -> dict[str, object]:
    """What llama.cpp's converter says of the architecture."""
    heads, width = config.num_attention_heads, config.hidden_size
    d_head = getattr(config, "head_dim", None) or width // heads
    entries: dict[str, object] = {
        "general.name": "tiny",
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": width,
        "attention.head_count": heads,
        "feed_forward_length": getattr(config, "intermediate_size", None) or 4 * width,
    }
    if architecture in ("gpt2", "gptneox"):
        eps = getattr(config, "layer_norm_epsilon", None) or config.layer_norm_eps
        entries["attention.layer_norm_epsilon"] = eps
    else:
        entries |= {
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "vocab_size": config.vocab_size,
        }
    if architecture == "gptneox":
        rope = config.rope_parameters
        entries["rope.dimension_count"] = int(rope["partial_rotary_factor"] * d_head)
        entries["rope.freq_base"] = float(rope["rope_theta"])
        entries["use_parallel_residual"] = config.use_parallel_residual
    if architecture in ("llama", "qwen2", "qwen3"):
        entries["rope.freq_base"] = float(config.rope_parameters["rope_theta"])
    if architecture == "llama":
        entries["rope.dimension_count"] = d_head
    if architecture in ("qwen3", "gemma2", "gemma3"):
        entries |= {"attention.key_length": d_head, "attention.value_length": d_head}
    if architecture in ("gemma2", "gemma3"):
        entries["attention.sliding_window"] = config.sliding_window
    if architecture == "gemma2":
        entries["attn_logit_softcapping"] = float(config.attn_logit_softcapping)
        entries["final_logit_softcapping"] = float(config.final_logit_softcapping)
    if architecture == "gemma3":
        entries["rope.freq_base"] = float(config.rope_parameters["full_attention"]["rope_theta"])
    return {k if k.startswith("general.") else f"{architecture}.{k}": v for k, v in entries.items()}


def tensors(architecture: str, source: torch.nn.Module) -> dict[str, np.ndarray]:
    """The weights under the names, and in the layouts, of the file. Names come from the library's own table."""
    config = source.config
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    found = {}
    for key, value in source.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert name is not None, key
        found[name] = np.ascontiguousarray(_stored(architecture, name, value, config).float().numpy())
    return found


def _stored(architecture: str, name: str, value: torch.Tensor, config: transformers.PreTrainedConfig) -> torch.Tensor:
    if architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        return value.reshape(heads, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
    if architecture in ("gemma2", "gemma3") and name.endswith("norm.weight"):
        return value + 1
    if architecture == "gpt2" and value.dim() == 2 and name.startswith("blk."):
        return value.T
    if architecture == "gptneox" and ".attn_qkv." in name:
        by_head = value.reshape(config.num_attention_heads, 3, -1, *value.shape[1:])
        return by_head.transpose(0, 1).reshape(value.shape)
    return value
