"""What `interp.load` accepts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from interp.errors import CheckpointError, nearest
from interp.loading.bridge import from_bridge, is_bridge
from interp.loading.checkpoint import load_directory
from interp.loading.devices import device_there
from interp.loading.finite import check_cast
from interp.loading.hub import MODELS, fetch, is_hub_id
from interp.loading.memory import from_transformers, is_transformers_model
from interp.loading.packaged import PACKAGED, need, refused
from interp.model import Transformer
from interp.modes import ordinary
from interp.tokenizer import Tokenizer

EMBEDDED = Path(__file__).parent.parent / "zoo"
"""The folder whose subfolders with a config.json are the models that come with the package."""

CIRCUIT, GGUF = "circuit:", ".gguf"
DTYPES = {torch.float32, torch.float64, torch.bfloat16, torch.float16}


def embedded_models() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/config.json"))


@ordinary()
def load(
    source: object = "smalltown",
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    tokenizer: object = None,
    copy: bool = False,
) -> Transformer:
    """A model ready to be opened up: in evaluation mode, its weights taking no gradients.

    Args:
        source: the name of an embedded model (`smalltown`, the default); `circuit:` and the name of a model whose weights are set by
            hand (`interp.zoo.circuits`); a checkpoint directory (config.json,
            model.safetensors or its shards, tokenizer files), which wins over a hub id of the same spelling; a GGUF file; a model that
            `interp get` has got (`smollm2-135m`), or that is installed; a model on the
            Hugging Face hub (gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or owner/name), taken from its local
            cache where it is there; or a `transformers` model of one of the families or a TransformerLens 4 `TransformerBridge` to
            a GPT-2, in memory, which is left untouched.
        dtype: of the weights: float32, float64, bfloat16 or float16. None is float32.
        device: where to put them.
        revision: of a hub model: branch, tag or commit.
        tokenizer: for prompts given as text, instead of the source's own (a `transformers` model has none): a fast tokenizer of
            `transformers`, one of the `tokenizers` library, an `interp.Tokenizer`, or a directory with a tokenizer's files.
        copy: copy the weights into memory. Else those of a safetensors file that has the dtype asked for are its bytes, mapped: quick,
            but the file may not be written to as long as the model is used (replacing or deleting it is fine). Where a result is made,
            a file that was written to is an error.

    Raises:
        CheckpointError: a source that is none of these, a checkpoint that is absent, damaged, foreign or a pickle, weights that
            are infinite in the dtype asked for, or a device that this machine does not have.
    """
    dtype = torch.float32 if dtype is None else dtype
    place = device_there(device)
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype {dtype} is not supported; choose one of {', '.join(sorted(map(str, DTYPES)))}.")
    if isinstance(tokenizer, (str, os.PathLike)):
        with _permitted():
            tokenizer = _tokenizer_at(_place(os.fspath(tokenizer)))
    if isinstance(source, (str, os.PathLike)):
        given = None if tokenizer is None else Tokenizer.of(tokenizer)
        with _permitted():
            model = _from_name(os.fspath(source), revision, dtype, given)
    elif is_bridge(source):
        model = from_bridge(source, tokenizer)
    elif is_transformers_model(source):
        model = from_transformers(source, tokenizer)
    else:
        raise CheckpointError(
            f"cannot load a {type(source).__module__}.{type(source).__name__}: expected a name, a checkpoint directory, a "
            "transformers model, or a TransformerLens TransformerBridge to a GPT-2."
        )
    before = model.dtype
    model = model.to(device=place, dtype=dtype)
    if torch.finfo(dtype).max < torch.finfo(before).max:
        check_cast(model.state_dict(), f"{model.name} as {dtype}")
    if copy and model.mapped is not None:
        for weight in model.parameters():
            weight.data = weight.data.clone() if model.mapped.holds(weight) else weight.data
        model.mapped = None
    return model


@contextmanager
def _permitted() -> Iterator[None]:
    """Name the file or folder that the system does not let be read, or that cannot be one."""
    try:
        yield
    except PermissionError as error:
        raise CheckpointError(refused(error.filename, error)) from error
    except OSError as error:
        raise CheckpointError(f"{str(error.filename)[:80]!r} cannot be read: {error.strerror or error}.") from error


def _tokenizer_at(directory: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_directory(directory)
    if tokenizer is None:
        raise CheckpointError(
            f"{directory} holds no tokenizer: neither tokenizer.json, nor vocab.json with merges.txt."
        )
    return tokenizer


def _from_name(source: str, revision: str | None, dtype: torch.dtype, tokenizer: Tokenizer | None) -> Transformer:
    if source in embedded_models():
        return load_directory(EMBEDDED / source, source, tokenizer)
    if source.startswith(CIRCUIT):
        from interp.zoo.circuits import circuit  # built from the model, above this layer

        model = circuit(source.removeprefix(CIRCUIT))
        model.tokenizer = model.tokenizer if tokenizer is None else tokenizer
        return model
    path = _place(source)
    if path.is_dir():
        return load_directory(path, path.resolve().name, tokenizer)
    if path.exists() or path.suffix.lower() == GGUF:
        return _from_file(path, path.stem, dtype, tokenizer)
    if source in PACKAGED:
        return _from_file(need(source), source, dtype, tokenizer)
    if is_hub_id(source):
        return load_directory(fetch(source, revision), source, tokenizer)
    known = [*embedded_models(), *PACKAGED, *MODELS]
    raise CheckpointError(
        f"{source!r} is neither an embedded model, a directory, a GGUF file nor a hub id. {nearest(source, known)}"
    )


def _place(source: str) -> Path:
    """The path that a text spells. Raises CheckpointError where it begins with the home of a user that there is not."""
    try:
        return Path(source).expanduser()
    except RuntimeError as error:
        raise CheckpointError(f"{source!r} cannot be read: there is no user of that name.") from error


def _from_file(path: Path, name: str, dtype: torch.dtype, tokenizer: Tokenizer | None) -> Transformer:
    if path.suffix.lower() != GGUF and not _begins_with_gguf(path):
        raise CheckpointError(
            f"{path} is a file; give the directory that holds config.json and model.safetensors, or a file whose name ends in {GGUF}."
        )
    from interp.loading.gguf import load_file  # loading the library costs a quarter of a second

    return load_file(path, name, dtype, tokenizer)


def _begins_with_gguf(path: Path) -> bool:
    """Whether a regular file says by its content what its name does not, as in the hub's cache."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"
