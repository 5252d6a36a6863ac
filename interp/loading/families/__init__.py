"""One file of tables for each family of models: how its configuration and its weights map onto ours, and back."""

from types import ModuleType

from interp.loading.families import (
    criticalpile,
    gemma2,
    gemma3,
    gpt2,
    gpt_neo,
    gpt_neox,
    llama,
    mistral,
    nanogpt,
    olmo2,
    qwen2,
    qwen3,
)

FAMILIES: dict[str, ModuleType] = {
    "gpt2": gpt2,
    "gpt_neo": gpt_neo,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "gemma2": gemma2,
    "gemma3_text": gemma3,
    "olmo2": olmo2,
    "criticalpile": criticalpile,
    "nanogpt": nanogpt,
}
"""The `model_type` of config.json, and the module that holds the family's tables; `save_directory` tries them in this order."""
