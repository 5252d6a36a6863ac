"""Odd and bad arguments of `interp.transformer_lens`: what can be meant is done, all else is an error with a name."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from test_transformer_lens_layer import fresh, some_tokens
from test_transformer_lens_patching import NAMES, mean_difference

from interp.errors import ConfigError, HookError, InterpError, TokenError
from interp.transformer_lens import ActivationCache, HookedTransformer, HookedTransformerConfig, patching, utils


@contextmanager
def refused(error, match=None) -> Iterator[None]:
    """What users meet, for whom nothing checks types: an error of the library's own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(error, match=match):
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def town(smalltown) -> HookedTransformer:
    return HookedTransformer.from_pretrained("smalltown", device="cpu")


@pytest.fixture(scope="module")
def cached() -> tuple[HookedTransformer, torch.Tensor, ActivationCache]:
    model, tokens = fresh(), some_tokens(2, 5)
    return model, tokens, model.run_with_cache(tokens)[1]


@pytest.mark.parametrize("given", [5, None, {"a": 1}, [1, 2], np.array([1, 2]), [], ["They", 3]], ids=str)
def test_what_is_no_text(town, given):
    for taking in (town, town.to_tokens, town.generate, town.run_with_cache):
        with refused(TokenError, match="give a text, a list of texts, or a tensor of ids"):
            taking(given)


def test_tokens_in_every_form(town):
    duck, dog = town.to_single_token(" duck"), town.to_single_token(" dog")
    pair = town.tokens_to_residual_directions(torch.tensor([duck, dog]))
    for given in (
        [" duck", " dog"],
        [duck, dog],
        (" duck", dog),
        np.array([duck, dog]),
        torch.tensor([duck, dog]).int(),
    ):
        assert torch.equal(town.tokens_to_residual_directions(given), pair)
    for given in (" duck", duck, np.int64(duck), torch.tensor([duck]), [duck]):
        assert torch.equal(town.tokens_to_residual_directions(given), pair[0])
    for given in (
        None,
        1.5,
        True,
        -1,
        10**6,
        torch.tensor([1.0]),
        torch.tensor([-1, 2]),
        [None],
        {"a": 1},
        "no such thing",
    ):
        with refused(TokenError):
            town.tokens_to_residual_directions(given)
    assert town.get_token_position(torch.tensor([5]), [1, 5]) == town.get_token_position(5, np.array([1, 5])) == 1
    for token, prompt in ((None, "They"), ([1, 2], "They"), (5, None), (5, [[1], [2]]), (5, 5)):
        with refused(TokenError):
            town.get_token_position(token, prompt)
    for given in (5, None, ["They"], torch.tensor([5])):
        with refused(TokenError, match="give a text"):
            town.to_single_token(given)
    assert town.to_string([[5, 6], [7, 8]]) == town.to_string(torch.tensor([[5, 6], [7, 8]]))
    assert town.to_str_tokens(torch.tensor(5)) == town.to_str_tokens([[5]]) == town.to_str_tokens(5)
    _, cache = town.run_with_cache(["They saw a", "Once upon a"])
    parts = cache.decompose_resid()
    expected = cache.logit_attrs(parts, torch.tensor([duck, dog]))
    for given in ([" duck", " dog"], [duck, dog], np.array([duck, dog])):
        assert torch.equal(cache.logit_attrs(parts, given), expected)
    for given in (None, -1, 10**6, 1.5, True, torch.tensor([1, 2, 3]), [" duck", "no such thing"]):
        with refused(TokenError):
            cache.logit_attrs(parts, given)


def test_the_tokenizer_has_the_names_of_theirs(town):
    tokenizer = town.tokenizer
    prefix = (torch.ones(2, 1) * tokenizer.bos_token_id).long()
    assert prefix.tolist() == town.to_tokens(["a", "b"])[:, :1].tolist()
    assert tokenizer.bos_token == tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0
    assert tokenizer.vocab_size == len(tokenizer) == town.cfg.d_vocab
    ids = tokenizer.encode("They saw")
    assert tokenizer.decode(torch.tensor(ids)) == tokenizer.decode(ids) == "They saw"
    assert tokenizer.decode(ids[0]) == "They"
    assert tokenizer.batch_decode(torch.tensor([ids, ids])) == ["They saw"] * 2
    assert town("They saw").isfinite().all()
    assert fresh().tokenizer is None


@pytest.mark.parametrize(
    "options",
    [{"attention_mask": torch.ones(2, 2)}, {"attention_mask": [[1] * 5] * 2}, {"past_kv_cache": "kept"}, {"bogus": 1},
     {"return_type": "all"}, {"stop_at_layer": "1"}],
    ids=str,
)  # fmt: skip
def test_options_of_a_run(cached, options):
    model, tokens, _ = cached
    for run in (model, model.run_with_cache, partial(model.run_with_hooks, fwd_hooks=[])):
        with refused(InterpError):
            run(tokens, **options)
    assert torch.equal(model(tokens, past_kv_cache=None), model(tokens))


def test_options_of_a_cache(cached):
    model, tokens, whole = cached
    kept = model.hook_dict["hook_embed"].ctx
    kept["seen"] = True
    _, cache = model.run_with_cache(tokens, reset_hooks_end=False, clear_contexts=True)
    assert not kept
    assert torch.equal(cache["z", -1], whole["z", np.int64(-1)])
    assert torch.equal(cache["z", torch.tensor(1)], whole["z", 1])
    assert cache.get("hook_nothing") is None
    assert cache.get(("z", 7), 3) == 3
    assert torch.equal(cache.get("hook_embed"), cache["embed"])
    assert torch.equal(cache.get_neuron_results(-1), cache.get_neuron_results(1))
    for key in (0, None, (), ("z", 0, "attn", 1), (3, 0), ("z", 1.0), ("z", True), ("z", [0]), ("z", -3), slice(2)):
        with refused(HookError):
            cache[key]
    for device in ("nowhere", "meta"):
        with refused(HookError, match="This machine has"):
            cache.to(device) if device == "nowhere" else model.run_with_cache(tokens, device=device)
    sums = (cache.accumulated_resid, cache.decompose_resid, cache.stack_head_results, cache.stack_neuron_results,
            cache.get_full_resid_decomposition, partial(cache.stack_activation, "z"))  # fmt: skip
    for made in sums:
        for layer in (1.0, "1", True, [0], -2, 3):
            with refused(ConfigError, match="layer"):
                made(layer=layer)
    with refused(ConfigError, match="no layer before 0"):
        cache.stack_activation("z", layer=0)
    for layer in (-1, 3, None, 1.5):
        with refused(ConfigError, match="layer"):
            model.accumulated_bias(layer)
    parts = cache.decompose_resid(pos_slice=(1, 3))
    with refused(HookError, match="give the same pos_slice"):
        cache.logit_attrs(parts, 3)
    assert cache.logit_attrs(parts, 3, pos_slice=(1, 3)).shape == (6, 2, 2)
    for given in ([1, 2], torch.ones(2, 5, 3)):
        with refused(HookError, match="give parts of a stream"):
            cache.apply_ln_to_stack(given)


def test_hooks_that_are_none(cached):
    model, tokens, _ = cached

    def same(value, hook):
        return value

    for given in (("hook_embed", same), [("hook_embed",)], [("hook_embed", None)], None, {"hook_embed": same}):
        with refused(HookError, match="give a list of pairs"):
            model.run_with_hooks(tokens, fwd_hooks=given)
        with refused(HookError, match="give a list of pairs"), model.hooks(bwd_hooks=given):
            pass
    for wrong in ({"dir": "sideways"}, {"prepend": True}, {"hook": None}):
        with refused(HookError):
            model.add_hook(**({"name": "hook_embed", "hook": same} | wrong))
    with refused(HookError, match="direction"):
        model.reset_hooks(direction="sideways")
    model.add_hook("hook_embed", lambda value, hook: value * 0, level=1)
    model.add_hook("hook_pos_embed", same, level=2)
    model.reset_hooks(level=1)
    assert torch.equal(model(tokens), fresh()(tokens))
    assert [one.level for one in model._attached] == [2]
    model.reset_hooks()
    with refused(ConfigError, match="ungroup"):
        model.set_ungroup_grouped_query_attention(True)
    model.set_ungroup_grouped_query_attention(False)


def test_gradients_at_all_points_pass_over_the_ids():
    """Attribution patching keeps values and gradients of every point: ids have none."""
    model, tokens = fresh(use_hook_tokens=True), some_tokens()
    values, slopes = {}, {}
    model.add_hook(lambda name: True, lambda value, hook: values.update({hook.name: value.detach()}))
    model.add_hook(lambda name: True, lambda value, hook: slopes.update({hook.name: value.detach()}), "bwd")
    mean_difference(model(tokens)).backward()
    model.reset_hooks()
    assert values.keys() - slopes.keys() == {"hook_tokens"}
    _, cache = model.run_with_cache(tokens, return_type="loss", incl_bwd=True)
    assert "hook_tokens" in cache
    assert "hook_tokens_grad" not in cache
    with refused(HookError, match="holds ids"):
        model.add_hook("hook_tokens", lambda value, hook: None, "bwd")


@pytest.mark.parametrize("kind", [{}, {"gated_mlp": True, "normalization_type": "RMS", "positional_embedding_type": "rotary", "n_heads": 4,
                                       "n_key_value_heads": 2}, {"parallel_attn_mlp": True}], ids=str)  # fmt: skip
def test_gradients_at_the_points_that_are_switched_on(kind):
    """What edge attribution multiplies: each is the derivative by what that reader alone reads."""
    model, tokens = fresh(**kind).to(torch.float64), some_tokens()
    for switch in (model.set_use_attn_result, model.set_use_split_qkv_input, model.set_use_hook_mlp_in):
        switch(True)
    push = torch.linspace(-1, 2, 16, dtype=torch.float64)
    for point in ("hook_q_input", "hook_k_input", "hook_v_input", "attn.hook_result", "hook_mlp_in"):
        name, slopes = f"blocks.0.{point}", []
        at = (1, 2) if point == "hook_mlp_in" else (1, 2, 1)
        with model.hooks(bwd_hooks=[(name, lambda slope, hook, to=slopes: to.append(slope.clone()))]):
            mean_difference(model(tokens)).backward()

        def moved(value, hook, at=at, size=0.0):
            value[at] += size * push

        with torch.no_grad():
            up, down = (
                mean_difference(model.run_with_hooks(tokens, fwd_hooks=[(name, partial(moved, size=size))]))
                for size in (1e-4, -1e-4)
            )
        torch.testing.assert_close(slopes[0][at] @ push, (up - down) / 2e-4, atol=1e-9, rtol=1e-4)
        assert slopes[0][at].any()


def test_configurations_that_are_none():
    for wrong in ({"d_model": 0}, {"d_head": -1}, {"dtype": "float33"}, {"dtype": torch.long}, {"device": "nowhere"}, {"seed": "a"},
                  {"ungroup_grouped_query_attention": True}, {"use_NTK_by_parts_rope": True},
                  {"use_local_attn": True, "window_size": 3, "attn_types": ["local"]}):  # fmt: skip
        with refused(ConfigError):
            fresh(**wrong)
    for given in (None, 3, {"n_layers": 1}):
        with refused(ConfigError, match="HookedTransformerConfig"):
            HookedTransformer(given)
    assert fresh(dtype="float64", decoder_start_token_id=None)(some_tokens()).dtype == torch.float64
    assert HookedTransformerConfig.from_dict(fresh().cfg.to_dict()).ungroup_grouped_query_attention is False


def test_options_of_loading(smalltown):
    load = partial(HookedTransformer.from_pretrained, "smalltown")
    for wrong in ({"device": "nowhere"}, {"dtype": "float33"}, {"n_devices": 2}, {"first_n_layers": 1}, {"bogus": 1}):
        with refused(ConfigError):
            load(**wrong)
    model = load(device=torch.device("cpu"), dtype="bfloat16", n_devices=1, move_to_device=True, checkpoint_index=None)
    assert model.W_E.dtype == model.cfg.dtype == torch.bfloat16
    assert utils.to_numpy(model.W_E).shape == (model.cfg.d_vocab, model.cfg.d_model)
    assert model.to("cpu", print_details=False).to(torch.float64)("They").dtype == torch.float64
    with refused(ConfigError, match="This machine has"):
        model.to("nowhere")
    with refused(ConfigError, match="return_type"):
        model.generate("They", return_type="list")
    for prompt, answer in ((3, " a"), ("They", 3), ("They", [3])):
        with refused(TokenError, match="as text"):
            utils.test_prompt(prompt, answer, model)


def test_losses_of_tokens_that_do_not_fit(cached):
    model, tokens, _ = cached
    logits = model(tokens)
    for of in (utils.lm_cross_entropy_loss, utils.lm_accuracy):
        for wrong in (tokens[:, :3], tokens[:1], tokens.float(), tokens * 0 - 1, tokens + 20, None, tokens[0]):
            with refused(TokenError, match="tokens must be ids"):
                of(logits, wrong)
        with refused(TokenError, match="logits must be"):
            of(logits[0], tokens[0])
    with refused(TokenError, match="attention_mask"):
        utils.lm_cross_entropy_loss(logits, tokens, torch.ones(2, 3))
    for name in (3, None, ""):
        with refused(HookError, match="named by text"):
            utils.get_act_name(name)


def test_grids_of_heads_that_share_keys():
    model = fresh(n_heads=4, n_key_value_heads=2)
    tokens = some_tokens(2, 4, seed=1)
    _, cache = model.run_with_cache(some_tokens(2, 4))
    whole = patching.get_act_patch_attn_head_all_pos_every(model, tokens, cache, mean_difference)
    assert whole.shape == (5, 2, 4)
    keys = patching.get_act_patch_attn_head_k_all_pos(model, tokens, cache, mean_difference)
    assert torch.equal(whole[2, :, :2], keys)
    assert not whole[2:4, :, 2:].any()
    assert patching.get_act_patch_attn_head_by_pos_every(model, tokens, cache, mean_difference).shape == (5, 2, 4, 4)


@pytest.mark.parametrize("name", ["get_act_patch_resid_pre", "get_act_patch_attn_head_out_by_pos"])
def test_a_metric_that_goes_by_steps_equals_a_run_for_each_cell(name):
    """Where the largest logit is wrong in the corrupted run, noise leaves it wrong, though a patch may set it right."""
    model, clean, corrupt = fresh(initializer_range=0.8), some_tokens(3, 5), some_tokens(3, 5, seed=1)
    logits, cache = model.run_with_cache(clean)
    answers = logits.argmax(-1)

    def accuracy(logits):
        return (logits.argmax(-1) == answers).float().mean()

    waves = NAMES[name](model, corrupt, cache, accuracy)
    model.add_hook("hook_embed", lambda value, hook: None)  # with a hook attached each cell is a run of its own
    cells = NAMES[name](model, corrupt, cache, accuracy)
    model.reset_hooks()
    assert torch.equal(waves, cells)
    assert len(cells.unique()) > 2


def test_patching_with_what_is_none(cached):
    model, tokens, cache = cached
    patch = patching.get_act_patch_resid_pre
    row = patch(model, tokens[0], model.run_with_cache(tokens[:1], remove_batch_dim=True)[1], mean_difference)
    assert row.shape == (2, 5)
    asked = {"model": model, "corrupted_tokens": tokens, "clean_cache": cache, "patching_metric": mean_difference}
    for wrong in ({"model": model.core}, {"corrupted_tokens": "text"}, {"clean_cache": None}, {"patching_metric": None},
                  {"patching_metric": lambda logits: logits[:, -1, 1]}, {"patching_metric": lambda logits: "x"},
                  {"patching_metric": lambda logits: None}):  # fmt: skip
        with refused(ConfigError, match="patching: "):
            patch(**(asked | wrong))
    with refused(HookError, match="not in the clean cache"):
        patch(model, tokens, {}, mean_difference)
    generic = partial(
        patching.generic_activation_patch,
        model,
        tokens,
        cache,
        mean_difference,
        patching.layer_pos_patch_setter,
        "resid_pre",
    )
    for axes in ("layer", ["layer"], ("pos", "layer"), [], ("layer", "row")):
        with refused(ConfigError):
            generic(index_axis_names=axes)
    for table in ([[0.5, 1]], [["a", 1]], [[0]], [[0, 1, 1]]):
        with refused(ConfigError, match="patching: an index"):
            generic(index_df=pd.DataFrame(table))


def test_padding_in_ids_is_no_token(town):
    model, core = town, town.core
    ids = torch.tensor([[11, -1, 12, 13], [14, 15, 16, -1], [-1, 17, 18, 19]])
    real = ids != -1
    logits = model(ids)
    torch.testing.assert_close(logits, core(ids), equal_nan=True)
    assert logits[~real].isnan().all()
    for row, there in zip(range(3), real, strict=True):
        torch.testing.assert_close(logits[row][there], model(ids[row][there][None])[0], atol=1e-4, rtol=1e-4)
    seen, cache = model.run_with_cache(ids)
    torch.testing.assert_close(seen, logits, equal_nan=True)
    assert (cache["pattern", 0][0, :, 2:, 1] == 0).all()
    losses = model(ids, return_type="loss", loss_per_token=True)
    assert (losses == 0).tolist() == [[True, True, False], [False, False, True], [True, False, False]]
    torch.testing.assert_close(losses[1, :2], model(ids[1:2, :3], return_type="loss", loss_per_token=True)[0])
    assert torch.equal(model(ids, attention_mask=torch.ones_like(ids)).isnan(), logits.isnan())
    going = model.generate(ids[:1], max_new_tokens=2, do_sample=False)
    alone = model.generate(ids[:1][real[:1]][None], max_new_tokens=2, do_sample=False)
    assert torch.equal(going[0, -2:], alone[0, -2:])
    bare = fresh()
    assert bare.generate(torch.tensor([[1, -1, 2]]), max_new_tokens=1, stop_at_eos=False)[0, :3].tolist() == [1, -1, 2]
    for wrong in (torch.tensor([[-1, -1]]), torch.tensor([[1, -2]])):
        with refused(TokenError):
            model(wrong)
    for wrong in (torch.tensor([[1, -1]]), torch.tensor([[10**6]])):
        with refused(TokenError, match="embed"):
            model.embed(wrong)


def test_a_hook_that_takes_a_token_away_is_followed():
    model = fresh(use_hook_tokens=True)
    ids = some_tokens(1, 4)

    def drop(value, hook):
        return torch.where(torch.arange(4) == 1, -1, value)

    found = model.run_with_hooks(ids, fwd_hooks=[("hook_tokens", drop)])
    assert found[0].isnan().all(-1).tolist() == [False, True, False, False]


def test_places_in_a_factored_matrix(cached):
    model, *_ = cached
    whole, product = model.QK, model.QK.AB
    for index in (0, -1, np.int64(1), slice(0, 1), [1, 0], torch.tensor([1]), np.array([0]), [True, False], (0, [1])):
        torch.testing.assert_close(whole[index].AB, product[index])
    torch.testing.assert_close(whole[0, 1, 1:3, ::2].AB, product[0, 1, 1:3, ::2])
    torch.testing.assert_close(whole[..., 2].AB, product[..., 2:3])
    assert len(model.blocks[:1]) == 1
    assert model.blocks[-1]._layer == model.cfg.n_layers - 1
