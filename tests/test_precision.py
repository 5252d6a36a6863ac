"""What rounding loses: against half a unit in the last place, in blocks that change nothing."""

from inspect import unwrap

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny

import analyses
from analyses.cascade import precision, random_twin
from analyses.cascade.agreement import disagreement
from analyses.cascade.entering import precise
from analyses.cascade.precision import log_median, lost_doses
from interp import ModelConfig, Transformer
from interp.errors import InterpError, ResultError

WIDTH = 4
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}


def identity() -> Transformer:
    """The stream is (1, 1, 1, 1) at every token, no block writes, and the logits are the stream."""
    config = ModelConfig(
        n_layers=1, d_model=WIDTH, n_heads=1, d_head=WIDTH, d_mlp=4, n_ctx=8, d_vocab=WIDTH, norm="none", mlp="none", tied=False
    )  # fmt: skip
    model = Transformer(config).requires_grad_(False).to(torch.float64)
    for weight in model.parameters():
        weight.zero_()
    model.W_E.fill_(1)
    model.unembedding.copy_(torch.eye(WIDTH))
    return model


@pytest.mark.parametrize("name", EPS)
def test_blocks_that_do_nothing_lose_what_is_below_half_a_unit_in_the_last_place(name):
    """|x| is 2, so that a dose r along one axis adds 2 r to a 1; up to eps / 2 that is rounded away, exactly."""
    along = torch.eye(WIDTH, dtype=torch.float64)[:1]
    doses = [EPS[name] / 4 * factor for factor in (0.5, 0.99, 1.01, 4.0)]
    result = precision(
        identity(), torch.zeros(6, 3, dtype=torch.long), doses=doses, precisions=[name], directions=along
    )
    assert result["unchanged"][0].mean("prompt").to_numpy().tolist() == [1, 1, 0, 0]
    np.testing.assert_array_equal(result["lost"], np.full((1, 6), doses[1]))
    np.testing.assert_array_equal(result["lost_median_interval"], doses[1])
    stable, _, signal = result["regime_share"].mean("prompt").to_numpy()[:, 0]
    assert stable.tolist() == [1, 1, 0, 0]
    assert signal[3] == 1
    # In float64 nothing is lost but what is below its own last place.
    moved = torch.ones(WIDTH, dtype=torch.float64)
    moved[0] += 2 * doses[3]
    exact = disagreement(torch.ones(WIDTH, dtype=torch.float64).log_softmax(-1), moved.log_softmax(-1))
    assert float(result["h_float64"][0, 3, 0, 0]) == pytest.approx(float(exact), rel=1e-3 if name != "float64" else 0.5)


def test_h_is_that_of_two_runs_by_hand():
    model, tokens = tiny(), random_tokens(2, 6)
    along = torch.randn(1, model.config.d_model, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    along = along - along.mean()
    along = along / along.norm()
    result = precision(model, tokens, doses=[1e-3, 0.1], precisions=["float64"], layer=1, position=3, directions=along)
    for prompt, text in enumerate(tokens):

        def nudge(value, hook):
            value = value.clone()
            x = value[0, 3] - value[0, 3].mean()
            value[0, 3] += 0.1 * x.norm() * along[0]
            return value

        clean = model(text[None])[0, -1].log_softmax(-1)
        with model.hooks({"blocks.1.hook_resid_pre": nudge}):
            moved = model(text[None])[0, -1].log_softmax(-1)
        assert float(result["h"][0, 1, prompt, 0]) == pytest.approx(float(disagreement(clean, moved)), rel=1e-9)
    assert (result["h"] == result["h_float64"]).all()
    assert (result["regime_share"].sel(regime="signal-dominated") == 1).all()


def test_coarser_precisions_lose_more_and_parts_do_not_matter():
    model, tokens = tiny(), random_tokens(6, 5)
    options = {"doses": [1e-12, 1e-9, 1e-6, 1e-3, 1e-1], "n_directions": 2}
    result = precision(model, tokens, **options)
    lost = result["lost_median"].to_numpy()
    assert lost[0] < lost[1] < lost[2]
    np.testing.assert_allclose(result["regime_share"].sum("regime"), 1)
    assert (result["regime_share"].sel(regime="chaotic", precision="bfloat16").sum("dose") > 0).any()
    small = precision(model, tokens, **options, max_bytes=1)
    np.testing.assert_allclose(
        small["h"].sel(precision="float64"), result["h"].sel(precision="float64"), rtol=1e-6, atol=1e-13
    )
    null = precision(random_twin(model), tokens, **options)
    figure = analyses.plot(result, null=null)
    first = next(trace for trace in figure.data if trace.name == "float64")
    np.testing.assert_allclose(first.y, result["unchanged"].sel(precision="float64").mean("prompt"))


def test_the_median_of_doses_is_that_of_their_logarithms():
    lost = np.array([[1e-6, 1e-8, 0.0], [1e-4, 1e-8, 0.0], [1e-2, 1e-6, 1e-3], [1.0, 1e-2, 1e-3]])
    np.testing.assert_allclose(log_median(lost), [1e-3, 1e-7, 0.0])
    np.testing.assert_array_equal(log_median(lost[:3]), [1e-4, 1e-8, 0.0])
    options = {"doses": np.logspace(-9, -1, 9).tolist(), "n_directions": 1, "precisions": ["bfloat16"]}
    result = precision(tiny(), random_tokens(4, 5), **options)
    np.testing.assert_array_equal(result["lost_median"], log_median(result["lost"].to_numpy().T))


@pytest.mark.parametrize(
    ("doses", "name", "said"),
    [
        ([1.0, 1e6, 1e30], "float16", r"dose 1e\+06 overflows in torch.float16"),
        ([1.0, 1e30], "bfloat16", r"dose 1e\+30 overflows in torch.bfloat16"),
        ([1.0, 1e25], "float32", r"dose 1e\+25 overflows in torch.float32"),
        ([1.0, 1e300], "float64", r"dose 1e\+300 overflows in torch.float64"),
    ],
)
def test_overflow_is_no_regime(doses, name, said):
    """Also where the norm makes zeros of what it cannot measure, so that the logits are finite."""
    with pytest.raises(ResultError, match=said):
        precision(tiny(), random_tokens(2, 4), doses=doses, precisions=[name])


def test_a_clean_run_that_overflows_is_told_as_such():
    model = tiny().requires_grad_(False)
    model.W_E.mul_(1e6)
    with pytest.raises(ResultError, match="clean run is not finite in torch.float16"):
        precision(model, random_tokens(2, 4), doses=[1e-3], precisions=["float16"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": "a"}, "must be positive, got 'a'"),
        ({"temperature": float("inf")}, "must be positive, got inf"),
        ({"precisions": 3}, "a list of names, got 3"),
        ({"doses": 3}, "positive and increasing"),
    ],
)
def test_the_wrong_kind_of_argument_is_told(options, said):
    with pytest.raises(InterpError, match=said):  # past the type check, which users do not have
        unwrap(precision)(tiny(), random_tokens(2, 4), **options)


def test_lost_doses_by_hand():
    unchanged = np.array([[[1.0, 0.4], [0.5, 1.0], [0.0, 1.0]]])
    assert lost_doses(unchanged, np.array([1.0, 2.0, 3.0])).tolist() == [[2.0, 0.0]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"doses": [0.1, 0.01]}, "positive and increasing"),
        ({"doses": []}, "positive and increasing"),
        ({"precisions": ["float8"]}, "unknown precision 'float8'"),
        ({"precisions": []}, "at least one precision"),
        ({"temperature": 0.0}, "must be positive"),
        ({"layer": 7}, "layer 7 is out of range"),
        ({"position": 9}, "position 9 is not one of"),
    ],
)
def test_requests_that_cannot_be(options, said):
    with pytest.raises(InterpError, match=said):
        precision(tiny(), random_tokens(2, 4), **options)


def test_copies_in_another_dtype_are_ordinary_also_in_inference_mode():
    options = {"doses": [0.1], "n_directions": 1}
    outside = precision(tiny(), random_tokens(2, 4), **options)
    with torch.inference_mode():
        inside = precision(tiny(), random_tokens(2, 4), **options)
        assert not any(weight.is_inference() for weight in precise(tiny(dtype=torch.bfloat16)).parameters())
    np.testing.assert_array_equal(outside["h"], inside["h"])
