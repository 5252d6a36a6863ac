"""The tokenizer that a GGUF file describes, built on the `tokenizers` library.

The kinds and their names are llama.cpp's (`tokenizer.ggml.model`, `tokenizer.ggml.pre`), and so are the defaults.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from interp.errors import CheckpointError
from interp.loading.gguf.container import Container
from interp.tokenizer import Tokenizer

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
"""Types of tokens that text is searched for before it is split; the others are normal (1), unused (5) and byte (6)."""

SPACE = "\u2581"  # as SentencePiece writes it
IN_ORDER = ("gemma2", "gemma3")
"""Architectures whose pieces are merged in their order in the vocabulary; elsewhere the piece of the higher score goes first."""

# What stays together: a contraction, a word with what precedes it, digits, punctuation with the line breaks after it, line breaks, spaces.
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"  # a word ends before a capital
)

PreTokenizer = pre_tokenizers.PreTokenizer


def _gpt2() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _digits() -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _by(pattern: str) -> Callable[[], PreTokenizer]:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return lambda: pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


class Splitting(NamedTuple):
    """How a byte-level tokenizer splits text; whether a word that is a token is never built of merges; whether BOS is usual."""

    splits: Callable[[], PreTokenizer]
    ignores_merges: bool = False
    begins: bool = False


GPT2, DIGITS, QWEN2 = Splitting(_gpt2), Splitting(_digits), Splitting(_by(WORDS + r"|\p{N}" + REST))
LLAMA3 = Splitting(_by(WORDS + r"|\p{N}{1,3}" + REST), ignores_merges=True, begins=True)
TEKKEN = Splitting(_by(CASED + r"|\p{N}" + REST.replace(r"[\r\n]*", r"[\r\n/]*")), ignores_merges=True, begins=True)
SPLITTINGS = {
    **dict.fromkeys(("default", "gpt-2", "phi-2", "mpt", "olmo", "jais"), GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), DIGITS),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez", "kormo", "stablelm2"), QWEN2),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), LLAMA3),
    "dbrx": Splitting(LLAMA3.splits),
    "smaug-bpe": Splitting(LLAMA3.splits),
    "tekken": TEKKEN,
}


def read_tokenizer(container: Container) -> Tokenizer | None:
    """The tokenizer, or None where the file has none.

    With a SentencePiece vocabulary, a space is put before a text that does not begin with one, unless `add_space_prefix` is false. BOS is
    prepended by default where `add_bos_token` says so; where it says nothing, for SentencePiece and those byte-level ones that always
    had it in training (Llama 3, Mistral's). Generation ends at the tokens that end a text, a turn or a message.

    Raises CheckpointError for a kind or a way to split that is unknown, and for entries that are missing or do not fit each other.
    """
    kind = container.metadata.get("tokenizer.ggml.model", "none")
    if kind in ("none", "no_vocab"):
        return None
    if kind not in ("gpt2", "llama"):
        raise CheckpointError(
            f"{container.path}: tokenizer.ggml.model {kind!r} is not supported; only gpt2 (byte-level BPE) and llama (SentencePiece) are."
        )
    file, begins = _Entries(container), True
    try:
        if kind == "gpt2":
            splitting = _splitting(file)
            backend, begins = _byte_level(file, splitting), splitting.begins
        else:
            backend = _sentencepiece(file, container.metadata["general.architecture"])
        for which, special in ((CONTROL, True), (UNKNOWN, True), (USER_DEFINED, False)):
            tokens = [AddedToken(file.tokens[i], normalized=False, special=special) for i in file.of_type(which)]
            (backend.add_special_tokens if special else backend.add_tokens)(tokens)
    except CheckpointError:
        raise
    except Exception as error:  # the library raises bare Exception, such as for a merge of tokens that are not there
        raise CheckpointError(f"{container.path}: the tokenizer cannot be built: {error}") from error
    default_bos, default_eos = (1, 2) if kind == "llama" else (None, None)
    bos, eos = file.id("bos", default_bos), file.id("eos", default_eos)
    prepended = bool(file.get("add_bos_token", begins and bos is not None))
    if prepended and bos is None:
        raise CheckpointError(f"{container.path}: add_bos_token is true, and there is no bos_token_id.")
    stops = [i for i in (file.id("eot", None), file.id("eom", None)) if i is not None]
    return Tokenizer(backend, bos=bos if prepended else None, eos=eos, opening=bos, stops=stops)


class _Entries:
    """The keys `tokenizer.ggml.*`, and the vocabulary."""

    def __init__(self, container: Container) -> None:
        self.path, self._metadata = container.path, container.metadata
        texts = self.get("tokens", [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise CheckpointError(f"{self.path}: tokenizer.ggml.tokens must be texts, found {str(texts)[:40]}.")
        self.tokens = [text or f"[EMPTY_{number}]" for number, text in enumerate(texts)]
        self.ids = {text: number for number, text in enumerate(self.tokens)}
        if len(self.ids) < len(self.tokens):
            twice = next(text for number, text in enumerate(self.tokens) if self.ids[text] != number)
            raise CheckpointError(f"{self.path}: the tokenizer has the token {twice!r} twice.")

    def get(self, key: str, default: Any = None) -> Any:
        return self._metadata.get(f"tokenizer.ggml.{key}", default)

    def id(self, name: str, default: int | None) -> int | None:
        """A special token's id; None where there is none."""
        value = self.get(f"{name}_token_id", default)
        if value is not None and not (isinstance(value, int) and 0 <= value < len(self.tokens)):
            raise CheckpointError(
                f"{self.path}: {name}_token_id is {value!r}, and the tokenizer has the ids 0 to {len(self.tokens) - 1}."
            )
        return value

    def of_type(self, kind: int) -> list[int]:
        """The ids of the tokens of a type."""
        return [number for number, value in enumerate(self.of_each("token_type", [])) if value == kind]

    def of_each(self, key: str, default: list[Any] | None = None) -> list[Any]:
        """One value for each token; without a default they must be there."""
        values = self.get(key, default)
        if not isinstance(values, list) or (len(values) != len(self.tokens) and values != default):
            found = f"{len(values)} values" if isinstance(values, list) else repr(values)
            raise CheckpointError(
                f"{self.path}: tokenizer.ggml.{key} must have {len(self.tokens)} values, found {found}."
            )
        return values

    def merges(self) -> list[tuple[str, str]]:
        """Pairs of pieces as the file lists them."""
        pairs = []
        for text in self.get("merges"):
            place = text.find(" ", 1)  # a piece may begin with a space
            if place < 1 or place == len(text) - 1:
                raise CheckpointError(f"{self.path}: the tokenizer's merge {text!r} is no pair.")
            pairs.append((text[:place], text[place + 1 :]))
        return pairs


def _splitting(file: _Entries) -> Splitting:
    name = file.get("pre", "default")
    if name not in SPLITTINGS:
        raise CheckpointError(
            f"{file.path}: tokenizer.ggml.pre {name!r} is not supported. Supported: {', '.join(SPLITTINGS)}."
        )
    return SPLITTINGS[name]


def _byte_level(file: _Entries, splitting: Splitting) -> Backend:
    if not isinstance(file.get("merges"), list):
        raise CheckpointError(f"{file.path}: tokenizer.ggml.merges is missing; byte-level BPE needs it.")
    backend = Backend(models.BPE(file.ids, file.merges(), ignore_merges=splitting.ignores_merges))
    backend.pre_tokenizer = splitting.splits()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(file: _Entries, architecture: str) -> Backend:
    if isinstance(file.get("merges"), list):
        merges = file.merges()
    else:
        in_order = architecture in IN_ORDER
        merges = _merges(file.ids, [-float(i) for i in range(len(file.tokens))] if in_order else file.of_each("scores"))
    unknown = file.id("unknown", 0)
    unk_token = None if unknown is None or unknown not in file.of_type(UNKNOWN) else file.tokens[unknown]
    backend = Backend(models.BPE(file.ids, merges, unk_token=unk_token, fuse_unk=True, byte_fallback=True))
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if file.get("add_space_prefix", architecture not in IN_ORDER):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        backend.normalizer = normalizers.Replace(" ", SPACE)
    backend.decoder = decoders.Sequence(steps)
    return backend


def _merges(ids: dict[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to make a piece of two, the best piece first. SentencePiece merges the neighbours that make the best piece; the library
    wants to know pairs."""
    pairs = [
        (-scores[number], -place, text[:place], text[place:])
        for text, number in ids.items()
        for place in range(1, len(text))
        if text[:place] in ids and text[place:] in ids
    ]
    pairs.sort(key=lambda pair: pair[:2])
    return [(left, right) for _, _, left, right in pairs]
