"""`interp.transformer_lens` against plain torch and by literals: nothing here needs the peer."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, tiny
from families import theirs

import interp
from interp.errors import CheckpointError, ConfigError, HookError, TokenError
from interp.processing import centre_unembedding, fold_layer_norm, fold_value_biases
from interp.transformer_lens import ActivationCache, HookedTransformer, HookedTransformerConfig, utils

SHAPE = {"n_layers": 2, "d_model": 16, "n_ctx": 12, "d_head": 8, "d_vocab": 20, "act_fn": "gelu_new", "device": "cpu"}


def fresh(seed=0, **changes) -> HookedTransformer:
    return HookedTransformer(HookedTransformerConfig(**(SHAPE | {"seed": seed} | changes)))


def some_tokens(rows=2, length=6, seed=0) -> torch.Tensor:
    return torch.randint(0, 20, (rows, length), generator=torch.Generator().manual_seed(seed))


def plain_logits(w, tokens, config, causal=True):
    """A model from its equations, of weights by TransformerLens' keys."""

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], w.get(f"{name}.w"), w.get(f"{name}.b"), 1e-5) if config["normed"] else x

    x = w["embed.W_E"][tokens] + w["pos_embed.W_pos"][: tokens.shape[1]]
    for layer in range(config["n_layers"]):
        at = f"blocks.{layer}."
        q, k, v = (
            torch.einsum("bpd,hde->bhpe", norm(x, f"{at}ln1"), w[f"{at}attn.W_{n}"]) + w[f"{at}attn.b_{n}"][:, None]
            for n in "QKV"
        )
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        z = scores.softmax(-1) @ v
        x = x + torch.einsum("bhpe,hed->bpd", z, w[f"{at}attn.W_O"]) + w[f"{at}attn.b_O"]
        if config["mlp"]:
            hidden = F.gelu(norm(x, f"{at}ln2") @ w[f"{at}mlp.W_in"] + w[f"{at}mlp.b_in"], approximate="tanh")
            x = x + hidden @ w[f"{at}mlp.W_out"] + w[f"{at}mlp.b_out"]
    return norm(x, "ln_final") @ w["unembed.W_U"] + w["unembed.b_U"]


@pytest.mark.parametrize("kind", ["LN", "LNPre", None])
@pytest.mark.parametrize("attn_only", [False, True])
@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
def test_a_fresh_model_from_its_equations(kind, attn_only, direction):
    model = fresh(normalization_type=kind, attn_only=attn_only, attention_dir=direction)
    weights = model.state_dict()
    assert not any(kind == "LNPre" and ".ln" in name for name in weights)
    equations = {"n_layers": 2, "normed": kind is not None, "mlp": not attn_only}
    expected = plain_logits(weights, some_tokens(), equations, direction == "causal")
    torch.testing.assert_close(model(some_tokens()), expected, atol=1e-5, rtol=1e-5)


def test_fresh_weights_are_drawn_as_theirs():
    model = fresh(d_model=64, d_vocab=500, d_vocab_out=-1)
    spread = 0.8 / 64**0.5
    for name, weight in model.state_dict().items():
        if ".W_" in name:
            assert 0.9 * spread < weight.std() < 1.1 * spread, name
        elif ".b_" in name or name.endswith(".b"):
            assert not weight.any()
        else:
            assert (weight == 1).all()
    assert torch.equal(model.W_Q, fresh(d_model=64, d_vocab=500).W_Q)
    torch.manual_seed(3)
    one = fresh(seed=None)
    torch.manual_seed(3)
    assert torch.equal(one.W_E, fresh(seed=None).W_E)
    assert not torch.equal(one.W_E, fresh(seed=None).W_E)


def test_training_reaches_the_loss_of_the_same_loop_in_plain_torch():
    """Two layers, attention only, on sequences that repeat themselves."""
    model = fresh(attn_only=True, act_fn=None, normalization_type="LN")
    weights = {name: value.clone().requires_grad_() for name, value in model.state_dict().items()}
    assert all(weight.requires_grad for weight in model.parameters())
    halves = [some_tokens(8, 5, seed) for seed in range(30)]
    batches = [torch.cat([half, half], dim=1) for half in halves]
    ours, plain = [], []
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    for tokens in batches:
        loss = model(tokens, return_type="loss")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        ours.append(loss.item())
    optimiser = torch.optim.AdamW(weights.values(), lr=1e-2, weight_decay=0.01)
    for tokens in batches:
        logits = plain_logits(weights, tokens, {"n_layers": 2, "normed": True, "mlp": False})
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        plain.append(loss.item())
    assert ours[-1] < 0.95 * ours[0]
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(plain), atol=2e-3, rtol=1e-3)


def test_norms_without_weights_are_not_trained():
    model = fresh(normalization_type="LNPre")
    model(some_tokens(), return_type="loss").backward()
    still = [name for name, weight in model.core.named_parameters() if weight.grad is None]
    assert still
    assert all("ln" in name for name in still)


def test_processing_keeps_the_probabilities_and_the_source():
    source = tiny(dtype=torch.float32)
    before = {name: value.clone() for name, value in source.state_dict().items()}
    tokens = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    expected = source(tokens).log_softmax(-1)
    processed = HookedTransformer.from_pretrained(source)
    torch.testing.assert_close(processed(tokens).log_softmax(-1), expected, atol=1e-4, rtol=1e-4)
    as_is = HookedTransformer.from_pretrained_no_processing(source)
    torch.testing.assert_close(as_is(tokens), source(tokens), atol=1e-6, rtol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())
    assert processed.cfg.normalization_type == "LNPre"
    assert as_is.cfg.normalization_type == "LN"
    for mean in (
        processed.W_E.mean(-1),
        processed.W_O.mean(-1),
        processed.W_Q.mean(-2),
        processed.W_U.mean(-1),
        processed.b_V,
    ):
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    rms = tiny(config=replace(TINY, norm="rmsnorm"), dtype=torch.float32)
    with pytest.warns(UserWarning, match="center_writing_weights is left out"):
        made = HookedTransformer.from_pretrained(rms)
    torch.testing.assert_close(made(tokens).log_softmax(-1), rms(tokens).log_softmax(-1), atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="refactor_factored"):
        HookedTransformer.from_pretrained(source, refactor_factored_attn_matrices=True)


def test_grouped_heads_are_told_one_for_each():
    source = tiny(
        config=replace(TINY, n_kv_heads=1, positions="rotary", mlp="gated", norm="none", bias=False),
        dtype=torch.float32,
    )
    model = HookedTransformer.from_pretrained_no_processing(source)
    assert model.W_K.shape == model.W_Q.shape
    assert torch.equal(model.W_K[:, 0], model.W_K[:, 1])
    assert not model.b_K.any()
    assert model.W_gate.shape == model.W_in.shape
    with pytest.raises(ConfigError, match="no position embedding"):
        model.W_pos  # noqa: B018
    with pytest.raises(ConfigError, match="cannot be assigned to"):
        model.blocks[0].attn.b_Q = torch.ones(2, 8)


def test_what_stands_in_for_weights_that_are_not_there_is_read_and_never_changed():
    shape = {"n_kv_heads": 1, "positions": "rotary", "mlp": "gated", "norm": "rmsnorm", "bias": False}
    model = HookedTransformer.from_pretrained_no_processing(tiny(config=replace(TINY, **shape), dtype=torch.float32))
    attn, mlp, tokens = model.blocks[1].attn, model.blocks[1].mlp, torch.tensor([[1, 2, 3]])
    before, state = model(tokens).detach(), {name: value.clone() for name, value in model.state_dict().items()}
    assert {type(value) for value in state.values()} == {torch.Tensor}
    with torch.no_grad():
        for weight in (attn.W_K, attn.W_V, attn.b_Q, attn.b_K, attn.b_O, mlp.b_in, mlp.b_out):
            doubled = weight * 2 + weight.sum()
            assert type(doubled) is torch.Tensor
            doubled += 1  # what is computed from one is changed as any
            for change in (
                lambda w: w.add_(5), lambda w: w[0].fill_(1), lambda w: w.__setitem__(0, 1.0), lambda w: w.copy_(w + 1),
                lambda w: w.data.zero_(),
                lambda w: w.view(-1)[0].mul_(2), lambda w: w.unbind()[0].zero_(), lambda w: torch.mul(w, 2, out=w),
                lambda w: w.__iadd__(1),
            ):  # fmt: skip
                with pytest.raises(ConfigError, match="none of its own"):
                    change(weight)
        assert torch.equal(model(tokens), before)
        for own in ("_W_K", "_W_V"):
            getattr(attn, own)[0].mul_(2)
            assert not torch.equal(model(tokens), before)
        assert torch.equal(attn.W_K[1], attn._W_K[0])
        model.load_state_dict(state)
        assert torch.equal(model(tokens), before)
    (attn.W_K.pow(2).sum() + attn.b_K.sum()).backward()
    assert model.core.blocks[1].attn.qkv.weight.grad.any()


def test_a_model_in_half_precision_stays_as_it_is():
    source = tiny(dtype=torch.bfloat16)
    before = {name: value.clone() for name, value in source.state_dict().items()}
    for dtype in (torch.float32, torch.bfloat16):
        for make in (HookedTransformer.from_pretrained, HookedTransformer.from_pretrained_no_processing):
            assert make(source, dtype=dtype).core.dtype == dtype
    assert source.dtype == torch.bfloat16
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())


@pytest.mark.filterwarnings("ignore:from_pretrained. center_writing_weights is left out")
@pytest.mark.parametrize("family", ["gpt_neox", "qwen2", "qwen3", "llama", "gpt2"])
def test_texts_begin_by_the_family_whatever_was_done_to_the_model(family):
    model = interp.load(theirs(family))
    wanted = family in ("llama", "gpt2")
    folded = fold_value_biases(fold_layer_norm(model)) if model.config.has_qkv_bias else fold_layer_norm(model)
    for source in (
        model,
        copy.deepcopy(model),
        folded,
        centre_unembedding(model),
        HookedTransformer.from_pretrained(model).core,
        model.half(),
    ):
        assert HookedTransformer.from_pretrained_no_processing(source).cfg.default_prepend_bos is wanted
        assert (
            HookedTransformer.from_pretrained(source, default_prepend_bos=not wanted).cfg.default_prepend_bos
            is not wanted
        )


def test_bos_is_prepended_here_and_not_in_the_library(smalltown):
    model = HookedTransformer.from_pretrained("smalltown", device="cpu")
    assert model.to_tokens("They saw").tolist() == [[0, *model.to_tokens("They saw", prepend_bos=False)[0].tolist()]]
    assert model.to_str_tokens("They saw")[0] == "<|endoftext|>"
    assert torch.equal(model("They saw", prepend_bos=False), model(model.to_tokens("They saw")[:, 1:]))
    without = HookedTransformer.from_pretrained("smalltown", default_prepend_bos=False)
    assert torch.equal(without.to_tokens("They saw"), model.to_tokens("They saw", prepend_bos=False))
    assert len(without.to_str_tokens("They saw", prepend_bos=True)) == 3
    rows = model.to_tokens(["They", "They saw a"])
    assert rows[0].tolist()[2:] == [0, 0]  # filled with the end-of-text token
    left = model.to_tokens(["They", "They saw a"], padding_side="left")
    torch.testing.assert_close(model(left, padding_side="left")[0, -1], model("They")[0, -1], atol=1e-4, rtol=1e-4)
    assert model("They", padding_side="left").isfinite().all()
    with pytest.raises(TokenError, match="is not in the prompt"):
        model.get_token_position(" duck", "They saw a")
    with pytest.raises(TokenError, match="no tokenizer"):
        fresh()("text")


def test_losses_by_hand():
    model, tokens = fresh(), some_tokens()
    logits = model(tokens)
    each = -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    torch.testing.assert_close(model(tokens, return_type="loss", loss_per_token=True), each)
    out = model(tokens, return_type="both")
    torch.testing.assert_close(out.loss, each.mean())
    assert torch.equal(out.logits, logits)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    alone = model(tokens[:1, 2:], return_type="loss", loss_per_token=True)
    both = model(tokens, attention_mask=mask, return_type="loss")
    torch.testing.assert_close(both, torch.cat([alone[0], each[1]]).mean())
    right = logits[:, :-1].argmax(-1) == tokens[:, 1:]
    assert utils.lm_accuracy(logits, tokens) == right.float().mean()
    stream = model(tokens, stop_at_layer=1)
    torch.testing.assert_close(model(stream, start_at_layer=1, return_type="loss", tokens=tokens), each.mean())
    torch.testing.assert_close(model.unembed(model.ln_final(model(tokens, stop_at_layer=2))), logits)
    torch.testing.assert_close(model.blocks[1](stream), model(tokens, stop_at_layer=2))
    with pytest.raises(TokenError, match="needs tokens="):
        model(stream, start_at_layer=1, return_type="loss")


def test_a_classifier_with_fewer_classes_than_tokens():
    model = fresh(d_vocab_out=3, attention_dir="bidirectional")
    assert model(some_tokens()).shape == (2, 6, 3)
    assert model.W_U.shape == (16, 3)
    larger = fresh(d_vocab=5, d_vocab_out=9)
    assert larger(some_tokens() % 5).shape == (2, 6, 9)
    assert larger.W_E.shape == (5, 16)
    with pytest.raises(TokenError, match="ids 0 to 4"):
        larger(torch.tensor([[5]]))


def test_hooks_that_cannot_miss():
    model, tokens = fresh(), some_tokens()

    def same(value, hook):
        return value

    for name in ("blocks.9.hook_resid_pre", "blocks.0.hook_nothing", lambda name: False, []):
        with pytest.raises(HookError):
            model.run_with_hooks(tokens, fwd_hooks=[(name, same)])
        with pytest.raises(HookError):
            model.add_hook(name, same)
        with pytest.raises(HookError):
            model.run_with_cache(tokens, names_filter=name)
    with pytest.raises(HookError, match="not reached"):
        model.run_with_hooks(tokens, fwd_hooks=[("blocks.1.hook_resid_post", same)], stop_at_layer=1)
    with pytest.raises(HookError, match="never fired"), model.hooks(fwd_hooks=[("hook_embed", same)]):
        pass
    with pytest.raises(HookError, match="returned shape"):
        model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", lambda value, hook: value[0])])
    with pytest.raises(HookError, match="never fired"):  # its backward pass comes after the run
        model.run_with_hooks(tokens, bwd_hooks=[("hook_embed", same)])
    model.add_hook("blocks.1.hook_resid_post", same)
    model(tokens, stop_at_layer=1)
    with pytest.raises(HookError, match="never fired"):
        model.reset_hooks()
    model.add_hook("blocks.1.hook_resid_post", same)
    model.reset_hooks()  # nothing was run in the meantime
    assert torch.equal(model(tokens), fresh()(tokens))


def test_hooks_that_were_added_stay_until_they_are_reset():
    model, tokens = fresh(), some_tokens()
    before, calls = model(tokens), []

    def zero(value, hook):
        calls.append((hook.name, hook.layer()))
        hook.ctx["seen"] = True
        return value * 0

    model.add_hook("blocks.1.attn.hook_z", zero)
    model.add_perma_hook("blocks.0.attn.hook_z", zero)
    changed = model(tokens)
    assert torch.equal(model(tokens), changed)
    assert calls[:2] == [("blocks.0.attn.hook_z", 0), ("blocks.1.attn.hook_z", 1)]
    with model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", zero)]) as inside:
        inside(tokens)
    assert torch.equal(model(tokens), changed)
    assert model.hook_dict["blocks.1.attn.hook_z"].ctx == {"seen": True}
    model.reset_hooks()
    assert model.hook_dict["blocks.1.attn.hook_z"].ctx == {}
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", zero)]):
        expected = model(tokens)
    assert torch.equal(model(tokens), expected)
    model.reset_hooks(including_permanent=True)
    assert torch.equal(model(tokens), before)
    model.blocks[0].attn.hook_pattern.add_hook(zero)
    assert not torch.equal(model(tokens), before)
    model.reset_hooks()
    with pytest.raises(RuntimeError, match="stop"), model.hooks(fwd_hooks=[("hook_embed", zero)]):
        raise RuntimeError("stop")
    assert torch.equal(model(tokens), before)


def test_gradients_come_to_hooks():
    model, tokens = fresh(), some_tokens()
    _, cache = model.run_with_cache(
        tokens, return_type="loss", incl_bwd=True, names_filter=lambda name: "resid_post" in name
    )
    seen = {}
    with model.hooks(bwd_hooks=[("blocks.0.hook_resid_post", lambda grad, hook: seen.update({hook.name: grad}))]):
        model(tokens, return_type="loss").backward()
    assert torch.equal(seen["blocks.0.hook_resid_post"], cache["blocks.0.hook_resid_post_grad"])
    stream = model(tokens, stop_at_layer=1).detach().requires_grad_()
    model(stream, start_at_layer=1, return_type="loss", tokens=tokens).backward()
    torch.testing.assert_close(stream.grad, seen["blocks.0.hook_resid_post"])


@pytest.mark.parametrize(
    ("switch", "points"),
    [
        ("set_use_attn_result", ["attn.hook_result"]),
        ("set_use_split_qkv_input", ["hook_q_input", "hook_k_input", "hook_v_input"]),
        ("set_use_hook_mlp_in", ["hook_mlp_in"]),
    ],
)
def test_points_that_are_switched_on(switch, points):
    model, tokens = fresh(), some_tokens()
    before = model(tokens)
    name = f"blocks.1.{points[0]}"
    assert name not in model.hook_dict
    assert name not in model.run_with_cache(tokens)[1]
    with pytest.raises(HookError, match=f"call model.{switch}"):
        model.run_with_hooks(tokens, fwd_hooks=[(name, lambda value, hook: value)])
    getattr(model, switch)(True)
    logits, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(logits, before, atol=1e-6, rtol=1e-6)
    for point in points:
        assert f"blocks.1.{point}" in cache
        assert not torch.equal(
            model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.1.{point}", lambda value, hook: value * 0)]), before
        )
    with (
        pytest.raises(HookError, match="hooks are attached"),
        model.hooks(fwd_hooks=[(name, lambda value, hook: value)]),
    ):
        getattr(model, switch)(False)
    getattr(model, switch)(False)
    assert name not in model.hook_dict


def test_the_cache():
    model, tokens = fresh(), some_tokens()
    _, cache = model.run_with_cache(tokens)
    assert isinstance(cache, ActivationCache)
    assert cache["pattern", 0, "attn"] is cache["pattern", 0] is cache["blocks.0.attn.hook_pattern"]
    assert cache["z", -1] is cache["z", 1]
    assert dict(cache.items()).keys() == cache.keys()
    parts, labels = cache.get_full_resid_decomposition(return_labels=True)
    torch.testing.assert_close(parts.sum(0), cache["resid_post", 1], atol=1e-5, rtol=1e-5)
    assert labels[-3:] == ["embed", "pos_embed", "bias"]
    answers = tokens[:, 0]
    shares = cache.logit_attrs(cache.decompose_resid(), answers)
    bias = (model.ln_final.b * model.W_U.mT[answers]).sum(-1) + model.b_U[answers]
    found = model(tokens).gather(-1, answers[:, None, None].expand(-1, 6, 1))[..., 0]
    torch.testing.assert_close(shares.sum(0) + bias[:, None], found, atol=1e-4, rtol=1e-4)
    rest, labels = cache.stack_head_results(layer=1, incl_remainder=True, return_labels=True)
    torch.testing.assert_close(rest.sum(0), cache["resid_post", 0], atol=1e-5, rtol=1e-5)
    assert labels == ["L0H0", "L0H1", "remainder"]
    first, _ = cache.stack_head_results(layer=0, incl_remainder=True, return_labels=True)
    torch.testing.assert_close(first[0], cache["resid_pre", 0])
    one = cache.apply_slice_to_batch_dim(1)
    torch.testing.assert_close(one.decompose_resid(pos_slice=-1), cache.decompose_resid()[:, 1, -1])
    _, short = model.run_with_cache(tokens, pos_slice=(2, 4))
    assert torch.equal(short["resid_mid", 1], cache["resid_mid", 1][:, 2:4])
    assert torch.equal(short["pattern", 1], cache["pattern", 1][:, :, 2:4])
    assert cache.to("cpu") is cache
    with pytest.raises(HookError, match="has 2 rows"):
        cache.remove_batch_dim()
    with pytest.raises(HookError, match="was not cached"):
        cache["result", 5]
    with pytest.raises(ConfigError, match="layer 3 is out of range"):
        cache.decompose_resid(layer=3)


def test_generation(smalltown):
    model = HookedTransformer.from_pretrained("smalltown", device="cpu")
    texts = model.generate(["Once upon", "They"], max_new_tokens=5, do_sample=False)
    assert texts[1] == model.generate("They", max_new_tokens=5, do_sample=False)
    tokens = model.to_tokens("Once upon")
    for _ in range(5):
        tokens = torch.cat([tokens, model(tokens)[:, -1].argmax(-1)[:, None]], dim=1)
    assert torch.equal(model.generate(tokens[:, :3], max_new_tokens=5, do_sample=False), tokens)
    assert texts[0] == model.to_string(tokens[0, 1:])
    torch.manual_seed(1)
    drawn = model.generate("They", max_new_tokens=8)
    torch.manual_seed(1)
    assert model.generate("They", max_new_tokens=8) == drawn
    assert model.generate("They", max_new_tokens=8) != drawn
    ended = model.generate(tokens, max_new_tokens=4, do_sample=False, eos_token_id=int(model(tokens)[0, -1].argmax()))
    assert ended.shape[1] == tokens.shape[1] + 1
    with pytest.raises(ConfigError, match="freq_penalty"):
        model.generate("They", freq_penalty=1.0)
    with pytest.raises(TokenError, match="eos_token_id"):
        fresh().generate(some_tokens())


def test_states_go_out_and_come_in_by_their_keys():
    model, other = fresh(seed=0), fresh(seed=1)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert {"embed.W_E", "blocks.0.attn.W_Q", "blocks.1.mlp.W_in", "blocks.0.ln1.w", "unembed.W_U"} <= state.keys()
    other.load_state_dict(state | {"blocks.0.attn.mask": torch.ones(2), "blocks.0.attn.IGNORE": torch.tensor(0.0)})
    assert torch.equal(other(some_tokens()), model(some_tokens()))
    with pytest.raises(CheckpointError, match="has no place"):
        other.load_state_dict(state | {"blocks.0.attn.W_R": torch.ones(2)})
    with pytest.raises(CheckpointError, match="is missing"):
        other.load_state_dict({})
    with pytest.raises(CheckpointError, match="has shape"):
        other.load_state_dict(state | {"embed.W_E": torch.ones(2)})
    model.blocks[0].attn.W_Q = torch.zeros_like(model.W_Q[0])
    assert not model.W_Q[0].any()
    changed = copy.deepcopy(model)
    changed.blocks[0].mlp.W_in = changed.W_in[0] + 1
    assert not torch.equal(changed.W_in, model.W_in)


def test_configurations():
    cfg = HookedTransformerConfig(**SHAPE)
    assert (cfg.n_heads, cfg.d_mlp, cfg.d_vocab_out, cfg.default_prepend_bos) == (2, 64, 20, True)
    assert cfg.n_params == 2 * (4 * 16 * 8 * 2 + 2 * 16 * 64)
    assert HookedTransformerConfig.from_dict(cfg.to_dict()) == cfg
    assert HookedTransformer(cfg.to_dict()).cfg.d_model == 16
    with pytest.raises(ConfigError, match="no field 'n_layer'"):
        HookedTransformerConfig.from_dict({"n_layer": 2})
    for wrong in ({"init_mode": "muP"}, {"act_fn": None}, {"num_experts": 2}):
        with pytest.raises(ConfigError):
            HookedTransformerConfig(**(SHAPE | wrong))
    for wrong in ({"act_fn": "solu_ln"}, {"normalization_type": "BN"}, {"positional_embedding_type": "shortformer"}):
        with pytest.raises(ConfigError):
            fresh(**wrong)
    tokens = fresh(use_hook_tokens=True)
    seen = []
    tokens.run_with_hooks(some_tokens(), fwd_hooks=[("hook_tokens", lambda value, hook: seen.append(value))])
    assert torch.equal(seen[0], some_tokens())
    assert "interp.transformer_lens" not in interp.__all__
