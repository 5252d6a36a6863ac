"""The token reproduction number: against whole runs, planted influence, and branching processes."""

import numpy as np
import pytest
import torch
from conftest import PROMPTS, random_tokens, tiny
from markov import TRANSITION, chain

import analyses
from analyses.cascade import Swap, reproduction
from analyses.cascade.agreement import disagreement
from analyses.cascade.coupled import couple
from analyses.cascade.reproduction import _influence, branching_ratio, exponent, loop_counts, malthusian
from analyses.intervals import ratio_interval
from interp.errors import InterpError


def test_the_sweep_equals_one_run_for_each_swap():
    model, text = tiny(), random_tokens(1, 20)[0]
    found = _influence(model, text, [1, 4, 9], 8, 0.8, 3, 2**28)
    log_p = (model(text[None])[0] / 0.8).log_softmax(-1)
    generator = torch.Generator().manual_seed(3)
    for row, place in enumerate([1, 4, 9]):
        others = log_p[place - 1].exp()
        others[text[place]] = 0
        swapped = text.clone()
        swapped[place] = int(torch.multinomial(others, 1, generator=generator))
        log_q = (model(swapped[None])[0] / 0.8).log_softmax(-1)
        expected = disagreement(log_p, log_q)[place : place + 8]
        np.testing.assert_allclose(found[row], expected, atol=1e-10)
        assert (disagreement(log_p, log_q)[:place] == 0).all()


def test_planted_influence_of_a_markov_chain():
    """The next token alone depends on the swapped one: k(1) is the mean h of two rows of the matrix, weighted as both are drawn."""
    p = np.linalg.matrix_power(TRANSITION, 200)[0]
    rows = torch.from_numpy(TRANSITION).log()
    h = np.array([[float(disagreement(rows[a], rows[b])) for b in range(4)] for a in range(4)])
    expected = 0.0
    for before in range(4):
        for a in range(4):
            others = TRANSITION[before].copy()
            others[a] = 0
            expected += p[before] * TRANSITION[before, a] * (others / others.sum() * h[a]).sum()
    result = reproduction(chain(TRANSITION), torch.zeros(40, 1, dtype=torch.long), sources=20, horizon=20)
    np.testing.assert_allclose(result["influence"][:, 1:], 0, atol=1e-12)
    k = result["influence"].to_numpy()[:, 0]
    assert k.mean() == pytest.approx(expected, abs=4 * k.std() / np.sqrt(40))
    np.testing.assert_allclose(result["reproduction"], k.mean())
    assert float(result["malthusian"]) == pytest.approx(np.log(k.mean()))
    assert np.isnan(float(result["exponent"]))
    low, high = result["reproduction_interval"][:, -1].to_numpy()
    assert low < expected < high


def test_malthusian_rate_and_exponent_by_hand():
    assert malthusian(np.array([0.5, 0.5])) == pytest.approx(0, abs=1e-9)
    x = (np.sqrt(1 + 16) - 1) / 4  # 0.5 x + x^2 = 1
    assert malthusian(np.array([0.5, 1.0])) == pytest.approx(-np.log(x))
    assert malthusian(np.zeros(3)) == -np.inf
    assert exponent(0.3 * np.arange(1, 30.0) ** -0.8) == pytest.approx(0.8)
    assert np.isnan(exponent(np.array([0.5, 0.1, 0.0])))


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_branching_ratio_is_unbiased_where_the_mean_of_ratios_is_not(sigma):
    rng = np.random.default_rng(0)
    children, parents, ratios = [], [], []
    for _ in range(20_000):
        size, born, old = 1, 0, 0
        for _ in range(10):
            after = rng.poisson(sigma * size)
            born, old = born + after, old + size
            ratios.append(after / size)
            size = after
            if not size:
                break
        children.append(born)
        parents.append(old)
    assert branching_ratio(np.array(children), np.array(parents)) == pytest.approx(sigma, rel=0.03)
    per_tree = np.mean([c / p for c, p in zip(children, parents, strict=True)])
    assert per_tree < 0.75 * sigma


def spreading(r: float, kernel: np.ndarray, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Poisson children of a disturbance before step 0 and of each child, r in the mean, at lags drawn from a kernel."""
    prompts, seeds, steps = shape
    born = np.zeros((prompts, seeds, steps + 1), dtype=np.int64)
    born[..., 0] = 1
    for time in range(1, steps + 1):
        lags = np.arange(1, min(time, len(kernel)) + 1)
        born[..., time] = rng.poisson(r * (born[..., time - lags] * kernel[lags - 1]).sum(-1))
    return born[..., 1:]


@pytest.mark.parametrize("fall", [0.0, 1.0])
@pytest.mark.parametrize("r", [0.6, 0.9, 1.0, 1.3])
def test_the_ratio_of_a_process_that_goes_on_is_its_own(r, fall):
    """64 steps and influence over 32, as far as it goes: children whose parents are not counted made 1.62 of a ratio of 1."""
    kernel = np.arange(1, 33.0) ** -fall
    damage = spreading(r, kernel / kernel.sum(), (2000, 8, 64), np.random.default_rng(0))
    children, parents = loop_counts(damage, 0.3 * kernel)
    assert branching_ratio(children, parents) == pytest.approx(r, rel=0.02)
    low, high = ratio_interval(children, parents)
    assert low < r < high


def test_a_nudge_at_a_later_step_is_followed_for_less():
    kernel = np.full(32, 1 / 32)
    damage = spreading(0.9, kernel, (2000, 8, 40), np.random.default_rng(1))
    late = np.concatenate([np.zeros((2000, 8, 24), dtype=np.int64), damage], axis=-1)
    assert branching_ratio(*loop_counts(late, kernel, 24)) == pytest.approx(
        branching_ratio(*loop_counts(damage, kernel))
    )


def test_loop_counts_by_hand():
    damage = np.array([[[1, 0, 1, 0, 1], [0, 0, 0, 0, 0]], [[1, 1, 1, 1, 1], [0, 1, 0, 0, 0]]])
    children, parents = loop_counts(damage, np.array([0.3, 0.1]))  # three quarters of the influence at once
    assert children.tolist() == [3, 6]
    np.testing.assert_allclose(parents, [2 + 1 + 1 + 0, 2 + 3 + 0.75 + 0 + 1])
    nothing = loop_counts(np.zeros((1, 2, 5), dtype=np.int64), np.zeros(3))
    assert branching_ratio(*nothing) == 0
    assert np.isnan(branching_ratio(np.zeros(1), np.zeros(1)))


def test_the_result_and_its_figure(smalltown):
    run = couple(smalltown, PROMPTS, Swap(1), seeds=2, steps=20)
    result = reproduction(smalltown, PROMPTS, sources=4, horizon=10, loop=run)
    k = result["influence_mean"].to_numpy()
    np.testing.assert_allclose(result["reproduction"], k.cumsum())
    assert float(result["deficit"]) == pytest.approx(k.sum() - float(result["r_loop"]))
    assert (np.exp(-float(result["malthusian"]) * np.arange(1, 11)) * k).sum() == pytest.approx(1)
    for name in ("malthusian", "exponent", "r_loop"):
        low, high = result[f"{name}_interval"].to_numpy()
        assert low <= float(result[name]) <= high
    children, parents = loop_counts(run.alignment[0], k)
    assert float(result["r_loop"]) == pytest.approx(children.sum() / parents.sum())
    with pytest.raises(InterpError, match="the loop is of temperature 1"):
        reproduction(smalltown, PROMPTS, sources=4, horizon=10, loop=run, temperature=0.7)
    figure = analyses.plot(result)
    measured = [trace for trace in figure.data if trace.name == "measured"]
    np.testing.assert_allclose(measured[0].y, k)
    np.testing.assert_allclose(measured[1].y, k.cumsum())


@pytest.mark.parametrize(
    ("options", "said"), [({"temperature": 0.0}, "must be positive"), ({"horizon": 0}, "must be positive")]
)
def test_requests_that_cannot_be(options, said):
    with pytest.raises(InterpError, match=said):
        reproduction(tiny(), random_tokens(1, 4), **options)
