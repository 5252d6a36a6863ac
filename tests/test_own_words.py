"""Rows that a model writes itself: the same again, after a kill too; how they begin; what a lens makes of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, random_tokens, tiny
from test_cli import run
from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Backend

import analyses
from analyses.lenses import OwnWords, compare_lenses, load_lens, own_words, train_tuned_lens, tuning, writing
from analyses.lenses.compared import LOGIT, TUNED, compared_cells, compared_names, compared_table
from analyses.lenses.overlap import overlapping
from analyses.report.lens import EXAMINED, held_out_rows
from interp.errors import CheckpointError, ConfigError, InterpError, ResultError, TokenError
from interp.tokenizer import Tokenizer

END, TURN, BEGIN = 5, 6, 7
"""Ids of the token between documents, of the one that ends a turn, and of BOS, where a tokenizer has them."""

FEW = {"rows": 7, "length": 6}


def words(*, separator: bool = True, **ids) -> Tokenizer:
    """Fifty words; the text between documents is a token of its own or not."""
    vocabulary = {f"w{number}": number for number in range(50) if not (separator and number == END)}
    backend = Backend(models.WordLevel(vocabulary | ({writing.SEPARATOR: END} if separator else {}), unk_token="w0"))
    backend.add_special_tokens([AddedToken(writing.SEPARATOR, special=True)] if separator else [])
    return Tokenizer(backend, **ids)


def always(token: int, **options):
    """A model that says this token whatever came before."""
    model = tiny(config=replace(TINY, tied=False, unembed_bias=True), **options)
    model.b_U[token] = 1000.0
    return model


def batches_of(model, rows: int, length: int) -> int:
    """The memory in which so many rows are written together."""
    return rows * writing._bytes_per_row(model, length)


def test_the_same_seed_gives_the_same_rows_and_another_seed_none_of_them():
    model = tiny()
    first, again, other = (own_words(model, **FEW, seed=seed).tokens for seed in (0, 0, 1))
    assert first.shape == (7, 6)
    assert torch.equal(first, again)
    rows, others = ({tuple(row) for row in one.tolist()} for one in (first, other))
    assert len(rows) == len(others) == 7
    assert not rows & others  # seed 1 does not begin with row 1 of seed 0
    assert torch.equal(own_words(model, rows=12, length=6).tokens[:7], first)
    assert torch.equal(own_words(model, **FEW, max_bytes=1).tokens, first)  # one row at a time


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_rows_are_draws_from_the_models_own_distribution(temperature):
    model, n = tiny(tokenizer=words(bos=BEGIN)), 4000
    drawn = own_words(model, rows=n, length=2, temperature=temperature).tokens
    p = (model(torch.tensor([[BEGIN]]))[0, 0] / temperature).softmax(-1)
    found = torch.bincount(drawn[:, 1], minlength=50) / n
    assert ((found - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-12).all()
    assert p.max() < 0.9  # so that there is something to draw


@pytest.mark.parametrize(
    ("tokenizer", "begins"),
    [
        (words(bos=BEGIN, eos=TURN), BEGIN),
        (words(eos=TURN), END),
        (words(separator=False, eos=TURN), TURN),
        (words(separator=False), "drawn from its own predictions"),
        (None, "drawn from its own predictions"),
    ],
    ids=["BOS", "separator", "end of text", "neither", "no tokenizer"],
)
def test_how_a_row_begins(tokenizer, begins):
    model = always(9, tokenizer=tokenizer)
    written = own_words(model, **FEW)
    assert written.about["opening"] == begins
    assert (written.tokens[:, 0] == (begins if isinstance(begins, int) else 9)).all()
    assert (written.tokens[:, 1:] == 9).all()


def test_smalltown_and_a_row_that_goes_on_through_an_end_of_text(smalltown):
    assert (own_words(smalltown, rows=2, length=4).tokens[:, 0] == smalltown.tokenizer.bos).all()
    through = own_words(always(TURN, tokenizer=words(eos=TURN)), rows=2, length=5).tokens
    assert (through[:, 1:] == TURN).all()


def killed_after(monkeypatch, batches: int) -> list[range]:
    """Have writing stop before the next batch; the rows that were asked for."""
    written, calls = writing._written, []

    def stopping(model, numbers, *rest):
        if len(calls) == batches:
            raise KeyboardInterrupt
        calls.append(numbers)
        return written(model, numbers, *rest)

    monkeypatch.setattr(writing, "_written", stopping)
    return calls


def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path, monkeypatch):
    model, path = tiny(dtype=torch.float32), tmp_path / "lens.safetensors.words"
    memory = batches_of(model, 3, 6)
    whole = own_words(model, **FEW, max_bytes=memory)
    with monkeypatch.context() as patched:
        assert killed_after(patched, 1) == []
        with pytest.raises(KeyboardInterrupt):
            own_words(model, **FEW, max_bytes=memory, keep=path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    calls = killed_after(monkeypatch, 99)
    resumed = own_words(model, **FEW, max_bytes=memory, keep=path)
    assert calls == [range(3, 6), range(6, 7)]
    assert torch.equal(resumed.tokens, whole.tokens)
    assert (resumed.about, resumed.weight_hash) == (whole.about, whole.weight_hash)
    assert torch.equal(own_words(model, **FEW, max_bytes=memory, keep=path).tokens, whole.tokens)
    assert len(calls) == 2  # a finished file is only read


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, r"There: seed 0, here 1\."),
        ({"temperature": 0.7}, r"There: temperature 1\.0, here 0\.7\."),
        ({"rows": 8}, r"There: rows 7, here 8; tokens 42, here 48\."),
        ({"length": 5}, r"There: length 6, here 5; tokens 42, here 35\."),
        ({"max_bytes": 1}, r"There: together 7, here 1\."),
        ({"model": tiny(seed=3)}, r"There: weight_hash .{12}…, here .{12}…\."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_request_is_refused_with_what_differs(tmp_path, changed, message):
    path, given = tmp_path / "words", {"model": tiny(), **FEW, "max_bytes": batches_of(tiny(), 7, 6)}
    own_words(**given, keep=path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=message):
        own_words(**(given | changed), keep=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "other", "short rows", "no id", "a folder"])
def test_a_damaged_file_is_named(tmp_path, damage):
    model, path = tiny(), tmp_path / "words"
    own_words(model, **FEW, keep=path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:60])
    elif damage == "other":
        train_tuned_lens(model, random_tokens(8, 6), steps=1, rows=2, out=path, overwrite=True)
    elif damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        tensors, metadata = writing.read_safetensors(path)
        tokens = tensors["tokens"].clone()
        tokens = tokens[:, :3].contiguous() if damage == "short rows" else tokens.fill_(99)
        writing.save_file({"tokens": tokens}, path, metadata=metadata)
    with pytest.raises(InterpError, match=r"is damaged|Delete it to begin anew|is a folder"):
        own_words(model, **FEW, keep=path)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_that_cannot_be(temperature):
    with pytest.raises(InterpError, match="own_words: temperature must be positive and finite, got"):
        own_words(tiny(), **FEW, temperature=temperature)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rows": 0}, InterpError, "rows must be at least 1, got 0"),
        ({"rows": -4}, InterpError, "rows must be at least 1, got -4"),
        ({"rows": 2.5}, InterpError, "rows must be a whole number"),
        ({"length": 1}, TokenError, "own_words: length 1 is outside 2 to 24, the context"),
        ({"length": 25}, TokenError, "own_words: length 25 is outside 2 to 24, the context"),
        ({"length": 0}, InterpError, "length must be at least 1"),
        ({"max_bytes": 0}, InterpError, "max_bytes must be at least 1"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        own_words(tiny(), **(FEW | options), keep=tmp_path / "words")
    assert list(tmp_path.iterdir()) == []


def test_the_whole_context_can_be_written():
    assert own_words(tiny(), rows=2, length=24).tokens.shape == (2, 24)


def test_models_that_cannot_write(tmp_path):
    with pytest.raises(ConfigError, match="bidirectional"):
        own_words(tiny(config=replace(TINY, causal=False)), **FEW)
    broken = tiny(dtype=torch.float32)
    broken.blocks[1].mlp.input.bias[0] = torch.nan
    with pytest.raises(ResultError, match=r"not finite.*blocks\.1\.mlp\.hook_pre"):
        own_words(broken, **FEW, keep=tmp_path / "words")
    assert list(tmp_path.iterdir()) == []
    model = tiny()
    with model.hooks({"hook_embed": lambda value, hook: None}):
        with pytest.raises(InterpError, match="hooks attached"):
            own_words(model, **FEW, keep=tmp_path / "words")
        own_words(model, **FEW)  # what nobody else will read may be written under hooks
    assert list(tmp_path.iterdir()) == []


def test_a_lens_says_what_it_was_trained_on_and_takes_no_other_models_words():
    model = tiny()
    written = own_words(model, rows=8, length=6, temperature=0.9, seed=4)
    lens = train_tuned_lens(model, written, steps=2, rows=2)
    assert lens.about["own_words"] == {
        **{"temperature": 0.9, "seed": 4, "rows": 8, "length": 6, "tokens": 48},
        "opening": "drawn from its own predictions",
    }
    plain = train_tuned_lens(model, written.tokens, steps=2, rows=2)
    assert "own_words" not in plain.about
    assert torch.equal(plain.weight, lens.weight)
    with pytest.raises(TokenError, match="a model with other weights wrote them"):
        train_tuned_lens(tiny(seed=5), written, steps=2, rows=2)
    with pytest.raises(TokenError, match="gives 1 rows"):
        train_tuned_lens(model, own_words(model, rows=1, length=6), steps=2, rows=2)


def test_trained_on_its_own_words_a_lens_is_nearer_on_words_that_it_has_not_seen(smalltown):
    lens = train_tuned_lens(smalltown, own_words(smalltown, rows=90, length=32), steps=60, rows=8, validate_every=20)
    results = compare_lenses(smalltown, own_words(smalltown, rows=24, length=32, seed=1).tokens, lens=lens)
    plain, tuned = (results[name]["mean_kl_mean"].to_numpy() for name in (LOGIT, TUNED))
    assert (tuned[:3] < plain[:3]).all()
    assert tuned.mean() < 0.8 * plain.mean()
    below = results[TUNED]["mean_kl_interval"].sel(bound="upper") < results[LOGIT]["mean_kl_interval"].sel(
        bound="lower"
    )
    assert below[:2].all()


def test_the_table_is_of_both_lenses_at_whole_layers():
    model, tokens = tiny(), random_tokens(8, 10)
    lens = train_tuned_lens(model, random_tokens(40, 10, seed=2), steps=20, rows=8, learning_rate=0.01)
    results = compare_lenses(model, tokens, lens=lens)
    apart = {
        LOGIT: analyses.logit_lens(model, tokens).sel(layer=[0, 1, 2, 3]),
        TUNED: analyses.tuned_lens(model, tokens, lens=lens),
    }
    for name, expected in apart.items():
        for variable in ("mean_kl_mean", "mean_kl_interval", "mean_cross_entropy_mean", "mean_cross_entropy_interval"):
            np.testing.assert_allclose(results[name][variable], expected[variable], atol=1e-9)
    rows = compared_cells(results)
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert len(compared_names()) == 5
    low, high = apart[TUNED]["mean_cross_entropy_interval"].sel(layer=1).to_numpy()
    assert rows[1][4] == f"{float(apart[TUNED]['mean_cross_entropy_mean'].sel(layer=1)):.3f} ({low:.3f} to {high:.3f})"
    assert rows[3][1] == rows[3][2] == "0.000 (0.000 to 0.000)"  # the output, which both read alike
    head, rule, *body = compared_table(results).split("\n")
    assert head == "| layer | KL, logit lens | KL, tuned lens | cross-entropy, logit lens | cross-entropy, tuned lens |"
    assert rule == "| --- | --- | --- | --- | --- |"
    assert body[1] == f"| {' | '.join(rows[1])} |"
    with pytest.raises(TokenError, match="6 texts are the least that give an interval; there are 5"):
        compare_lenses(model, tokens[:5], lens=lens)


def test_rows_to_measure_on_are_spread_over_a_text(smalltown):
    text = " ".join(f"Mary gave {name} a drink." for name in ("John", "Rose", "Peter")) * 60
    every = tuning.rows_of_text(smalltown, text, 16)
    chosen = held_out_rows(smalltown, text, 16)
    assert len(every) > EXAMINED == len(chosen)
    assert torch.equal(chosen[0], every[0])
    assert torch.equal(chosen[-1], every[(EXAMINED - 1) * len(every) // EXAMINED])
    with pytest.raises(TokenError, match=r"rows of 16 tokens to measure on; 6 are the least"):
        held_out_rows(smalltown, "Mary gave John a drink. " * 5, 16)


def test_rows_that_share_text_are_found_also_where_they_are_cut_elsewhere():
    """Against a search by hand, in a text cut at three places, beside one that shares runs just too short."""
    text = random_tokens(1, 640, vocab=50_000)[0]
    trained = text[:320].reshape(20, 16)
    for shift in (0, 5, 8):
        rows = text[shift : shift + 608].reshape(38, 16)
        runs = {tuple(row[at : at + 8].tolist()) for row in trained for at in range(9)}
        expected = [any(tuple(row[at : at + 8].tolist()) in runs for at in range(9)) for row in rows]
        assert overlapping(rows, trained).tolist() == expected
        assert sum(expected) >= 19
    short = random_tokens(1, 16, seed=5, vocab=50_000)
    short[0, :7] = trained[3, 2:9]
    assert not overlapping(short, trained).any()
    short[0, :8] = trained[3, 2:10]
    assert overlapping(short, trained).all()


def test_measured_on_what_was_trained_on_is_refused_before_the_training(
    monkeypatch, capsys, tmp_path, small_checkpoint
):
    text = tmp_path / "text.txt"
    text.write_text("Mary and John went to the store. Then Rose gave a book to Peter. " * 40)
    words = ["train-lens", text, "--evaluate", text, "--length", 16, "--steps", 2, "--model", small_checkpoint]
    status, _, err = run(monkeypatch, capsys, *words, "--out", tmp_path / "lens")
    assert status == 1
    assert "32 of 32 rows to measure on hold text that the lens is trained on" in " ".join(err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_words_that_repeat_themselves_measure_nothing(command):
    """So cold that every row is the same one."""
    status, out, err = command("--temperature", 1e-9)
    assert status == 1
    assert "rows to measure on hold text that the lens is trained on" in " ".join(err.split())
    assert "Lens: " in out


@pytest.fixture
def command(monkeypatch, capsys, tmp_path, small_checkpoint):
    """Train on own words by the command line, with more options."""
    (tmp_path / "text.txt").write_text("Mary and John went to the store. Then Rose gave a book to Peter. " * 40)
    size = ["--tokens", 300, "--length", 16, "--steps", 4, "--rows", 2, "--model", small_checkpoint]

    def called(*more):
        return run(monkeypatch, capsys, "train-lens", "--own-words", *size, "--out", tmp_path / "lens", *more)

    return called


def test_the_command_trains_and_measures_on_what_the_lens_has_not_seen(command, tmp_path):
    status, out, err = command("--temperature", 0.8, "--seed", 2, "--evaluate", tmp_path / "text.txt")
    assert status == 0, err
    assert "its own words, 32 rows that the lens has not seen" in out
    assert "text.txt, 32 rows that the lens has not seen" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lens", "text.txt"]


def test_the_command_goes_on_after_a_kill(command, monkeypatch, tmp_path, small_checkpoint):
    import interp

    with monkeypatch.context() as patched:
        patched.setattr(tuning, "_update", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert command()[0] != 0
    assert [path.name for path in tmp_path.iterdir() if path.name != "text.txt"] == ["lens.words"]
    status, _, err = command("--seed", 1)
    assert status == 1
    assert "There: seed 0, here 1." in " ".join(err.split())
    calls = killed_after(monkeypatch, 99)
    status, _, err = command()
    assert status == 0, err
    assert calls == [range(32)]  # only those that it is measured on
    lens = load_lens(tmp_path / "lens", interp.load(small_checkpoint))
    assert lens.about["own_words"]["tokens"] == 19 * 16  # 300, in whole rows
    assert lens.about["own_words"]["seed"] == 0
    assert command()[0] == 1
    assert len(calls) == 1  # refused before anything was written


def test_own_words_are_exported():
    assert analyses.own_words is own_words
    assert isinstance(own_words(tiny(), **FEW), OwnWords)
