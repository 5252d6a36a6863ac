"""The attention viewer, in a browser."""

import numpy as np
import pytest
import torch
from conftest import tiny
from test_report import watch

import analyses
from interp.errors import InterpError, ResultError

NASTY = "<script>document.title='owned'</script>\n🎉 Mary"


@pytest.fixture(scope="module")
def patterns(smalltown):
    return analyses.attention_patterns(smalltown, "When Mary and John went to the store, John gave a drink to")


def shown(page, path):
    seen = watch(page)
    page.goto(path.as_uri())
    says(page, "head")
    return seen


def says(page, text):
    """Wait until the line above the tokens holds a text."""
    page.locator(".attention-viewer .said", has_text=text).first.wait_for()


def focused(page, locator):
    return locator.evaluate("e => e === document.activeElement")


def said(page):
    return page.locator(".attention-viewer .said").first.inner_text()


@pytest.mark.browser
def test_hover_lock_keys_and_weights(patterns, page, tmp_path):
    analyses.attention_viewer(patterns, layer=5, head=3).write(tmp_path / "v.html")
    seen = shown(page, tmp_path / "v.html")
    pattern = patterns["pattern"][0].to_numpy()
    assert said(page).startswith(f"head 5.3 from “·to” (14): “·Mary” {pattern[5, 3, 14, 2]:.2f}")
    tokens = page.locator(".attention-viewer .token")
    assert tokens.count() == 15
    tokens.nth(9).hover()
    says(page, "(9)")
    looked = int(pattern[5, 3, 9].argmax())
    assert f"“{tokens.nth(looked).inner_text()}” {pattern[5, 3, 9, looked]:.2f}" in said(page)
    tokens.nth(9).click()
    tokens.nth(3).hover()
    assert "(9)" in said(page)
    assert said(page).endswith("locked")
    page.keyboard.press("d")
    says(page, "head 5.3 to “,”")
    assert f"{pattern[5, 3, :, 9].max():.2f}" in said(page)
    page.keyboard.press("d")
    page.keyboard.press("v")
    weighted = patterns["value_weighted"][0].to_numpy()
    best = int(weighted[5, 3, 9].argmax())
    says(page, f"(9): “{tokens.nth(best).inner_text()}” {weighted[5, 3, 9, best]:.1f}")
    assert float(tokens.nth(best).get_attribute("title")) == pytest.approx(weighted[5, 3, 9, best], rel=0.05)
    page.keyboard.press("Escape")
    page.locator(".said:not(:has-text('locked'))").first.wait_for()
    canvases = page.locator(".attention-viewer canvas")
    assert canvases.count() == 24
    page.locator("canvas[data-painted]").nth(23).wait_for()
    canvases.nth(5).click()
    says(page, "head 1.1")
    assert seen == []


@pytest.mark.browser
def test_the_arrow_keys_go_where_they_point(patterns, page, tmp_path):
    """Tokens and thumbnails are one tab stop each; among thumbnails up is the row above."""
    analyses.attention_viewer(patterns, layer=4, head=2).write(tmp_path / "v.html")
    shown(page, tmp_path / "v.html")
    tokens, canvases = page.locator(".attention-viewer .token"), page.locator(".attention-viewer canvas")
    assert page.locator(".attention-viewer [tabindex='0']").count() == 2
    canvases.nth(18).focus()
    above, own = (canvases.nth(number).bounding_box() for number in (14, 18))
    assert above["y"] < own["y"]
    for key, name in (("ArrowUp", "3.2"), ("ArrowDown", "4.2"), ("ArrowDown", "5.2"), ("ArrowDown", "0.2"), ("ArrowRight", "0.3"),
                      ("ArrowLeft", "0.2"), ("End", "0.3"), ("Home", "0.0")):  # fmt: skip
        page.keyboard.press(key)
        says(page, f"head {name} from")
        assert focused(page, page.locator(f"canvas[title='head {name}']"))
        assert page.locator("canvas[tabindex='0']").count() == 1
    page.locator(".weighted").focus()
    page.keyboard.press("Tab")
    assert focused(page, tokens.nth(14))
    for key, at in (
        ("ArrowLeft", 13),
        ("Home", 0),
        ("ArrowLeft", 0),
        ("ArrowRight", 1),
        ("End", 14),
        ("ArrowRight", 14),
    ):
        page.keyboard.press(key)
        says(page, f"({at})")
        assert focused(page, tokens.nth(at))
    page.keyboard.press("Enter")
    says(page, "locked")
    assert tokens.nth(14).get_attribute("aria-selected") == "true"
    page.keyboard.press("Tab")
    assert focused(page, canvases.nth(0))
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    tokens.nth(14).focus()
    page.keyboard.press("ArrowUp")
    up = page.evaluate("Number(document.activeElement.dataset.at)")
    assert up < 14
    assert tokens.nth(up).bounding_box()["y"] < tokens.nth(14).bounding_box()["y"]


@pytest.mark.browser
def test_rows_and_columns_have_names(patterns, page, tmp_path):
    analyses.attention_viewer(patterns).write(tmp_path / "v.html")
    shown(page, tmp_path / "v.html")
    assert page.locator("[role=columnheader]").all_inner_texts() == ["layer \\ head", *"0123"]
    assert page.locator("[role=rowheader]").all_inner_texts() == list("012345")
    row, cell = page.locator("[role=rowheader]").nth(3).bounding_box(), page.locator("canvas").nth(12).bounding_box()
    assert cell["y"] < row["y"] + row["height"] / 2 < cell["y"] + cell["height"]


def shade(locator):
    """How dark a token is, of 0.9."""
    color = locator.evaluate("e => e.style.background")
    return float(color.split(",")[-1].rstrip(") ")) if color.startswith("rgba") else 1.0


@pytest.mark.browser
def test_weighted_shares_have_one_scale_for_all_heads(patterns, page, tmp_path):
    """A head that moves next to nothing stays pale."""
    faint = patterns.copy(deep=True)
    faint["value_weighted"][0, 2, 0] *= 0.01
    analyses.attention_viewer(faint, layer=2, head=0).write(tmp_path / "v.html")
    shown(page, tmp_path / "v.html")
    tokens = page.locator(".attention-viewer .token")
    darkest = lambda: max(shade(tokens.nth(at)) for at in range(15))  # noqa: E731
    assert darkest() > 0.2
    page.locator(".weighted").check()
    page.locator(".scale .most", has_text="the most that any head moves").wait_for()
    assert darkest() < 0.05
    weighted = faint["value_weighted"][0].to_numpy()
    layer, head, query, _ = np.unravel_index(weighted.argmax(), weighted.shape)
    page.locator(".layer").select_option(str(layer))
    page.locator(".head").select_option(str(head))
    tokens.nth(int(query)).hover()
    says(page, f"head {layer}.{head} from")
    says(page, f"({query})")
    assert darkest() == pytest.approx(0.9, abs=0.02)


@pytest.mark.browser
def test_several_texts_to_choose_from(smalltown, patterns, page, tmp_path):
    other = analyses.attention_patterns(smalltown, "Mary went to the store")
    analyses.attention_viewer({"clean": patterns, "corrupt": other}, layer=4, head=2).write(tmp_path / "v.html")
    seen = shown(page, tmp_path / "v.html")
    assert page.locator(".which option").all_inner_texts() == ["clean", "corrupt"]
    page.locator(".which").select_option(label="corrupt")
    says(page, "“·store” (5)")
    key = int(other["pattern"][0, 4, 2, 5].to_numpy().argmax())
    assert f"{float(other['pattern'][0, 4, 2, 5, key]):.2f}" in said(page)
    assert page.locator(".attention-viewer .token").count() == 6
    page.locator(".which").select_option(label="clean")
    says(page, "(14)")
    assert seen == []


def test_results_that_cannot_be_shown_together(patterns):
    with pytest.raises(ResultError, match="no result to show"):
        analyses.attention_viewer({})
    smaller = analyses.attention_patterns(tiny(), torch.zeros(1, 8, dtype=torch.long))
    with pytest.raises(ResultError, match="unlike shape"):
        analyses.attention_viewer({"clean": patterns, "corrupt": smaller})


@pytest.mark.browser
def test_nasty_tokens_show_as_text(smalltown, page, tmp_path):
    result = analyses.attention_patterns(smalltown, NASTY)
    analyses.attention_viewer(result).write(tmp_path / "v.html")
    seen = shown(page, tmp_path / "v.html")
    assert page.title() == "Attention of smalltown"
    text = page.locator(".attention-viewer .text").inner_text().replace("\n", "")
    assert "script>" in text
    assert "↵" in text
    assert seen == []


@pytest.mark.browser
def test_shares_survive_the_packing(patterns, page, tmp_path):
    """Every cell of a head as the browser unpacks it, within the step that the square roots are rounded to."""
    analyses.attention_viewer(patterns, layer=2, head=1).write(tmp_path / "v.html")
    shown(page, tmp_path / "v.html")
    pattern = patterns["pattern"][0, 2, 1].to_numpy()
    tokens = page.locator(".attention-viewer .token")
    for query in (3, 14):
        tokens.nth(query).hover()
        says(page, f"({query})")
        shares = [float(tokens.nth(key).get_attribute("title")) for key in range(15)]
        assert np.abs(np.sqrt(shares) - np.sqrt(pattern[query])).max() < 0.5 / 255 + 0.02


def test_512_tokens_and_144_heads_stay_below_20_mb():
    """Noise, which packs worst of all."""
    result = analyses.attention_patterns(tiny(), torch.zeros(1, 8, dtype=torch.long))
    generator = np.random.default_rng(0)
    noise = np.tril(generator.random((1, 12, 12, 512, 512), dtype=np.float32))
    noise /= noise.sum(-1, keepdims=True)
    import xarray as xr

    dims = ("prompt", "layer", "head", "query", "key")
    large = xr.Dataset(
        {"pattern": (dims, noise), "value_weighted": (dims, noise)},
        coords={
            f"{axis}_{what}": (("prompt", axis), np.array([[value] * 512], dtype=object if what == "token" else int))
            for axis in ("query", "key")
            for what, value in (("token", " a"), ("token_id", 1))
        },
        attrs=result.attrs,
    )
    assert len(analyses.attention_viewer(large).html) < 20e6


def test_a_notebook_shows_it_and_files_are_kept(patterns, tmp_path):
    viewer = analyses.attention_viewer(patterns)
    assert viewer._repr_html_() == viewer.html
    assert "http" not in viewer.html
    viewer.write(tmp_path / "v.html")
    with pytest.raises(InterpError, match="exists already"):
        viewer.write(tmp_path / "v.html")
    with pytest.raises(ResultError, match="head 9 is not in this result"):
        analyses.attention_viewer(patterns, head=9)
