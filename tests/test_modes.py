"""What a user switches off around a call, or has in half precision, does not change or break it."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
import xarray as xr
from conftest import TINY, random_tokens, tiny
from torch.func import functional_call

import analyses
import interp
from analyses import cascade
from analyses.attention.circuits import circuit_slice, copying_scores, singular_tokens
from interp import FactoredMatrix, Transformer
from interp.errors import HookError, InterpError

OFF = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
}
PAIR = {"answer": 3, "wrong": 4}
GAP = {**PAIR, "smallest_gap": 1e-6}

MEASURED = {
    "logit_lens": lambda m, t: analyses.logit_lens(m, t),
    "component_lens": lambda m, t: analyses.component_lens(m, t),
    "activation_patching": lambda m, t: analyses.activation_patching(m, t[:1], t[1:], **GAP),
    "attribution_patching": lambda m, t: analyses.attribution_patching(m, t[:1], t[1:], **GAP, verify=3),
    "causal_tracing": lambda m, t: analyses.causal_tracing(m, t[:1], subject=range(2, 4), draws=2, smallest_gap=1e-6),
    "attribution": lambda m, t: analyses.direct_logit_attribution(m, t, **PAIR),
    "spectrum": lambda m, t: cascade.jacobian_spectrum(m, t[:1], k=4),
    "participation": lambda m, t: cascade.participation(m, t[:1]),
    "lyapunov": lambda m, t: cascade.lyapunov(m, t[:1], k=4),
    "gain": lambda m, t: cascade.gain(m, t, n_directions=2, dose=None),
    "ledger": lambda m, t: cascade.ledger(m, t[:1], t[1:]),
    "light_cone": lambda m, t: cascade.light_cone(m, t, n_directions=2),
    "damping": lambda m, t: cascade.damping(m, t, n_directions=2),
    "dose_response": lambda m, t: cascade.dose_response(m, t[:1], n_directions=2),
    "stable_regions": lambda m, t: cascade.stable_regions(m, t, points=3, pairs=1),
    "rasters": lambda m, t: cascade.rasters(m, t),
    "wavefront": lambda m, t: cascade.wavefront(m, t[:1, :6], cascade.Swap(1, 7), steps=4),
    "residual_stream": lambda m, t: analyses.residual_stream(m, t),
    "edge_patching": lambda m, t: analyses.edge_patching(m, t[:1], t[1:], **GAP),
    "mean_field": lambda m, t: cascade.mean_field(m, t),
    "self_repair": lambda m, t: cascade.self_repair(m, t, (1, 0), **PAIR),
    "coupled": lambda m, t: cascade.coupled(m, t[:, :4], cascade.Swap(1, 7), seeds=2, steps=8),
}


@pytest.mark.parametrize("mode", OFF)
@pytest.mark.parametrize("name", MEASURED)
def test_every_number_is_the_same(name, mode):
    expected = MEASURED[name](tiny(), random_tokens())
    with OFF[mode]():
        found = MEASURED[name](tiny(), random_tokens())  # model and tokens made in it too
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert found.attrs["weight_hash"] == expected.attrs["weight_hash"]


@pytest.mark.parametrize("name", MEASURED)
def test_a_model_that_asks_for_gradients_is_measured_like_any(name):
    """As one is that was made from a configuration, or is being trained."""
    expected = MEASURED[name](tiny(), random_tokens())
    found = MEASURED[name](tiny().requires_grad_(True), random_tokens())
    xr.testing.assert_allclose(found.drop_attrs(), expected.drop_attrs(), rtol=1e-9, atol=1e-12)


GATED = {"norm": "rmsnorm", "positions": "rotary", "mlp": "gated", "activation": "silu", "bias": False}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "options", [GATED, {**GATED, "qk_norm": "whole"}, {**GATED, "qk_norm": "head", "n_kv_heads": 1}]
)
def test_the_steps_that_save_memory_without_gradients_are_the_same_to_the_bit(options, dtype):
    model = Transformer(replace(TINY, **options)).to(dtype)
    with torch.enable_grad():
        expected, values = model.run_with_cache(random_tokens())
    with torch.no_grad():
        found, others = model.run_with_cache(random_tokens())
    assert torch.equal(found, expected.detach())
    assert all(torch.equal(others[name], values[name].detach()) for name in values)


@pytest.mark.parametrize("name", ["blocks.0.ln1.weight", "blocks.1.mlp.input.weight", "W_E"])
def test_one_weight_of_many_values_without_gradients(name):
    """As an ensemble that differs in it alone is run."""
    model, tokens = Transformer(replace(TINY, **GATED)).requires_grad_(False), random_tokens()
    values = torch.stack([(1 + 0.1 * number) * model.get_parameter(name) for number in range(3)])

    def run(value):
        return functional_call(model, {name: value}, (tokens,))

    with torch.no_grad(), model.explicit_attention():
        found = torch.vmap(run)(values)
        expected = torch.stack([run(value) for value in values])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (expected[0] != expected[1]).any()


@pytest.mark.parametrize("mode", OFF)
def test_gradients_are_recorded_where_they_are_switched_off(mode):
    def metric(logits):
        return logits[0, -1, 3] - logits[0, -1, 4]

    expected = interp.gradients(tiny(), random_tokens(), metric)
    with OFF[mode]():
        found = interp.gradients(tiny(), random_tokens(), metric)
        assert torch.is_grad_enabled() is False
        assert torch.is_inference_mode_enabled() is (mode == "inference_mode")
    assert torch.equal(found[0], expected[0])
    for cache, other in zip(found[1:], expected[1:], strict=True):
        assert all(torch.equal(cache[name], other[name]) for name in other)


def test_a_tuned_lens_is_trained_in_inference_mode_to_the_same_numbers():
    request = {"steps": 3, "rows": 2}
    expected = analyses.train_tuned_lens(tiny(), random_tokens(12, 8), **request)
    with torch.inference_mode():
        found = analyses.train_tuned_lens(tiny(), random_tokens(12, 8), **request)
    assert torch.equal(found.weight, expected.weight)
    assert not torch.equal(found.weight, torch.zeros_like(found.weight))


def test_a_change_in_place_is_detected_in_inference_mode_too():
    with torch.inference_mode():
        model = interp.load().double()
        assert not any(weight.is_inference() for weight in model.parameters())
        _, cache = model.run_with_cache(model.to_tokens("Mary went"))
        moved = cache.to(torch.float32)
        for one in (cache, moved):
            one["resid_post", 2].mul_(2)
            with pytest.raises(HookError, match=r"blocks\.2\.hook_resid_post was changed in place"):
                one["resid_post", 2]
        text = model.generate("Once upon a time", max_new_tokens=5, seed=1)
    assert torch.equal(text, interp.load(dtype=torch.float64).generate("Once upon a time", max_new_tokens=5, seed=1))


def test_gradients_that_cannot_be_are_named():
    with torch.inference_mode():
        vector = torch.ones(50, dtype=torch.float64)
    with pytest.raises(
        InterpError, match="gradients: gradients cannot go through tensors that were made in torch.inference_mode"
    ):
        interp.gradients(tiny(), random_tokens(), lambda logits: (logits[0, -1] * vector).sum())
    with pytest.raises(HookError, match="operations that have a gradient"):
        interp.gradients(tiny(), random_tokens(), lambda logits: logits.argmax(-1).sum())
    with pytest.raises(HookError, match="one number, got no tensor but float"):
        interp.gradients(tiny(), random_tokens(), lambda logits: 1.0)
    model = tiny()
    with (
        torch.no_grad(),
        pytest.raises(HookError, match="switched off"),
        model.backward_hooks({"hook_embed": lambda g, h: None}),
    ):
        model(random_tokens())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
class TestHalfPrecision:
    """Linear algebra on half precision is that on the same weights in float32."""

    def test_factored_matrices(self, dtype):
        generator = torch.Generator().manual_seed(0)
        half = FactoredMatrix(*(torch.randn(size, generator=generator).to(dtype) for size in ((6, 3), (3, 6))))
        whole = half.precise().product()
        torch.testing.assert_close(half.norm(), whole.norm())
        torch.testing.assert_close(half.svd()[1], torch.linalg.svdvals(whole)[:3])
        found = half.eigenvalues()
        assert found.dtype == torch.complex64
        torch.testing.assert_close(found.sum().real, whole.trace(), atol=1e-4, rtol=1e-4)
        u, s, v = half.svd()
        torch.testing.assert_close(u * s @ v.mT, whole, atol=1e-4, rtol=1e-4)
        matrix = torch.randn(6, 2, generator=generator)
        torch.testing.assert_close(half.then(matrix).product(), whole @ matrix, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize(
        "measure",
        [
            lambda m: analyses.composition(m),
            lambda m: singular_tokens(m, 1, 0, vectors=2, top_k=3),
            lambda m: singular_tokens(m, 1, 0, circuit="qk", vectors=2, top_k=3),
            lambda m: cascade.jacobian_spectrum(m, random_tokens(), k=4),
            lambda m: cascade.participation(m, random_tokens()),
            lambda m: cascade.lyapunov(m, random_tokens(), k=4),
        ],
        ids=["composition", "singular ov", "singular qk", "jacobian", "participation", "lyapunov"],
    )
    def test_analyses_of_weights_and_derivatives(self, dtype, measure):
        half = tiny(dtype=dtype)
        found = measure(half)
        assert found.attrs["dtype"] == str(dtype).removeprefix("torch.")
        xr.testing.assert_allclose(
            found.drop_attrs(), measure(copy.deepcopy(half).float()).drop_attrs(), rtol=1e-4, atol=1e-5
        )
        assert half.dtype == dtype

    @pytest.mark.parametrize("circuit", ["ov", "qk"])
    def test_slices_of_circuits(self, dtype, circuit):
        half = tiny(dtype=dtype)
        found, whole = (
            circuit_slice(m, 1, 0, circuit=circuit, rows=[3, 4], columns=[7])
            for m in (half, copy.deepcopy(half).float())
        )
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-4)

    def test_copying_and_the_table_of_heads(self, dtype):
        half = interp.load(dtype=dtype)
        whole = copy.deepcopy(half).float()
        scores = [copying_scores(model) for model in (half, whole)]
        torch.testing.assert_close(scores[0].float(), scores[1], atol=0.02, rtol=0.02)
        table = analyses.head_table(half, count=2, length=10)
        assert bool(table["induction"].notnull().all())
        assert float(table["copying"].min()) >= -1


def test_a_model_is_copied_in_memory_and_not_pickled():
    model, tokens = tiny(), random_tokens()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(tokens), model(tokens))
    with twin.hooks({"blocks.1.hook_mlp_out": lambda value, hook: value * 0}):
        assert not torch.equal(twin(tokens), model(tokens))
        _, cache = twin.run_with_cache(tokens, "blocks.1.hook_mlp_out")
        assert float(cache["mlp_out", 1].abs().max()) == 0
    twin.W_E.mul_(2)
    assert not torch.equal(twin.W_E, model.W_E)
    assert copy.copy(model).W_E is model.W_E
    for dump in (pickle.dumps, lambda model: pickle.dumps([model]), lambda model: torch.save(model, "/dev/null")):
        with pytest.raises(InterpError, match="save_directory"):
            dump(model)
    assert set(pickle.loads(pickle.dumps(dict(model.state_dict())))) == set(model.state_dict())  # noqa: S301


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_that_half_precision_cannot_hold_are_refused(dtype):
    for measure in (MEASURED["attribution"], MEASURED["self_repair"], MEASURED["ledger"]):
        with pytest.raises(InterpError, match="too coarse for.*load in float32 or float64"):
            measure(tiny(dtype=dtype), random_tokens())
