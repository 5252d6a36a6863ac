"""Checkpoints on the Hugging Face hub, through its own library and its cache."""

from pathlib import Path

from interp.errors import CheckpointError
from interp.loading.checkpoint import has_weights
from interp.loading.keys import ADAPTER_CONFIG
from interp.tokenizer.files import FILES as TOKENIZER_FILES

# Short names, and the repositories that hold them today; a cache may have either.
MODELS = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
    **{f"pythia-{size}": f"EleutherAI/pythia-{size}" for size in ("70m", "160m", "410m", "1b", "1.4b", "2.8b")},
}
FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",  # to say of an adapter what it is
    *TOKENIZER_FILES,
)


def is_hub_id(name: str) -> bool:
    """Whether a name is one of the short names, or looks like `owner/name`."""
    owner, slash, rest = name.partition("/")
    return name in MODELS or bool(slash and owner and rest and "/" not in rest and not name.startswith((".", "~")))


def fetch(name: str, revision: str | None = None) -> Path:
    """The directory of a hub checkpoint: from the cache where it is there, else downloaded into it.

    Args:
        name: a short name or `owner/name`.
        revision: branch, tag or commit; None is the default branch.

    Raises:
        CheckpointError: not cached and not to be had; the message says how to fetch it.
    """
    from huggingface_hub import snapshot_download  # loading it costs a fifth of a second
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository = MODELS.get(name, name)
    for cached in dict.fromkeys((repository, name)):
        try:
            directory = Path(
                snapshot_download(cached, revision=revision, local_files_only=True, allow_patterns=list(FILES))
            )
        except LocalEntryNotFoundError:
            continue
        except HFValidationError as error:
            raise CheckpointError(f"{name!r} is no file or directory here, nor can the hub have it: {error}") from error
        if _can_be_read(directory):
            return directory
    at = f" --revision {revision}" if revision else ""
    try:
        directory = Path(snapshot_download(repository, revision=revision, allow_patterns=list(FILES)))
        reason = "" if _can_be_read(directory) else "it has no config.json with safetensors weights there"
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = f"it could not be downloaded: {type(error).__name__}"
    if reason:
        raise CheckpointError(
            f"{name!r} is not in the local Hugging Face cache, and {reason}. On a connected machine run "
            f"`hf download {repository}{at}`; then copy the folder it names here and load it by its path, or copy the "
            "cache and set HF_HOME to it."
        )
    return directory


def _can_be_read(directory: Path) -> bool:
    """Whether a directory holds a model; or an adapter, which reading it refuses by name."""
    return (directory / ADAPTER_CONFIG).exists() or ((directory / "config.json").exists() and has_weights(directory))
