"""Small tokenizers of every kind that the families use, trained on a few sentences."""

import json

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from interp.tokenizer.byte_pairs import QWEN2_SPLIT

TEXTS = [
    "When Mary and John went to the store, John gave a drink to Mary.",
    "The capital of France is Paris, and the cafés of Paris are naïve about 1984.",
    "for i in range(10):\n    print(i, 'don''t')\n\n\tdone",
    "Once upon a time there was a girl who lived near the old mill, and she had a dog.",
] * 4
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
MARK = "\u2581"


def byte_level(*, prefix: bool = False, split: str | None = None, normalizer=None, template: bool = False) -> Backend:
    """As GPT-2 (all defaults), Llama 3 (`template`: BOS by a post-processor, inside a sequence) and Qwen 2 (`split`, NFC)."""
    backend = Backend(models.BPE())
    if normalizer is not None:
        backend.normalizer = normalizer
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=split is None)
    splits = [] if split is None else [pre_tokenizers.Split(Regex(split), behavior="isolated")]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, level]) if splits else level
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    if template:
        start = processors.TemplateProcessing(
            "<|end|> $A", special_tokens=[("<|end|>", backend.token_to_id("<|end|>"))]
        )
        backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), start])
    return backend


def sentencepiece(prefix: str, *, unigram: bool = False, template: bool = False) -> Backend:
    """With byte fallback. `prefix`: `prepend` by a normalizer (Llama 2), by Metaspace `always` or `first`, or `never` (Gemma)."""
    drafted = Backend(models.Unigram() if unigram else models.BPE())
    drafted.pre_tokenizer = pre_tokenizers.Metaspace()
    if unigram:
        drafted.train_from_iterator(
            TEXTS, trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>")
        )
    else:
        drafted.train_from_iterator(
            TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
        )
    learned = json.loads(drafted.to_str())["model"]
    if unigram:
        words = [(word, score) for word, score in learned["vocab"] if word not in SPECIAL]
        vocabulary = [(token, 0.0) for token in (*SPECIAL, *BYTES)] + words
        backend = Backend(models.Unigram(vocabulary, 0, True))
    else:
        words = [word for word in learned["vocab"] if word not in SPECIAL]
        ids = {token: i for i, token in enumerate([*SPECIAL, *BYTES, *words])}
        merges = [tuple(pair) for pair in learned["merges"]]
        backend = Backend(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    after = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix == "prepend":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    elif prefix == "never":
        backend.normalizer = normalizers.Replace(" ", MARK)
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    backend.decoder = decoders.Sequence(after if prefix == "never" else [*after, decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    backend.add_special_tokens(["<start_of_turn>"])
    if template:
        backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return backend


KINDS = {
    "byte-level": lambda: byte_level(),
    "byte-level with a space put before": lambda: byte_level(prefix=True),
    "byte-level, Qwen 2's": lambda: byte_level(split=QWEN2_SPLIT, normalizer=normalizers.NFC()),
    "byte-level, Llama 3's": lambda: byte_level(split=QWEN2_SPLIT, template=True),
    "sentencepiece, Llama 2's": lambda: sentencepiece("prepend", template=True),
    "sentencepiece, Gemma's": lambda: sentencepiece("never", template=True),
    "metaspace always": lambda: sentencepiece("always"),
    "metaspace first": lambda: sentencepiece("first", template=True),
    "unigram": lambda: sentencepiece("always", unigram=True),
    "unigram, prepended": lambda: sentencepiece("prepend", unigram=True),
}
