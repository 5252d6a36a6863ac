"""A tokenizer's files in a checkpoint directory, as `transformers` and its older releases write them."""

import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Backend

from interp.errors import CheckpointError
from interp.files import regular, write_whole
from interp.strict_json import parse
from interp.tokenizer.byte_pairs import byte_pairs, set_prefix
from interp.tokenizer.opening import opening_of, set_opening
from interp.tokenizer.tokenizer import Tokenizer

CONFIG, WHOLE, ADDED, SPECIAL = (
    "tokenizer_config.json",
    "tokenizer.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
GENERATION = "generation_config.json"
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTED = ("additional_special_tokens", "extra_special_tokens")
DEFAULT = "<|endoftext|>"
"""BOS and EOS where the files of a tokenizer name none, as GPT-2's do not."""

VOCABULARIES = (WHOLE, "vocab.json", "merges.txt")
"""The files that make a directory have a tokenizer; the others only add to it."""
UNREAD = ("tokenizer.model", "spiece.model", "tekken.json", "tiktoken.model", "vocab.txt")
"""Vocabularies of other kinds."""
FILES = (*VOCABULARIES, CONFIG, ADDED, SPECIAL, GENERATION)
"""All that may be read."""


def read(directory: Path) -> Tokenizer | None:
    """The tokenizer of a directory; see `Tokenizer.from_directory`.

    BOS is put first by default where tokenizer_config.json says `add_bos_token`, and where it does not speak of it, where the
    post-processor of tokenizer.json does so. Generation ends at the end-of-text token, and at those of generation_config.json, else
    of config.json.
    """
    settings = _settings(directory)
    backend = _backend(directory, settings)
    if backend is None:
        return None
    _check_bos(backend, settings, directory)
    _add_tokens(backend, settings, directory)
    bos, eos = (_named(settings, name, backend) for name in ("bos_token", "eos_token"))
    opening = opening_of(backend)
    if len(opening) > 1 and settings.get("add_bos_token") is not False:
        tokens = ", ".join(repr(backend.id_to_token(i)) for i in opening)
        raise CheckpointError(
            f"{directory}: {WHOLE} puts several tokens before every text ({tokens}); only one is supported."
        )
    match settings.get("add_bos_token"):
        case True:
            first = bos
        case False:
            first = None
        case _:
            first = opening[0] if opening else None
    return Tokenizer(backend, bos=first, eos=eos, opening=bos, stops=_stops(directory, settings))


def write(tokenizer: Tokenizer, backend: Backend, directory: Path) -> None:
    """Write a tokenizer's files; the backend, its own copy, is changed to put BOS first itself where the model was trained so."""
    set_opening(backend, tokenizer.bos)
    added = {str(i): _flags(token) for i, token in backend.get_added_tokens_decoder().items()}
    special: dict[str, str | int | None] = {}
    for name, i in (("bos_token", tokenizer.opening), ("eos_token", tokenizer.eos)):
        special[name] = None if i is None or str(i) not in added else backend.id_to_token(i)
        if i is not None and str(i) not in added:  # a word: named as a token, it would be cut out of every text
            special[f"{name}_id"] = i
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": tokenizer.bos is not None,
        **special,
        "added_tokens_decoder": added,
    }
    write_whole(directory / WHOLE, lambda path: path.write_text(backend.to_str(pretty=True), encoding="utf-8"))
    write_whole(directory / CONFIG, lambda path: path.write_text(json.dumps(settings, indent=2) + "\n"))
    if (directory / GENERATION).exists() or set(tokenizer.stops) - {tokenizer.eos}:
        generation = _object(directory / GENERATION) | {"eos_token_id": list(tokenizer.stops)}
        write_whole(directory / GENERATION, lambda path: path.write_text(json.dumps(generation, indent=2) + "\n"))


def _backend(directory: Path, settings: dict[str, Any]) -> Backend | None:
    whole, vocab, merges = (directory / name for name in VOCABULARIES)
    try:
        if whole.exists():
            backend = Backend.from_file(str(regular(whole)))
            _check_ids(backend, _listed(whole), directory)
            set_prefix(backend, settings)
        elif vocab.exists() and merges.exists():
            backend = byte_pairs(
                models.BPE.from_file(str(regular(vocab)), str(regular(merges))), settings, str(directory)
            )
        elif vocab.exists() or merges.exists():
            raise CheckpointError(f"{directory}: vocab.json and merges.txt belong together, and one is missing.")
        else:
            if unread := [name for name in UNREAD if (directory / name).exists()]:
                warnings.warn(
                    f"{directory}: the tokenizer is only there as {unread[0]}, which is not read, so prompts must be token ids. Write a "
                    "tokenizer.json: transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER); or give tokenizer=.",
                    stacklevel=2,
                )
            return None
    except CheckpointError:
        raise
    except Exception as error:  # the library raises bare Exception for every fault of a file
        raise CheckpointError(f"{directory}: the tokenizer files cannot be read: {error}") from error
    return backend


def _settings(directory: Path) -> dict[str, Any]:
    """tokenizer_config.json, and what older releases wrote beside it where it does not list the added tokens itself."""
    settings = _object(directory / CONFIG)
    if "added_tokens_decoder" in settings:
        return settings
    special = _object(directory / SPECIAL)
    settings |= {name: value for name, value in special.items() if name in (*NAMED, *LISTED)}
    names = _special(settings)
    added = {}
    for content, i in _object(directory / ADDED).items():
        added[str(i)] = {"content": content, "special": content in names, "normalized": content not in names}
    return settings | {"added_tokens_decoder": added}


def _check_bos(backend: Backend, settings: dict[str, Any], directory: Path) -> None:
    """Raise CheckpointError where BOS is to be put before every text and no token is called so: one added now was never trained."""
    named = settings.get("bos_token", DEFAULT)
    if settings.get("add_bos_token") is not True or named is None:
        return
    content, listed = _token(named).content, settings["added_tokens_decoder"]
    added = [one.get("content") for one in listed.values() if isinstance(one, dict)] if isinstance(listed, dict) else []
    if backend.token_to_id(content) is None and content not in added:
        raise CheckpointError(
            f"{directory / CONFIG}: add_bos_token is true, but bos_token {content!r} is no token of the vocabulary. Name one that is, or "
            "set add_bos_token to false."
        )


def _add_tokens(backend: Backend, settings: dict[str, Any], directory: Path) -> None:
    """Add what the settings list to the tokenizer, at the ids that they say; then special tokens that have none, at the end."""
    listed = settings["added_tokens_decoder"]
    if not isinstance(listed, dict) or not all(
        i.isdigit() and isinstance(one, dict) and "content" in one for i, one in listed.items()
    ):
        raise CheckpointError(
            f"{directory / CONFIG}: added_tokens_decoder must give for each id a token with its content."
        )
    there = {token.content for token in backend.get_added_tokens_decoder().values()}
    for i, token in sorted(listed.items(), key=lambda item: int(item[0])):
        if token["content"] not in there:
            backend.add_tokens([_token(token)])
        _check_ids(backend, [(token["content"], int(i))], directory)
    there |= {token["content"] for token in listed.values()}
    for content, token in _special(settings).items():
        if content not in there:
            backend.add_tokens([token])


def _listed(path: Path) -> list[tuple[str, int]]:
    """The added tokens that a tokenizer.json lists, and their ids."""
    text = regular(path).read_text(encoding="utf-8")
    start = re.search(r'"added_tokens"\s*:\s*(?=\[)', text)
    listed = json.JSONDecoder().raw_decode(text, start.end())[0] if start else []
    return [(token["content"], token["id"]) for token in listed]


def _check_ids(backend: Backend, tokens: Iterable[tuple[str, int]], directory: Path) -> None:
    """Raise CheckpointError where added tokens do not have the ids that the files say: the library numbers them on without a gap."""
    for content, i in tokens:
        found = backend.token_to_id(content)
        if found != i:
            raise CheckpointError(
                f"{directory}: the added token {content!r} is said to have id {i}, but the vocabulary gives it {found}; ids with a gap "
                "before them cannot be read. Give the tokenizer as tokenizer=, or token ids."
            )


def _special(settings: dict[str, Any]) -> dict[str, AddedToken]:
    """The special tokens that the settings name, by their text."""
    values = [settings.get(name) for name in NAMED]
    for name in LISTED:
        listed = settings.get(name) or []
        values += listed.values() if isinstance(listed, dict) else listed
    return {token.content: token for token in map(_token, filter(None, values))}


def _token(value: Any) -> AddedToken:
    if not isinstance(value, dict):
        return AddedToken(str(value), special=True, normalized=False)
    flags = {name: bool(value.get(name, False)) for name in ("single_word", "lstrip", "rstrip", "special")}
    special = flags.pop("special") or "special" not in value
    return AddedToken(
        str(value["content"]), special=special, normalized=bool(value.get("normalized", not special)), **flags
    )


def _flags(token: AddedToken) -> dict[str, Any]:
    return {
        name: getattr(token, name) for name in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    }


def _named(settings: dict[str, Any], name: str, backend: Backend) -> int | None:
    """The id of BOS or EOS; None where the settings say that there is none."""
    value = settings.get(name, DEFAULT)
    if value is None:
        i = settings.get(f"{name}_id")  # as we write it of a word
        return i if isinstance(i, int) else None
    i = backend.token_to_id(_token(value).content)
    return None if i is None else int(i)


def _stops(directory: Path, settings: dict[str, Any]) -> list[int]:
    """The ids at which generation ends. config.json is asked last, and not where the tokenizer says that it has no such token."""
    declared = _object(directory / GENERATION).get("eos_token_id")
    if declared is None and settings.get("eos_token", DEFAULT) is not None:
        declared = _object(directory / "config.json").get("eos_token_id")
    listed = declared if isinstance(declared, list) else [declared]
    return [i for i in listed if isinstance(i, int) and not isinstance(i, bool)]


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        content = parse(regular(path).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(content).__name__}.")
    return content
