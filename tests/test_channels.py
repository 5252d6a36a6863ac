"""What carries a disturbance on: against models in which only one channel exists."""

import numpy as np
import pytest
import torch
from conftest import PROMPTS, random_tokens, tiny
from markov import TRANSITION, chain

import analyses
from analyses.cascade import Nudge, Replace, Swap, channels
from analyses.cascade.agreement import disagreement
from analyses.cascade.coupled import couple
from interp.errors import InterpError


def test_an_order_one_chain_keeps_nothing_but_its_token():
    """Its attention writes nothing, so a change of the last token lives on in the next token alone."""
    result = channels(
        chain(TRANSITION), torch.tensor([[0], [1]]), Replace(torch.tensor([[2], [3]])), seeds=50, steps=12
    )
    np.testing.assert_allclose(result["carried"].sel(cell="activations"), 0, atol=1e-12)
    np.testing.assert_allclose(result["shapley"].sel(channel="activations"), 0, atol=1e-12)
    np.testing.assert_allclose(result["carried"].sel(cell="tokens"), result["carried"].sel(cell="both"))
    assert (result["carried"].sel(cell="both") > 0.01).all()


@pytest.mark.parametrize("disturbance", [Nudge(layer=1, dose=0.8, step=2), Swap(2, token=7)])
def test_cells_equal_runs_by_hand(disturbance):
    model, tokens = tiny(), random_tokens(2, 5)
    request = {"seeds": 2, "steps": 9, "temperature": 0.8, "seed": 3}
    result = channels(model, tokens, disturbance, **request)
    at = disturbance.step if isinstance(disturbance, Nudge) else 0
    run = couple(model, tokens, disturbance, **request)
    np.testing.assert_allclose(result["h"].sel(cell="both")[..., at + 1 :], run.h[..., at + 1 :], atol=1e-10)
    assert result["h"][..., : at + 1].isnull().all()
    np.testing.assert_allclose(result["carried"].sel(cell="neither"), 0, atol=1e-12)
    total = result["shapley"].sum("channel")
    np.testing.assert_allclose(
        total, result["carried"].sel(cell="both") - result["carried"].sel(cell="neither"), atol=1e-12
    )
    prompt, k, length = 1, 0, 5
    forced = torch.cat([run.other[prompt], torch.from_numpy(run.tokens[0, prompt, k])])
    clean = torch.cat([run.clean[prompt], torch.from_numpy(run.tokens[0, prompt, k])])
    if isinstance(disturbance, Nudge):
        rows = torch.tensor([0])
        with disturbance.attached(model, rows, torch.tensor([prompt]), torch.tensor([length])):
            logits = model(forced[None])[0]
    else:
        logits = model(forced[None])[0]
    log_p, log_q = ((x / 0.8).log_softmax(-1) for x in (model(clean[None])[0], logits))
    expected = disagreement(log_p, log_q)[length - 1 + at + 1 : length - 1 + 9]
    np.testing.assert_allclose(result["h"].sel(cell="activations")[prompt, k, at + 1 :], expected, atol=1e-10)
    # Reset: the clean beginning, the tokens up to the step, the disturbed run's token there, then its own draws from the same noise.
    noise = torch.Generator().manual_seed(3 + 2 * prompt + k)
    text = run.clean[prompt]
    for time in range(9):
        log = (model(text[None])[0, -1] / 0.8).log_softmax(-1)
        if time > at:
            own = torch.cat([run.clean[prompt], torch.from_numpy(run.tokens[0, prompt, k, :time])])
            h = disagreement((model(own[None])[0, -1] / 0.8).log_softmax(-1), log)
            assert float(result["h"].sel(cell="tokens")[prompt, k, time]) == pytest.approx(float(h), abs=1e-10)
        drawn = int((log - torch.empty(50, dtype=torch.float64).exponential_(generator=noise).log()).argmax())
        drawn = int(run.tokens[1, prompt, k, time]) if time == at else drawn
        text = torch.cat([text, torch.tensor([drawn])])


def test_over_prompts_and_its_figure(smalltown):
    result = channels(smalltown, PROMPTS, seeds=2, steps=10)
    figure = analyses.plot(result)
    bars = figure.data[-1]
    np.testing.assert_allclose(bars.y, result["shapley_mean"])
    np.testing.assert_allclose(np.array(bars.y) + bars.error_y.array, result["shapley_interval"][1])
    np.testing.assert_allclose(figure.data[0].y[1:], result["h"].sel(cell="both").mean(("prompt", "seed"))[1:])


@pytest.mark.parametrize(
    ("disturbance", "options", "said"),
    [
        (None, {"temperature": 0.0}, "must be positive"),
        (Nudge(step=8), {}, "nothing of 9 steps comes after"),
        (Swap(9, token=1), {}, "position 9"),
    ],
)
def test_requests_that_cannot_be(disturbance, options, said):
    with pytest.raises(InterpError, match=said):
        channels(tiny(), random_tokens(1, 5), disturbance, steps=9, **options)
