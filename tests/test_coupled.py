"""Coupled generations: against Markov chains, against `generate`, and kept parts."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import PROMPTS, random_tokens, tiny
from markov import TRANSITION, chain, coalescence
from scipy.optimize import brentq

import analyses
from analyses.cascade import Nudge, Replace, Swap, Unrelated, channels, coupled, survival, temperature_sweep
from analyses.cascade.agreement import disagreement
from analyses.cascade.coupled import couple
from interp.errors import InterpError, ResultError, TokenError


def test_coalescence_time_of_a_markov_chain():
    expected = coalescence(TRANSITION)
    run = couple(chain(TRANSITION), torch.tensor([[0], [2]]), Replace(torch.tensor([[1], [3]])), seeds=3000, steps=60)
    together = run.damage == 0
    assert together[..., -1].all()
    times = together.argmax(-1) + 1
    for row, (a, b) in enumerate([(0, 1), (2, 3)]):
        error = times[row].std() / np.sqrt(3000)
        assert times[row].mean() == pytest.approx(expected[a, b], abs=4 * error)
        assert error < 0.05 * expected[a, b]
    np.testing.assert_allclose(np.diff(run.damage, axis=-1).max(), 0)  # once together, always
    np.testing.assert_allclose(run.h[run.damage.cumsum(-1) == run.damage.cumsum(-1)[..., -1:]][-5:], 0, atol=1e-12)


@pytest.mark.parametrize("seeds", [1000, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_chain_that_takes_3_792_steps(seeds):
    """A share of every step stays where it is, such that states 0 and 1 meet after 3.792 steps in the mean."""

    def lazy(share: float) -> np.ndarray:
        return (1 - share) * TRANSITION + share * np.eye(4)

    share = brentq(lambda share: coalescence(lazy(share))[0, 1] - 3.792, 0.0, 0.9)
    run = couple(chain(lazy(share)), torch.tensor([[0]]), Replace(torch.tensor([[1]])), seeds=seeds, steps=120)
    assert (run.damage == 0).any(-1).all()
    times = (run.damage == 0).argmax(-1)[0] + 1
    error = times.std() / np.sqrt(seeds)
    assert error < 0.06 * np.sqrt(4000 / seeds)
    assert times.mean() == pytest.approx(3.792, abs=4 * error)


def test_temperature_is_that_of_the_chain():
    """At temperature T the chain's probabilities are p^(1/T), normalised."""
    run = couple(
        chain(TRANSITION), torch.tensor([[0]]), Replace(torch.tensor([[1]])), seeds=1, steps=1, temperature=2.0
    )
    hot = torch.from_numpy(TRANSITION).sqrt()
    log = (hot / hot.sum(1, keepdim=True)).log()
    assert run.h[0, 0, 0] == pytest.approx(float(disagreement(log[0], log[1])))
    assert run.entropy[0, 0, 0] == pytest.approx(float(-(log[0].exp() * log[0]).sum()))


def test_the_clean_text_is_that_of_generate_and_everything_else_its_own_run():
    model, tokens = tiny(), random_tokens(3, 6)
    tokens[1, 4:] = -1
    run = couple(model, tokens, Swap(2, token=7), seeds=2, steps=10, temperature=0.8, seed=5)
    for prompt in range(3):
        for k in range(2):
            row = tokens[prompt : prompt + 1]
            swapped = row.clone()
            swapped[0, 2] = 7
            for stream, begun in enumerate((row, swapped)):
                text = model.generate(begun, max_new_tokens=10, temperature=0.8, seed=5 + 2 * prompt + k, stop=[])
                length = int((begun != -1).sum())
                assert text[0, length:].tolist() == run.tokens[stream, prompt, k].tolist()
    whole = couple(model, tokens, Swap(2, token=7), seeds=2, steps=10, temperature=0.8, seed=5, use_cache=False)
    np.testing.assert_array_equal(whole.tokens, run.tokens)
    np.testing.assert_allclose(whole.kl, run.kl, atol=1e-10)
    small = couple(model, tokens, Swap(2, token=7), seeds=2, steps=10, temperature=0.8, seed=5, max_bytes=1)
    np.testing.assert_array_equal(small.tokens, run.tokens)
    np.testing.assert_allclose(small.h, run.h, atol=1e-10)
    alone = couple(model, tokens[2:], Swap(2, token=7), seeds=2, steps=10, temperature=0.8, seed=9)
    np.testing.assert_array_equal(alone.tokens[:, 0], run.tokens[:, 2])


def test_numbers_are_those_of_the_two_texts():
    model, tokens = tiny(), random_tokens(2, 5)
    run = couple(model, tokens, Swap(3, token=7), seeds=2, steps=6, temperature=1.3)
    begun = [run.clean, run.other]
    for prompt, k, time in ((0, 0, 0), (1, 1, 3), (0, 1, 5)):
        log = []
        for stream in range(2):
            text = torch.cat([begun[stream][prompt], torch.from_numpy(run.tokens[stream, prompt, k, :time])])
            log.append((model(text[None])[0, -1] / 1.3).log_softmax(-1))
        p, q = log[0].exp(), log[1].exp()
        assert run.h[prompt, k, time] == pytest.approx(float(disagreement(*log)), abs=1e-10)
        assert run.kl[prompt, k, time] == pytest.approx(float((p * (log[0] - log[1])).sum()), abs=1e-10)
        assert run.tv[prompt, k, time] == pytest.approx(float((p - q).abs().sum() / 2), abs=1e-10)
        assert run.entropy[prompt, k, time] == pytest.approx(float(-(p * log[0]).sum()), abs=1e-10)
        top = (1.3 * log[0]).topk(2).values
        assert run.margin[prompt, k, time] == pytest.approx(float(top[0] - top[1]), abs=1e-10)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("step", [0, 3])
def test_a_nudge_is_one_change_at_one_place(step, use_cache):
    model, tokens = tiny(), random_tokens(2, 5)
    tokens[0, 3:] = -1
    vector = torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    run = couple(
        model, tokens, Nudge(layer=1, dose=None, vector=vector, step=step), seeds=2, steps=8, use_cache=use_cache
    )
    for prompt, length in enumerate((3, 5)):

        def nudge(value, hook, at=length - 1 + step):
            where = (hook.positions == at)[..., None]
            return value + where * vector

        for k in range(2):
            with model.hooks({"blocks.1.hook_resid_pre": nudge}):
                text = model.generate(tokens[prompt : prompt + 1], max_new_tokens=8, seed=2 * prompt + k, stop=[])
            assert text[0, length:].tolist() == run.tokens[1, prompt, k].tolist()
    assert (run.damage[..., :step] == 0).all()
    assert (run.h[..., :step] == 0).all()
    assert run.h[..., step:].max() > 0.01


def test_a_nudge_of_nothing_changes_nothing():
    model, tokens = tiny(), random_tokens(2, 5)
    run = couple(model, tokens, Nudge(dose=None, vector=torch.zeros(16)), seeds=2, steps=8)
    assert run.damage.sum() == 0
    np.testing.assert_allclose(run.h, 0, atol=1e-12)


def test_random_nudges_have_their_dose():
    model, tokens = tiny(), random_tokens(2, 5)
    seen = []
    nudge = Nudge(layer=1, dose=0.3, seed=4)

    def look(value, hook):
        seen.append(value.clone())

    rows = torch.arange(2)
    with nudge.attached(model, rows, rows, torch.tensor([5, 5])), model.hooks({"blocks.1.hook_resid_pre": look}):
        model(tokens)
    _, cache = model.run_with_cache(tokens, ["blocks.1.hook_resid_pre"])
    clean = cache["resid_pre", 1]
    delta = seen[0] - clean
    size = (clean - clean.mean(-1, keepdim=True)).norm(dim=-1)
    np.testing.assert_allclose(delta.norm(dim=-1)[:, 4], 0.3 * size[:, 4])
    np.testing.assert_allclose(delta[:, :4], 0)
    np.testing.assert_allclose(delta.mean(-1), 0, atol=1e-12)


def test_greedy_is_its_own_case():
    model, tokens = tiny(), random_tokens(3, 5)
    run = couple(model, tokens, Swap(1, token=7), seeds=8, steps=6, temperature=0.0)
    assert run.tokens.shape == (2, 3, 1, 6)
    text = model.generate(tokens, max_new_tokens=6, temperature=0.0, stop=[])
    np.testing.assert_array_equal(run.tokens[0, :, 0], text[:, 5:])
    np.testing.assert_array_equal(run.h, run.damage)
    assert (run.margin >= 0).all()
    assert run.kl.max() > 0


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_disturbed_text_goes_on_where_the_context_has_room(use_cache):
    model, tokens = tiny(), random_tokens(2, 5)
    for steps, more in ((8, 8), (16, 3), (19, 0)):
        run = couple(model, tokens, Swap(1, token=7), seeds=2, steps=steps, use_cache=use_cache)
        assert run.further.shape == (2, 2, more)
        swapped = tokens.clone()
        swapped[:, 1] = 7
        for prompt, k in ((0, 1), (1, 0)):
            row = swapped[prompt : prompt + 1]
            text = model.generate(row, max_new_tokens=steps + more, seed=2 * prompt + k, stop=[])[0, 5:]
            assert text.tolist() == [*run.tokens[1, prompt, k], *run.further[prompt, k]]


def test_the_result_and_its_figure(smalltown, tmp_path):
    result = coupled(smalltown, PROMPTS, Nudge(dose=0.5), seeds=2, steps=20)
    damage = result["token_id"].to_numpy() != result["other_token_id"].to_numpy()
    np.testing.assert_array_equal(result["damage"], damage)
    first = result["first_divergence"].to_numpy()
    assert np.isnan(first[~damage.any(-1)]).all()
    np.testing.assert_array_equal(first[damage.any(-1)], damage.argmax(-1)[damage.any(-1)])
    assert (result["edit_distance"] <= result["damage"].sum("time")).all()
    np.testing.assert_allclose(result["h_mean"], result["h"].mean(("prompt", "seed")))
    low, high = result["h_interval"].to_numpy()
    assert (low <= result["h_mean"] + 1e-12).all()
    assert (result["h_mean"] <= high + 1e-12).all()
    analyses.save(result, tmp_path / "c.nc")
    again = analyses.load(tmp_path / "c.nc")
    figure = analyses.plot(again, prompt=5, seed=1)
    texts = figure.data[0].text
    assert "".join(texts[0][:3]).replace("…", "") in "".join(str(x) for x in texts[0])
    z = np.array(figure.data[0].z, dtype=float)
    one = damage[5, 1]
    np.testing.assert_array_equal(z[0], one[:12])
    np.testing.assert_array_equal(z[1], 2 * one[:12])
    np.testing.assert_array_equal(z[3][:8], one[12:])
    curves = {trace.name: trace.y for trace in figure.data if trace.name}
    np.testing.assert_allclose(curves["h: the draws differ"], result["h_mean"])
    with pytest.raises(ResultError, match="prompt 9"):
        analyses.plot(result, prompt=9)


def test_parts_are_kept_and_a_stopped_run_goes_on(tmp_path, monkeypatch):
    model, tokens = tiny(), random_tokens(5, 5)
    request = {"seeds": 2, "steps": 6, "max_bytes": 1}
    expected = couple(model, tokens, Swap(1, token=7), **request)
    module = sys.modules["analyses.cascade.coupled"]
    original, calls = module._continue, []

    def stopping(*arguments):
        calls.append(arguments[4])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(module, "_continue", stopping)
    with pytest.raises(KeyboardInterrupt):
        couple(model, tokens, Swap(1, token=7), **request, folder=tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) == 2
    found = couple(model, tokens, Swap(1, token=7), **request, folder=tmp_path / "parts")
    assert [part.start for part in calls] == [0, 1, 2, 2, 3, 4]
    for name in ("tokens", "h", "kl", "tv", "entropy", "margin"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    with pytest.raises(InterpError, match="parts of another request"):
        couple(model, tokens, Swap(1, token=8), **request, folder=tmp_path / "parts")
    part = tmp_path / "parts" / "texts-1-2.safetensors"
    whole = part.read_bytes()
    for damaged in (b"not a file", whole[:-20], b""):
        part.write_bytes(damaged)  # is made anew
        found = couple(model, tokens, Swap(1, token=7), **request, folder=tmp_path / "parts")
        np.testing.assert_array_equal(found.h, expected.h)
        assert part.read_bytes() == whole
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep me")
    with pytest.raises(InterpError, match="no folder of kept parts"):
        couple(model, tokens, Swap(1, token=7), **request, folder=tmp_path / "other")


@pytest.mark.parametrize(
    ("disturbance", "options", "said"),
    [
        (Swap(9, token=1), {}, "none at position 9"),
        (Swap(0), {}, "nothing predicts the token at position 0"),
        (Swap(1, token=99), {}, "token id 99 is out of range"),
        (Nudge(layer=7), {}, "layers are 0 to 2"),
        (Nudge(dose=None), {}, "a dose, a vector, or both"),
        (Nudge(vector=torch.zeros(3)), {}, r"expected \(16,\)"),
        (Nudge(step=9), {}, "comes after all 5 steps"),
        (Unrelated(), {}, "two prompts at least"),
        (Replace(torch.zeros(3, 5, dtype=torch.long)), {}, "1 prompts but 3"),
        (Swap(1, token=7), {"seeds": 0}, "seeds must be at least 1"),
    ],
)
def test_requests_that_cannot_be(disturbance, options, said):
    with pytest.raises(InterpError, match=said):
        coupled(tiny(), random_tokens(1, 5), disturbance, **({"steps": 5} | options))


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("other_length", [2, 5, 8])
def test_a_prompt_is_replaced_by_one_of_any_length(other_length, use_cache):
    model, tokens = tiny(), random_tokens(2, 5)
    other = random_tokens(2, other_length, seed=3)
    other[1, -1] = -1
    run = couple(model, tokens, Replace(other), seeds=2, steps=6, use_cache=use_cache)
    for prompt in range(2):
        for stream, begun in enumerate((tokens, other)):
            row = begun[prompt : prompt + 1][:, : int((begun[prompt] != -1).sum())]
            for k in range(2):
                text = model.generate(row, max_new_tokens=6, seed=2 * prompt + k, stop=[])
                assert text[0, row.shape[1] :].tolist() == run.tokens[stream, prompt, k].tolist()
    for analysis in (survival, channels):
        assert np.isfinite(
            analysis(model, tokens, Replace(other), seeds=1, steps=4)["h" if analysis is channels else "survival"][0]
        ).any()


ANALYSES = {
    "coupled": lambda *a, **k: coupled(*a, seeds=1, steps=4, **k),
    "survival": lambda *a, **k: survival(*a, seeds=1, steps=4, **k),
    "channels": lambda *a, **k: channels(*a, seeds=1, steps=4, **k),
    "temperature_sweep": lambda *a, **k: temperature_sweep(
        *a, temperatures=[0.5, 0.8, 1.0, 1.5, 2.0], lengths=(4, 5, 6), seeds=2, **k
    ),
}


@pytest.mark.parametrize("name", ANALYSES)
def test_replaced_texts_begin_as_the_prompts_do(name, smalltown):
    """The same text in its own place is no disturbance, with BOS and without."""
    for bos in (False, True):
        result = ANALYSES[name](smalltown, ["Mary and John"], Replace(["Mary and John"]), bos=bos)
        bare, other = json.loads(result.attrs["prompts"])["clean"], json.loads(result.attrs["prompts"])["disturbed"]
        assert bare == other
        if "h" in result:
            assert float(result["h"].max()) == pytest.approx(0, abs=1e-9)
    ids = smalltown.to_tokens("Mary and John", bos=False)
    with pytest.raises(InterpError, match="do not both begin with the beginning-of-text token"):
        ANALYSES[name](smalltown, ids, Replace(["Mary and Rose"]), bos=True)


def test_texts_beyond_the_context():
    with pytest.raises(TokenError, match="leaves room for 19"):
        coupled(tiny(), random_tokens(1, 5), Swap(1, token=7), steps=20)
    tokens = random_tokens(1, 5)
    with pytest.raises(InterpError, match="is there already"):
        coupled(tiny(), tokens, Swap(1, token=int(tokens[0, 1])), steps=5)
