"""One file of tables for each family of models: how its configuration and its weights map onto ours, and back."""

from types import ModuleType

from interp.loading.families import criticalpile, gpt2, nanogpt

FAMILIES: dict[str, ModuleType] = {"gpt2": gpt2, "criticalpile": criticalpile, "nanogpt": nanogpt}
"""The `model_type` of config.json, and the module that holds the family's tables; `save_directory` tries them in this order."""
