"""The tuned lens: training, files, the one that is shipped, published ones."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, random_tokens, tiny

import analyses
from analyses.lenses import TunedLens, load_lens, published_lens, save_lens, train_tuned_lens, tuned_lens, tuning
from analyses.lenses.smalltown import documents
from analyses.lenses.targets import Targets
from interp import ModelConfig, Transformer
from interp.errors import CheckpointError, InterpError, TokenError

FEW = {"steps": 12, "rows": 4, "validate_every": 4, "learning_rate": 0.01}


def test_the_identity_is_the_logit_lens():
    model, tokens = tiny(), random_tokens()
    found = tuned_lens(model, tokens, lens=TunedLens.identity(model, {}))
    plain = analyses.logit_lens(model, tokens).sel(layer=[0, 1, 2, 3])
    for name in ("kl", "entropy", "cross_entropy", "top_probability"):
        np.testing.assert_allclose(found[name], plain[name], atol=1e-12)
    assert found["step"].to_numpy().tolist() == plain["step"].to_numpy().tolist()


@pytest.mark.parametrize("options", [{}, {"parallel": True}, {"mlp": "none", "d_mlp": 1}])
def test_steps_are_named_as_those_of_the_logit_lens(options):
    model, tokens = tiny(config=replace(TINY, **options)), random_tokens(1, 5)
    whole = TunedLens(torch.zeros(3, 16, 16), torch.zeros(3, 16), "", "float64")
    tuned, plain = tuned_lens(model, tokens, lens=whole), analyses.logit_lens(model, tokens)
    assert tuned["step"].to_numpy().tolist() == plain.sel(layer=tuned["layer"])["step"].to_numpy().tolist()


def test_the_translator_comes_before_the_final_norm_and_leaves_the_output_alone():
    model, tokens = tiny(), random_tokens(1, 6)
    generator = torch.Generator().manual_seed(3)
    weight, bias = (torch.randn(size, generator=generator, dtype=torch.float64) for size in ((3, 16, 16), (3, 16)))
    found = tuned_lens(model, tokens, lens=TunedLens(weight, bias, "", "float64"))
    _, cache = model.run_with_cache(tokens, "blocks.1.hook_resid_pre")
    x = cache["resid_pre", 1]
    expected = model.unembed(x + x @ weight[1].T + bias[1]).softmax(-1).topk(5).values
    np.testing.assert_allclose(found["top_probability"].sel(layer=1), expected, atol=1e-12)
    assert (found["kl"].sel(layer=3) == 0).all()


def test_training_lowers_the_divergence_of_every_layer_also_on_new_tokens():
    model, tokens = tiny(), random_tokens(64, 12)
    lens = train_tuned_lens(model, tokens, steps=400, rows=16, learning_rate=0.01, validate_every=100)
    history = lens.about["validation_kl"]
    assert history[0][0] == 0
    before, after = np.array(history[0][1]), np.array(min((kl for _, kl in history), key=sum))
    assert (after < before).all()
    new = random_tokens(8, 12, seed=99)
    found, plain = (analyses.tuned_lens(model, new, lens=lens), analyses.logit_lens(model, new).sel(layer=[0, 1, 2, 3]))
    assert (found["kl"].mean(("prompt", "position")) < plain["kl"].mean(("prompt", "position")))[:3].all()


def test_training_recovers_an_affine_map():
    """Without norms and attention, and with an MLP whose ReLUs never close, the stream leaving the block is an affine map of the
    one entering it, which the translator can be."""
    config = ModelConfig(
        n_layers=1, d_model=8, n_heads=1, d_head=8, d_mlp=8, n_ctx=12, d_vocab=40, norm="none", activation="relu", init_std=0.4,
    )  # fmt: skip
    model = tiny(config=config)
    block = model.blocks[0]
    block.attn.o.weight.zero_()
    block.attn.o.bias.zero_()
    block.mlp.input.bias.fill_(100.0)
    block.mlp.output.bias.copy_(-block.mlp.output.weight.sum(1) * 100.0 + 0.5)
    tokens = random_tokens(200, 12, vocab=40)
    lens = train_tuned_lens(
        model, tokens, steps=1500, rows=20, learning_rate=0.03, validate_every=300, patience=9, seed=1
    )
    first, *_, last = (kl[0] for _, kl in lens.about["validation_kl"])
    assert first > 0.05
    assert last < 1e-4 * first


def test_one_step_of_adam_is_torchs():
    model, tokens = tiny(), random_tokens(4, 6)
    lens = TunedLens.identity(model, {})
    state = tuning._begun(lens, [0.0] * 3)
    weight, bias = (torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in ((3, 16, 16), (3, 16)))
    adam = torch.optim.Adam([weight, bias], lr=0.05, betas=tuning.BETAS, eps=tuning.EPS)
    _, cache = model.run_with_cache(tokens, "blocks.*.hook_resid_pre")
    log_p = model(tokens).log_softmax(-1)
    for step in range(3):
        tuning._update(Targets(model, tokens), state, range(len(tokens)), 0.05)
        state.step = step + 1
        streams = [cache["resid_pre", layer] for layer in range(3)]
        losses = [
            (log_p.exp() * (log_p - model.unembed(x + x @ weight[i].T + bias[i]).log_softmax(-1))).sum(-1).mean()
            for i, x in enumerate(streams)
        ]
        adam.zero_grad()
        sum(losses).backward()
        adam.step()
    torch.testing.assert_close(state.tensors["weight"], weight.detach(), atol=1e-10, rtol=0)
    torch.testing.assert_close(state.tensors["bias"], bias.detach(), atol=1e-10, rtol=0)


def test_the_model_is_left_as_it_was():
    model = tiny().requires_grad_(True)
    before = model.weight_hash()
    train_tuned_lens(model, random_tokens(8, 6), **FEW)
    assert model.weight_hash() == before
    assert all(p.grad is None for p in model.parameters())


def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path, monkeypatch):
    model, tokens = tiny(dtype=torch.float32), random_tokens(20, 6)
    whole = train_tuned_lens(model, tokens, **FEW)
    update, calls = tuning._update, []

    def killed(*arguments):
        calls.append(None)
        if len(calls) == 7:
            raise KeyboardInterrupt
        update(*arguments)

    monkeypatch.setattr(tuning, "_update", killed)
    out = tmp_path / "lens.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_tuned_lens(model, tokens, out=out, **FEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lens.safetensors.training"]
    with pytest.raises(CheckpointError, match="another training"):
        train_tuned_lens(model, random_tokens(20, 6, seed=1), out=out, **FEW)
    monkeypatch.setattr(tuning, "_update", lambda *arguments: (calls.append(None), update(*arguments)))
    resumed = train_tuned_lens(model, tokens, out=out, **FEW)
    assert len(calls) == 7 + 8  # from the validation after step 4 on
    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.bias, whole.bias)
    assert resumed.about == whole.about
    assert [path.name for path in tmp_path.iterdir()] == ["lens.safetensors"]
    loaded = load_lens(out, model)
    assert torch.equal(loaded.weight, whole.weight)
    assert loaded.about["trained_steps"] == 12
    with pytest.raises(InterpError, match="exists already"):
        train_tuned_lens(model, tokens, out=out, **FEW)


def test_early_stop_keeps_the_best(monkeypatch):
    falling = iter([[5.0], [4.0], [3.0], [3.5], [3.6], [3.7], [1.0]])
    monkeypatch.setattr(tuning, "_divergences", lambda *_: next(falling))
    lens = train_tuned_lens(
        tiny(), random_tokens(20, 6), steps=100, rows=2, validate_every=1, patience=3, learning_rate=0.01
    )
    assert lens.about["trained_steps"] == 5
    assert [kl for _, (kl,) in lens.about["validation_kl"]] == [5.0, 4.0, 3.0, 3.5, 3.6, 3.7]
    twice = iter([[5.0], [4.0], [3.0], [3.5]])
    monkeypatch.setattr(tuning, "_divergences", lambda *_: next(twice))
    short = train_tuned_lens(
        tiny(), random_tokens(20, 6), steps=100, rows=2, validate_every=1, patience=1, learning_rate=0.01
    )
    assert torch.equal(short.weight, lens.weight)  # both are that of step 2


def test_texts_and_files_are_cut_into_rows_that_begin_as_prompts_do(smalltown, tmp_path):
    texts = documents(30, "test")
    rows = tuning.training_rows(smalltown, texts, 32)
    assert rows.shape[1] == 32
    assert (rows[:, 0] == smalltown.tokenizer.bos).all()
    end = smalltown.tokenizer.eos
    stream = [i for text in texts for i in (*smalltown.tokenizer.encode(text), end)]
    assert rows[:, 1:].flatten().tolist() == stream[: rows[:, 1:].numel()]
    path = tmp_path / "text.txt"
    path.write_text(texts[0] * 4)
    assert torch.equal(tuning.training_rows(smalltown, path, 32), tuning.training_rows(smalltown, texts[0] * 4, 32))


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("too short", {}, "gives 0 rows"),
        (["Mary went home."], {"length": 1000}, "outside 2 to 256"),
        (torch.tensor([[1, -1], [1, 2]]), {}, "must be full"),
        (torch.tensor([[1, 2]]), {}, "gives 1 rows"),
    ],
)
def test_sources_that_cannot_be(smalltown, source, options, message):
    with pytest.raises(TokenError, match=message):
        train_tuned_lens(smalltown, source, **options)


def test_a_lens_of_another_model_is_an_error(tmp_path, smalltown):
    model = tiny()
    path = tmp_path / "lens.safetensors"
    save_lens(TunedLens.identity(model, {}), path)
    assert load_lens(path, model).weight_hash == model.weight_hash()
    with pytest.raises(CheckpointError, match="trained for a model with weights"):
        load_lens(path, tiny(seed=5))
    with pytest.raises(CheckpointError, match="3 layers of width 16"):
        load_lens(path, smalltown)
    with pytest.raises(CheckpointError, match="none comes with the package for unnamed"):
        tuned_lens(model, random_tokens())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_lens(path, model)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_lens(tmp_path / "none", model)


def test_a_lens_of_the_same_weights_as_other_heads_is_an_error(tmp_path):
    model = tiny()
    heads = Transformer(replace(model.config, n_heads=4, d_head=4)).requires_grad_(False).to(model.dtype)
    heads.load_state_dict(model.state_dict())
    assert heads.weight_hash() == model.weight_hash()
    lens = train_tuned_lens(model, random_tokens(8, 6), out=tmp_path / "lens.safetensors", steps=1, rows=2)
    for one in (lens, tmp_path / "lens.safetensors"):
        analyses.tuned_lens(model, random_tokens(), lens=one)
        with pytest.raises(CheckpointError, match="another architecture"):
            analyses.tuned_lens(heads, random_tokens(), lens=one)


def test_the_shipped_lens_wins_at_every_layer_before_the_last(smalltown):
    texts = documents(40, "the shipped lens wins")
    tuned = tuned_lens(smalltown, texts)
    plain = analyses.logit_lens(smalltown, texts).sel(layer=tuned["layer"])
    for name in ("kl", "cross_entropy"):
        ours, theirs = (result[name].mean("position") for result in (tuned, plain))
        assert ((ours < theirs).mean("prompt")[:-1] > 0.9).all()
        assert (ours.mean("prompt")[:-1] < theirs.mean("prompt")[:-1]).all()


def test_the_shipped_lens_fits_in_any_precision_that_keeps_the_weights():
    import interp

    double = interp.load("smalltown").double()
    assert tuned_lens(double, "Mary went to the").attrs["kind"] == "tuned_lens"
    with pytest.raises(CheckpointError, match="has others"):
        tuned_lens(interp.load("smalltown").bfloat16(), "Mary went to the")


@pytest.fixture
def published(tmp_path):
    """As the `tuned-lens` package saves one: the layers' linear maps by number, and a hash of the unembedding."""
    model = tiny(dtype=torch.float32)
    layers = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(3))
    torch.save(layers.state_dict(), tmp_path / "params.pt")
    unembedding = hashlib.sha256(model.W_U.T.contiguous().numpy().tobytes()).hexdigest()
    config = {"base_model_name_or_path": "tiny", "d_model": 16, "num_hidden_layers": 3, "unembed_hash": unembedding}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path, model, layers


def test_published_lenses_are_read(published):
    path, model, layers = published
    lens = published_lens(path, model)
    x = torch.randn(5, 16)
    for layer in range(3):
        torch.testing.assert_close(lens.translate(layer, x), x + layers[layer](x), atol=1e-6, rtol=0)
    assert tuned_lens(model, random_tokens(), lens=lens).attrs["kind"] == "tuned_lens"


def test_published_lenses_that_do_not_fit(published):
    path, model, layers = published
    with pytest.raises(CheckpointError, match="another unembedding"):
        published_lens(path, tiny(seed=3, dtype=torch.float32))
    with pytest.raises(CheckpointError, match=r"missing \['3.bias'"):
        published_lens(path, tiny(config=ModelConfig(**(TINY.to_dict() | {"n_layers": 4}))))
    state = layers.state_dict() | {"1.weight": torch.full((16, 16), torch.nan)}
    torch.save(state, path / "params.pt")
    with pytest.raises(CheckpointError, match="not finite"):
        published_lens(path, model)
    torch.save({"0.weight": print}, path / "params.pt")  # a function: only tensors are read
    with pytest.raises(CheckpointError, match="cannot be read"):
        published_lens(path, model)
    (path / "params.pt").unlink()
    with pytest.raises(CheckpointError, match="has no params.pt"):
        published_lens(path, model)


def test_a_lens_that_is_not_to_be_had_offline_says_how(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="hf download AlignmentResearch/tuned-lens"):
        published_lens("gpt2", tiny())
