"""The report, as a browser shows it."""

import re

import numpy as np
import pytest

import interp
from analyses.cascade import Replace
from analyses.report import collect, render, summary, write
from analyses.report.collect import asked_about
from analyses.report.outside import SHOWN, outside_steps
from analyses.report.steps import run_steps
from analyses.report.summary import chosen_head, lens_sentence, parse_head
from interp.errors import InterpError, ResultError
from interp.zoo import DEFAULT_PAIR, task

NASTY = "<script>document.title='owned'</script>\n</script><b>John</b> 🎉 \u202e{{ 7*7 }} went to"


@pytest.fixture(scope="module")
def results(smalltown):
    pair = DEFAULT_PAIR
    return collect(smalltown, pair.clean, corrupt=pair.corrupt, answer=pair.answer, wrong=pair.wrong)


def watch(page):
    """Everything a page logs, throws or asks for beyond itself."""
    seen = []
    page.on("console", lambda message: seen.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: seen.append(f"request: {request.url}") if not request.url.startswith("file:") else None,
    )
    return seen


@pytest.mark.browser
def test_opens_without_errors_or_requests_and_draws_every_figure(results, page, tmp_path):
    path = tmp_path / "report.html"
    write(results, path)
    seen = watch(page)
    page.goto(path.as_uri())
    page.wait_for_function("document.querySelectorAll('.main-svg').length > 5")
    assert seen == []
    assert page.locator(".plotly-graph-div").count() == 34
    assert page.locator(".plotly-graph-div .heatmaplayer, .plotly-graph-div .scatterlayer").count() >= 25
    text = page.inner_text("body")
    for section in (
        "Prompt",
        "Next-token predictions",
        "Logit lens",
        "Attention",
        "Activation patching",
        "Direct logit attribution",
        "The residual stream",
        "Embeddings",
        "Cascade inside",
        "Cascade outside",
        "Provenance",
    ):
        assert section in text
    assert results["lens"].attrs["weight_hash"] in text
    assert page.locator(".attention-viewer").count() == 1
    assert page.locator(".token.differs").all_inner_texts() == ["·John", "·Mary"]
    widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]


@pytest.mark.browser
def test_untrusted_text_shows_as_text(small_checkpoint, page, tmp_path):
    path = tmp_path / "report.html"
    write(collect(interp.load(small_checkpoint), NASTY), path)
    seen = watch(page)
    page.goto(path.as_uri())
    page.wait_for_function("document.querySelectorAll('.main-svg').length > 4")
    assert seen == []
    assert page.title() == "small: report"
    shown = "".join(page.locator(".token").all_inner_texts())
    assert "<script>document" in shown.replace("·", " ")
    assert "{{·7*7·}}" in shown
    assert "Give a second one with --corrupt" in page.inner_text("body")


def test_the_page_is_complete_in_itself(results):
    html = render(results)
    outside = re.sub(r"<script>.*?</script>", "", html, count=1, flags=re.S)  # plotly's own source
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", outside)
    assert "default-src 'none'" in html


def test_the_chosen_head_looks_at_the_answer(results):
    attention, answer = results["attention"], int(results["patching"]["answer_id"][0])
    layer, head = chosen_head(attention, answer)
    keys = attention["key_token_id"][0].to_numpy() == answer
    scores = attention["pattern"][0, :, :, -1, keys].sum("key")
    assert float(scores[layer, head]) == float(scores.max())
    assert chosen_head(attention, None) in [(i, j) for i in range(6) for j in range(4)]
    assert f"Head {layer}.{head}, chosen" in render(results)
    assert "Head 1.2. A row" in render(results, head=(1, 2))


@pytest.mark.parametrize("text", ["9.9", "1", "a.b", "1.9", "-1.0", ""])
def test_heads_that_are_not_there(results, text):
    with pytest.raises(ResultError, match=r"from 0.0 to 5.3"):
        parse_head(text, results["attention"])


def test_sentences_state_the_figures(results):
    lines = summary(results)
    assert len(lines) == 8
    induction = results["head_table"]["induction"].to_series()
    layer, head = induction.idxmax()
    assert f"{layer}.{head} ({induction.max():.0%})" in lines[3]
    attribution = results["attribution"].isel(prompt=0)
    parts = attribution["component_effect"].to_series()
    assert f"{parts.idxmax().replace('_', ' ')} writes {parts.max():+.2f}" in lines[4]
    assert f"{parts.idxmin().replace('_', ' ')} {parts.min():+.2f}" in lines[4]
    norm = results["stream"]["mean_norm"][0].to_numpy()
    assert f"grows from {norm[0]:.1f} to {norm[-1]:.1f}" in lines[5]
    effect = results["heads"]["effect"][0].to_numpy()
    layer, head = np.unravel_index(effect.argmax(), effect.shape)
    assert f"Of single heads, {layer}.{head} ({effect.max():.0%})" in lines[2]
    correlation = results["methods"]["rank_correlation"].to_numpy()
    assert f"from {correlation.min():.2f} to" in lines[2]
    lens = results["lens"]
    assert f"{float(lens['top_probability'][0, -1, -1, 0]):.3f}" in lines[0]
    assert "“·Mary”" in lines[0]
    assert f"{results['patching']['clean_baseline'].item():.2f} in the clean run" in lines[1]
    stands = lens["stands_from"][0, -1].item()
    ids = lens["top_id"][0, :, -1, 0]
    assert (ids.sel(layer=slice(stands, None)) == ids[-1]).all()
    assert stands == 0 or ids.sel(layer=stands - 0.5) != ids[-1]
    for layer, said in (
        (4, "from the stream entering layer 4 on"),
        (3.5, "from layer 3's attention on"),
        (6, "only at the output"),
    ):
        assert said in lens_sentence(lens.assign(stands_from=0 * lens["stands_from"] + layer))


def test_answers_default_to_the_models_predictions(smalltown, results):
    asked = asked_about(smalltown, DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt)
    assert asked == {role: int(results["patching"][f"{role}_id"][0]) for role in ("answer", "wrong")}


def test_requests_that_cannot_be(smalltown):
    with pytest.raises(InterpError, match="predicts .* after both prompts"):
        collect(smalltown, "Mary went", corrupt="John went")


@pytest.mark.browser
def test_the_cascade_outside_is_shown_where_it_was_asked_for(results, smalltown, page, tmp_path):
    assert "Ask for it with <code>--cascade</code>" in render(results)
    pairs = task("ioi").sample(6, 0, smalltown.tokenizer)
    found = dict(results)
    disturbance = Replace([pair.corrupt for pair in pairs])
    steps = outside_steps(
        smalltown, [pair.clean for pair in pairs], disturbance, found, seeds=2, steps=16, temperature=1.0
    )
    run_steps(steps, found, title="cascade outside", progress=False)
    assert set(SHOWN) <= set(found)
    path = tmp_path / "report.html"
    write(found, path)
    seen = watch(page)
    page.goto(path.as_uri())
    page.wait_for_function("document.querySelectorAll('.main-svg').length > 5")
    assert seen == []
    assert page.locator(".plotly-graph-div").count() == 34 + len(SHOWN)
    verdict = found["external"]["verdict"].item()
    assert f"(6 prompts of 2 draws): {verdict}." in page.inner_text("body")
    assert summary(found)[-1].endswith(f"{verdict}.")
    widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]
