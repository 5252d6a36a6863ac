"""Hooks cannot miss, leak or misfire silently; the cache holds what the model computed."""

import threading

import pytest
import torch
from conftest import random_tokens, tiny

from interp.errors import HookError
from interp.hooks import attached_hooks


def test_a_hook_reads_edits_and_replaces(model, tokens):
    base = model(tokens)
    seen = []
    with model.hooks({"blocks.1.hook_resid_pre": lambda value, hook: seen.append((hook.name, value.shape))}):
        assert torch.equal(model(tokens), base)
    assert seen == [("blocks.1.hook_resid_pre", (2, 10, 16))]

    def in_place(value, hook):
        value[:, 3] = 0

    def returned(value, hook):
        return value.index_fill(1, torch.tensor([3]), 0)

    outputs = []
    for fn in (in_place, returned):
        with model.hooks({"blocks.1.hook_resid_pre": fn}):
            outputs.append(model(tokens))
    assert torch.equal(*outputs)
    assert (outputs[0] - base).abs().max() > 1e-3  # the edit moves the output, so that the equality says something
    assert torch.equal(outputs[0][:, :3], base[:, :3])


def test_hooks_run_in_order_and_nest(model, tokens):
    order = []
    note = lambda word: lambda value, hook: order.append(word)  # noqa: E731
    with model.hooks({"hook_embed": note("outer")}):
        with model.hooks([("hook_embed", note("inner")), (lambda name: name == "hook_embed", note("last"))]):
            model(tokens)
        assert attached_hooks(model) == ["hook_embed"]
        model(tokens)
    assert order == ["outer", "inner", "last", "outer"]
    assert attached_hooks(model) == []


def test_an_in_place_hook_changes_nothing_cached_before(model, tokens):
    _, plain = model.run_with_cache(tokens)
    with model.hooks({"blocks.1.hook_resid_pre": lambda value, hook: value.zero_()}):
        _, cache = model.run_with_cache(tokens)
    assert torch.equal(cache["resid_post", 0], plain["resid_post", 0])
    assert (cache["resid_pre", 1] == 0).all()
    assert (cache["resid_post", 1] - plain["resid_post", 1]).abs().max() > 1e-3


def test_captured_values_and_later_hooks_at_the_same_point(model, tokens):
    with model.capture("hook_embed") as before, model.hooks({"hook_embed": lambda value, hook: value.zero_()}):
        model(tokens)
    assert before["hook_embed"].abs().max() > 0


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (
            "blocks.1.hook_resid_pree",
            r"'blocks.1.hook_resid_pree' matches no hook point. Did you mean 'blocks.1.hook_resid_pre'",
        ),
        (["hook_embed", "hook_pos_embde"], "hook_pos_embde.*Did you mean.*hook_pos_embed"),
        ("blocks.9.*", "pattern 'blocks.9.\\*' matches no hook point"),
        (lambda name: False, "predicate matches none"),
        ([], "empty"),
    ],
)
def test_a_selection_that_misses_is_an_error(model, tokens, selection, message):
    with pytest.raises(HookError, match=message):
        model.run_with_cache(tokens, selection)
    with pytest.raises(HookError, match=message), model.hooks([(selection, lambda value, hook: None)]):
        pass
    assert attached_hooks(model) == []


def test_a_hook_that_never_fires_is_an_error(model, tokens):
    with (
        pytest.raises(HookError, match=r"blocks.2.hook_resid_pre never fired"),
        model.hooks({"blocks.2.hook_resid_pre": print}),
    ):
        model.run_blocks(model.embed(tokens), stop_at_layer=1)
    with pytest.raises(HookError, match="never fired"), model.hooks({"hook_embed": print}):
        pass
    with pytest.raises(HookError, match="no hooks"), model.hooks({}):
        pass


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (lambda v: v[:, :1], r"shape \(2, 1, 16\), expected \(2, 10, 16\) \(batch, position, d_model\)"),
        (lambda v: v.float(), "dtype torch.float32, expected torch.float64"),
        (lambda v: v.to("meta"), "device meta, expected cpu"),
        (lambda v: 3, "returned int"),
    ],
)
def test_a_return_the_model_cannot_use_is_an_error(model, tokens, replace, message):
    with (
        pytest.raises(HookError, match=f"blocks.0.hook_attn_out returned {message}|blocks.0.hook_attn_out {message}"),
        model.hooks({"blocks.0.hook_attn_out": lambda value, hook: replace(value)}),
    ):
        model(tokens)
    assert attached_hooks(model) == []


def test_hooks_leave_on_an_exception_which_is_not_masked(model, tokens):
    with pytest.raises(ZeroDivisionError), model.hooks({"blocks.2.hook_resid_pre": lambda v, h: None}):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), model.hooks({"hook_embed": lambda v, h: 1 / 0}):
        model(tokens)
    assert attached_hooks(model) == []


def test_hooks_leave_when_a_context_is_abandoned(model):
    context = model.hooks({"hook_embed": print})
    context.__enter__()
    assert attached_hooks(model) == ["hook_embed"]
    del context
    assert attached_hooks(model) == []


def test_two_threads_with_a_model_each():
    tokens, results = random_tokens(), {}
    expected = {seed: tiny(seed)(tokens) for seed in (0, 1)}

    def run(seed):
        model = tiny(seed)
        for _ in range(20):
            with model.hooks({"hook_embed": lambda v, h: v.zero_()}):
                model(tokens)
            results[seed] = model(tokens)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(results[seed], expected[seed]) for seed in (0, 1))


def test_names_and_shapes_of_every_hook_point(model, tokens):
    logits, cache = model.run_with_cache(tokens)
    sizes = {
        "batch": 2,
        "position": 10,
        "query": 10,
        "key": 10,
        "d_model": 16,
        "head": 2,
        "kv_head": 2,
        "d_head": 8,
        "d_mlp": 32,
        "one": 1,
    }
    assert logits.shape == (2, 10, 50)
    assert list(cache) == list(model.hook_points)
    assert len(cache) == 2 + 3 * 20 + 3
    for name, point in model.hook_points.items():
        assert cache[name].shape == tuple(sizes[axis] for axis in point.axes), name


def test_selection_computes_and_keeps_only_what_was_named(model, tokens):
    _, cache = model.run_with_cache(tokens, ["blocks.*.hook_resid_post", "hook_embed"])
    assert list(cache) == ["hook_embed", *(f"blocks.{layer}.hook_resid_post" for layer in range(3))]
    einsum = torch.einsum
    calls = []
    torch.einsum = lambda *args: calls.append(args[0]) or einsum(*args)
    try:
        model.run_with_cache(tokens, "blocks.*.hook_resid_post")
        assert calls == []  # neither scores, pattern nor per-head results were built
        model.run_with_cache(tokens, "blocks.1.attn.hook_pattern")
        assert len(calls) == 2
    finally:
        torch.einsum = einsum


def test_a_value_with_two_names_is_one_tensor(model, tokens):
    _, cache = model.run_with_cache(tokens)
    assert cache["resid_post", 0] is cache["resid_pre", 1]
    moved = cache.to(torch.float32)
    assert moved["resid_post", 0] is moved["resid_pre", 1]
    assert moved["resid_pre", 1].dtype == torch.float32
    assert model.dtype == torch.float64
    residual = 2 * 10 * 16 * 8
    _, few = model.run_with_cache(tokens, ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"])
    assert few.nbytes == residual


def test_the_cache_is_read_only_and_notices_changes(model, tokens):
    _, cache = model.run_with_cache(tokens, "blocks.*.hook_resid_pre")
    with pytest.raises(TypeError):
        cache["x"] = torch.zeros(1)
    cache["resid_pre", 1].add_(1)
    with pytest.raises(HookError, match=r"blocks.1.hook_resid_pre was changed in place"):
        cache["resid_pre", 1]
    assert cache["resid_pre", 2] is not None


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("blocks.0.hook_resid_mid", "not cached"),
        (("patern", 1), "names no hook point of layer 1"),
        (("scale", 1), "ambiguous"),
        (("z", 7), "no hook point of layer 7"),
    ],
)
def test_a_key_the_cache_does_not_have(model, tokens, key, message):
    _, cache = model.run_with_cache(tokens, lambda name: "resid_mid" not in name)
    with pytest.raises(HookError, match=message):
        cache[key]


def test_gradients_flow_through_hooks(tokens):
    model = tiny().requires_grad_(True)
    with model.hooks({"blocks.0.hook_mlp_out": lambda value, hook: value * 2}):
        model(tokens).sum().backward()
    assert model.blocks[0].mlp.output.weight.grad.abs().max() > 0
