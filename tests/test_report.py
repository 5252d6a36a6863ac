"""The report, as a browser shows it."""

import re

import numpy as np
import pytest

import interp
from analyses.cascade import Replace
from analyses.report import collect, render, summary, write
from analyses.report.chosen import chosen_head, parse_head
from analyses.report.collect import asked_about
from analyses.report.outside import SHOWN, outside_steps
from analyses.report.sections import sections
from analyses.report.steps import run_steps
from analyses.report.summary import FINDINGS, LEAD, lead
from interp.errors import InterpError, ResultError
from interp.zoo import DEFAULT_PAIR, task

NASTY = "<script>document.title='owned'</script>\n</script><b>John</b> 🎉 \u202e{{ 7*7 }} went to"


@pytest.fixture(scope="module")
def results(smalltown):
    pair = DEFAULT_PAIR
    return collect(smalltown, pair.clean, corrupt=pair.corrupt, answer=pair.answer, wrong=pair.wrong)


@pytest.fixture(scope="module")
def path(results, tmp_path_factory):
    """The page, written."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write(results, path)
    return path


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


def open_whole(page, path):
    """Every section unfolded and every figure drawn, as for paper."""
    page.goto(f"{path.as_uri()}#print")
    page.locator("html[data-whole]").wait_for(state="attached")


def fits(page):
    wide, room = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    return wide <= room


@pytest.mark.browser
def test_opens_without_errors_or_requests_and_draws_every_figure(results, page, path):
    seen = watch(page)
    open_whole(page, path)
    assert seen == []
    assert page.locator(".plotly-graph-div").count() == 38
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
    assert fits(page)


@pytest.mark.browser
def test_the_page_leads_folds_and_is_small(page, path):
    assert path.stat().st_size < 2.5e6
    page.goto(path.as_uri())
    page.locator("#lens").scroll_into_view_if_needed()
    page.locator("#lens .main-svg").first.wait_for()
    assert page.locator(".lead li").count() == LEAD
    assert [page.locator(one).count() for one in ("header", "main", "nav", "footer")] == [1, 1, 1, 1]
    assert page.locator("details[open]").count() == 1
    assert page.locator("[data-drawn]").count() <= 4  # what is in view and a little beyond
    stops = page.locator("a, button, summary, select, input, [tabindex]")
    assert stops.evaluate_all("all => all.filter(e => e.tabIndex >= 0 && e.checkVisibility()).length") < 50
    buttons = page.locator("[data-drawn] .modebar-btn")
    assert page.locator("[data-drawn] .modebar-btn[tabindex='0']").count() == page.locator("[data-drawn]").count()
    buttons.first.focus()
    page.keyboard.press("ArrowRight")
    assert buttons.nth(1).evaluate("e => e === document.activeElement && e.tabIndex === 0")
    link = page.locator(".lead a[href='#patching']")
    assert not page.locator("#patching").is_visible()
    link.click()
    page.locator("#patching .main-svg").first.wait_for()
    alternatives = page.locator(".plotly-graph-div").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    assert all(len(one) > 30 for one in alternatives)
    assert any(one.startswith("Logit lens · smalltown. Across: token read so far") for one in alternatives)
    page.locator(".unfold").click()
    assert page.locator("details:not([open])").count() == 0


@pytest.mark.browser
def test_a_phone_and_dark_paper(page, path):
    page.set_viewport_size({"width": 400, "height": 800})
    page.emulate_media(color_scheme="dark")
    page.goto(path.as_uri())
    page.locator(".unfold").click()
    assert fits(page)
    page.locator("#stream").scroll_into_view_if_needed()
    ink = page.locator("#stream .xtick text").first
    light = lambda css: [int(value) for value in css.removeprefix("rgb(").removesuffix(")").split(",")]  # noqa: E731
    assert min(light(ink.evaluate("e => getComputedStyle(e).fill"))) > 150
    paper = page.locator("#stream .main-svg").first
    assert max(light(paper.evaluate("e => getComputedStyle(e).backgroundColor"))) < 60
    page.emulate_media(color_scheme="light")
    page.locator("#stream .main-svg[style*='rgb(255, 255, 255)'], #stream .main-svg[style*='white']").first.wait_for()
    assert max(light(ink.evaluate("e => getComputedStyle(e).fill"))) < 100
    page.emulate_media(color_scheme="dark")
    page.goto("about:blank")
    open_whole(page, path)  # on paper it is light
    assert max(light(ink.evaluate("e => getComputedStyle(e).fill"))) < 100


def test_names_are_unique_and_every_link_leads_somewhere(results, path):
    parts = sections(results)
    names = [one.name for part in parts for one in part.figures] + [part.name for part in parts]
    assert len(names) == len(set(names))
    assert {name for _, name in lead(results)} <= set(names)
    html = path.read_text(encoding="utf-8")
    for name in re.findall('href="#([^"]*)"', html):
        assert html.count(f'id="{name}"') == 1, name


def test_the_lead_has_the_first_findings_of_those_that_there_are(results):
    told = [name for _, name in lead(results)]
    assert told == ["lens", "patching", "heads", "attribution", "verdict"]
    fewer = {name: one for name, one in results.items() if name not in ("lens", "patching", "verdict")}
    assert [name for _, name in lead(fewer)] == ["heads", "head_table", "attribution", "stream", "gain"]
    assert lead({}) == []
    assert sorted(one.rank for one in FINDINGS) == list(range(len(FINDINGS)))


@pytest.mark.browser
def test_untrusted_text_shows_as_text(small_checkpoint, page, tmp_path):
    path = tmp_path / "nasty.html"
    write(collect(interp.load(small_checkpoint), NASTY), path)
    seen = watch(page)
    open_whole(page, path)
    assert seen == []
    assert page.title() == "small: report"
    shown = "".join(page.locator(".token").all_inner_texts())
    assert "<script>document" in shown.replace("·", " ")
    assert "{{·7*7·}}" in shown
    assert "Give a second one with --corrupt" in page.inner_text("body")


def test_the_page_is_complete_in_itself(path):
    html = path.read_text(encoding="utf-8")
    outside = re.sub(r'<script type="text/plain" id="plotly">.*?</script>', "", html, count=1, flags=re.S)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", outside)
    assert "default-src 'none'" in html


def test_the_chosen_head_looks_at_the_answer(results):
    attention, answer = results["attention"], int(results["patching"]["answer_id"][0])
    layer, head = chosen_head(attention, answer)
    keys = attention["key_token_id"][0].to_numpy() == answer
    scores = attention["pattern"][0, :, :, -1, keys].sum("key")
    assert float(scores[layer, head]) == float(scores.max())
    assert chosen_head(attention, None) in [(i, j) for i in range(6) for j in range(4)]
    some = {name: results[name] for name in ("attention", "patching")}
    assert f"Head {layer}.{head}, chosen" in render(some)
    assert "Head 1.2. A row" in render(some, head=(1, 2))


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


def test_answers_default_to_the_models_predictions(smalltown, results):
    asked = asked_about(smalltown, DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt)
    assert asked == {role: int(results["patching"][f"{role}_id"][0]) for role in ("answer", "wrong")}


def test_requests_that_cannot_be(smalltown):
    with pytest.raises(InterpError, match="predicts .* after both prompts"):
        collect(smalltown, "Mary went", corrupt="John went")


@pytest.mark.browser
def test_the_cascade_outside_is_shown_where_it_was_asked_for(results, path, smalltown, page, tmp_path):
    assert "Ask for it with <code>--cascade</code>" in path.read_text(encoding="utf-8")
    pairs = task("ioi").sample(6, 0, smalltown.tokenizer)
    found = dict(results)
    disturbance = Replace([pair.corrupt for pair in pairs])
    steps = outside_steps(
        smalltown, [pair.clean for pair in pairs], disturbance, found, seeds=2, steps=16, temperature=1.0
    )
    run_steps(steps, found, title="cascade outside", progress=False)
    assert {*SHOWN, "rasters_null", "commitment_null"} <= set(found)
    parts = {part.title: [one.name for one in part.figures] for part in sections(found)}
    titles = list(parts)
    assert titles.index("The cascade in one picture") == titles.index("Cascade inside") - 1
    assert parts["The cascade in one picture"] == ["wavefront"]
    assert "wavefront" not in parts["Cascade outside"]
    path = tmp_path / "report.html"
    write(found, path)
    seen = watch(page)
    open_whole(page, path)
    assert seen == []
    assert page.locator(".plotly-graph-div").count() == 38 + len(SHOWN) + 2  # two of them beside the random-init twin's
    verdict = found["external"]["verdict"].item()
    assert f"(6 prompts of 2 draws): {verdict}" in page.inner_text("body")
    assert summary(found)[-1] in page.inner_text("body")
    assert fits(page)
