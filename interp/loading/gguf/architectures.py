"""What llama.cpp made of each family: how a file's metadata and tensors become a config.json and tensors as `transformers` has them.

The family's own module (`interp.loading.families`) does the rest, as for a checkpoint directory. Keys, names and layouts are those that
llama.cpp's `convert_hf_to_gguf.py` writes and llama.cpp reads; defaults are llama.cpp's.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interp.errors import CheckpointError
from interp.loading.gguf.container import Container
from interp.loading.gguf.fields import Fields
from interp.loading.gguf.rotary import FACTORS, rotary_scaling

Settings = dict[str, Any]
Change = Callable[[Tensor, Settings], Tensor]
"""What brings a tensor back to the layout of `transformers`, given the settings."""

LARGEST_GEMMAS = {"gemma2": 46, "gemma3": 62}
"""How many layers those two have whose queries are divided by the root of width over heads and not of d_head. No key says so."""

D_HEAD_TOO = (
    "attention.value_length",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "rope.dimension_count",
    "rope.dimension_count_swa",
)


def _decoder(fields: Fields, model_type: str, **more: Any) -> Settings:
    """What all that descend from Llama have."""
    heads, width = fields.whole("attention.head_count"), fields.whole("embedding_length")
    d_head = fields.whole("attention.key_length", width // heads)
    for key in D_HEAD_TOO:
        fields.same(key, d_head)
    return {
        "model_type": model_type,
        "hidden_size": width,
        "num_hidden_layers": fields.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.whole("attention.head_count_kv", heads),
        "head_dim": d_head,
        "intermediate_size": fields.whole("feed_forward_length"),
        "max_position_embeddings": fields.whole("context_length"),
        "rms_norm_eps": fields.number("attention.layer_norm_rms_epsilon"),
        "hidden_act": "silu",
        "rope_theta": fields.number("rope.freq_base", 10000.0),
        "rope_scaling": rotary_scaling(fields, d_head),
        **more,
    }


def _llama(fields: Fields) -> Settings:
    tensors = fields.container.tensors
    biases = {"attention_bias": "blk.0.attn_q.bias" in tensors, "mlp_bias": "blk.0.ffn_up.bias" in tensors}
    window = fields.optional("attention.sliding_window")
    if window is None:
        return _decoder(fields, "llama", **biases)
    return _decoder(fields, "mistral", sliding_window=window)


def _gemma(fields: Fields, model_type: str, period: int) -> Settings:
    settings = _decoder(fields, model_type, hidden_activation="gelu_pytorch_tanh")
    del settings["hidden_act"]
    layers = settings["num_hidden_layers"]
    pattern = fields.optional("attention.sliding_window_pattern") or period
    if isinstance(pattern, int):  # every so many layers one sees everything
        pattern = [(layer + 1) % pattern != 0 for layer in range(layers)]
    largest = layers == LARGEST_GEMMAS[fields.architecture]
    scale = settings["hidden_size"] / settings["num_attention_heads"] if largest else settings["head_dim"]
    given = fields.optional("attention.scale")
    return settings | {
        "query_pre_attn_scalar": scale if given is None else given**-2,
        "sliding_window": fields.whole("attention.sliding_window", 4096),
        "layer_types": ["sliding_attention" if local else "full_attention" for local in pattern],
    }


def _gemma2(fields: Fields) -> Settings:
    return _gemma(fields, "gemma2", 2) | {
        "attn_logit_softcapping": fields.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": fields.number("final_logit_softcapping", 30.0),
    }


def _gemma3(fields: Fields) -> Settings:
    return _gemma(fields, "gemma3_text", 6) | {
        "rope_local_base_freq": fields.number("rope.freq_base_swa", 10000.0),
        "attn_logit_softcapping": fields.optional("attn_logit_softcapping"),
        "final_logit_softcapping": fields.optional("final_logit_softcapping"),
    }


def _gpt2(fields: Fields) -> Settings:
    heads, width = _plain_heads(fields)
    return {
        "model_type": "gpt2",
        "n_embd": width,
        "n_layer": fields.whole("block_count"),
        "n_head": heads,
        "n_inner": fields.whole("feed_forward_length"),
        "n_positions": fields.whole("context_length"),
        "layer_norm_epsilon": fields.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
    }


def _gptneox(fields: Fields) -> Settings:
    heads, width = _plain_heads(fields)
    turned = fields.whole("rope.dimension_count", width // heads)
    return {
        "model_type": "gpt_neox",
        "hidden_size": width,
        "num_hidden_layers": fields.whole("block_count"),
        "num_attention_heads": heads,
        "intermediate_size": fields.whole("feed_forward_length"),
        "max_position_embeddings": fields.whole("context_length"),
        "layer_norm_eps": fields.number("attention.layer_norm_epsilon"),
        "hidden_act": "gelu",
        "rotary_pct": turned * heads / width,
        "rotary_emb_base": fields.number("rope.freq_base", 10000.0),
        "use_parallel_residual": fields.flag("use_parallel_residual", True),
    }


def _plain_heads(fields: Fields) -> tuple[int, int]:
    """How many heads there are, and the width they share; none shares another's keys or has a size of its own."""
    heads, width = fields.whole("attention.head_count"), fields.whole("embedding_length")
    fields.same("attention.head_count_kv", heads)
    for key in ("attention.key_length", "attention.value_length"):
        fields.same(key, width // heads)
    return heads, width


def _interleave(value: Tensor, settings: Settings, heads: str) -> Tensor:
    """Rows that turn together stand side by side, by head, where `transformers` has them half a head apart."""
    count = settings[heads]
    if value.shape[0] % (2 * count):  # misshapen: it will be refused, by name, where it meets the configuration
        return value
    by_pair = value.view(count, value.shape[0] // count // 2, 2, *value.shape[1:])
    return by_pair.transpose(1, 2).reshape(value.shape)


def _queries(value: Tensor, settings: Settings) -> Tensor:
    return _interleave(value, settings, "num_attention_heads")


def _keys(value: Tensor, settings: Settings) -> Tensor:
    return _interleave(value, settings, "num_key_value_heads")


def _by_head(value: Tensor, settings: Settings) -> Tensor:
    """Queries of all heads, then keys, then values, where `transformers` has the three of each head together."""
    heads = settings["num_attention_heads"]
    if value.shape[0] % (3 * heads):
        return value
    return value.view(3, heads, -1, *value.shape[1:]).transpose(0, 1).reshape(value.shape)


def _less_one(value: Tensor, settings: Settings) -> Tensor:
    """Gemma's gain is 1 + w, and the file has it whole."""
    return value - 1


def _transposed(value: Tensor, settings: Settings) -> Tensor:
    """GPT-2's maps are kept as [in, out]."""
    return value.mT if value.dim() == 2 else value


@dataclass(frozen=True)
class Architecture:
    """How one architecture's file becomes a checkpoint of `transformers`.

    Args:
        settings: config.json of the metadata, but for the vocabulary and what is tied.
        top, block: names of tensors without `.weight` and `.bias`, the file's and those of `transformers`; of a block after `blk.L.`.
        blocks: what stands before a block's number in `transformers`. As the families take them, names are without the prefix of
            the whole (`model.`).
        changes: of layout, by the file's name.
    """

    settings: Callable[[Fields], Settings]
    top: Mapping[str, str]
    block: Mapping[str, str]
    blocks: str
    changes: Mapping[str, Change] = field(default_factory=dict)


TOP = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head"}
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
GEMMA_BLOCK = BLOCK | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
GEMMA_NORMS = ("output_norm", "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", *QK_NORMS)
GPT2_TOP = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f", "output": "lm_head"}
GPT2_BLOCK = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
GPTNEOX_TOP = {"token_embd": "embed_in", "output_norm": "final_layer_norm", "output": "embed_out"}
GPTNEOX_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "attention.query_key_value",
    "attn_output": "attention.dense",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}

ARCHITECTURES = {
    "llama": Architecture(_llama, TOP, BLOCK, "layers", {"attn_q": _queries, "attn_k": _keys}),
    "qwen2": Architecture(lambda fields: _decoder(fields, "qwen2"), TOP, BLOCK, "layers"),
    "qwen3": Architecture(lambda fields: _decoder(fields, "qwen3"), TOP, BLOCK | QK_NORMS, "layers"),
    "gemma2": Architecture(_gemma2, TOP, GEMMA_BLOCK, "layers", dict.fromkeys(GEMMA_NORMS, _less_one)),
    "gemma3": Architecture(_gemma3, TOP, GEMMA_BLOCK | QK_NORMS, "layers", dict.fromkeys(GEMMA_NORMS, _less_one)),
    "gpt2": Architecture(
        _gpt2, GPT2_TOP, GPT2_BLOCK, "h", dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_down"), _transposed)
    ),
    "gptneox": Architecture(_gptneox, GPTNEOX_TOP, GPTNEOX_BLOCK, "layers", {"attn_qkv": _by_head}),
}


def settings_of(container: Container) -> Settings:
    """A config.json of the file. Raises CheckpointError for an architecture, or a key of it, that is not supported."""
    name = container.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise CheckpointError(
            f"{container.path}: the architecture {name!r} is not supported. Supported: {', '.join(ARCHITECTURES)}."
        )
    if (parts := container.metadata.get("split.count")) not in (None, 0, 1):
        raise CheckpointError(
            f"{container.path} is one of {parts} parts of a model. Put them together: "
            "llama-gguf-split --merge FIRST_PART WHOLE."
        )
    if "token_embd.weight" not in container.tensors:
        raise CheckpointError(
            f"{container.path}: the tensor token_embd.weight is missing; this file holds no whole model."
        )
    fields = Fields(container, name)
    if not fields.flag("attention.causal", True):
        raise CheckpointError(
            f"{container.path}: {name}.attention.causal = False is not supported; only causal models are."
        )
    settings = ARCHITECTURES[name].settings(fields)
    fields.finish()
    return settings | {
        "vocab_size": container.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in container.tensors,
    }


class Weights(Mapping[str, Tensor]):
    """A file's tensors as `transformers` names and keeps them: matrices in the dtype asked for, vectors at least in float32. Each is made
    when it is asked for and not kept, so that no two copies of the model are ever in memory."""

    def __init__(self, container: Container, settings: Settings, dtype: torch.dtype) -> None:
        self._container, self._settings, self._dtype = container, settings, dtype
        self._architecture = ARCHITECTURES[container.metadata["general.architecture"]]
        self._stored = {self._name(name): name for name in container.tensors if not self._is_rotary(name)}

    def __getitem__(self, name: str) -> Tensor:
        stored = self._stored[name]
        # A family may compute with a vector (Gemma's 1 + w), which half precision would lose.
        vector = len(self._container.tensors[stored].shape) == 1
        precise = torch.promote_types(self._dtype, torch.float32)
        value = self._container.read(stored, precise if vector else self._dtype)
        change = self._architecture.changes.get(_parts(stored)[1])
        return value if change is None else change(value, self._settings)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def _is_rotary(self, stored: str) -> bool:
        """Frequencies that older files carry, and Llama 3's factors, which are a setting already."""
        return "rope_theta" in self._settings and (stored == FACTORS or ".attn_rot_embd" in stored)

    def _name(self, stored: str) -> str:
        number, name, kind = _parts(stored)
        known = self._architecture.top if number is None else self._architecture.block
        if name not in known:
            raise CheckpointError(f"{self._container.path}: the tensor {stored!r} is not part of this architecture.")
        return (
            f"{known[name]}.{kind}" if number is None else f"{self._architecture.blocks}.{number}.{known[name]}.{kind}"
        )


def _parts(stored: str) -> tuple[str | None, str, str]:
    """The block's number, the name, and weight or bias; what is none of a model's tensors is a name as a whole."""
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", stored)
    return found.groups() if found else (None, stored, "")  # type: ignore[return-value]
