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
    page.wait_for_function("document.querySelector('.attention-viewer .said').textContent.includes('head')")
    return seen


def said(page):
    return page.locator(".attention-viewer .said").first.inner_text()


@pytest.mark.browser
def test_hover_lock_keys_and_weights(patterns, page, tmp_path):
    analyses.attention_viewer(patterns, layer=4, head=2).write(tmp_path / "v.html")
    seen = shown(page, tmp_path / "v.html")
    pattern = patterns["pattern"][0].to_numpy()
    assert said(page).startswith(f"head 4.2 from “·to” (14): “·Mary” {pattern[4, 2, 14, 2]:.2f}")
    tokens = page.locator(".attention-viewer .token")
    assert tokens.count() == 15
    tokens.nth(9).hover()
    page.wait_for_function("document.querySelector('.said').textContent.includes('(9)')")
    assert f"“·Mary” {pattern[4, 2, 9, 2]:.2f}" in said(page)
    tokens.nth(9).click()
    tokens.nth(3).hover()
    assert "(9)" in said(page)
    assert said(page).endswith("locked")
    root = page.locator(".attention-viewer")
    root.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.said').textContent.startsWith('head 4.3')")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # from the last layer around to the first
    page.wait_for_function("document.querySelector('.said').textContent.startsWith('head 0.3')")
    page.keyboard.press("d")
    page.wait_for_function("document.querySelector('.said').textContent.includes(' to “,”')")
    column = pattern[0, 3, :, 9]
    assert f"{column.max():.2f}" in said(page)
    page.keyboard.press("d")
    page.keyboard.press("v")
    weighted = patterns["value_weighted"][0, 0, 3, 9].to_numpy()
    best = int(weighted.argmax())
    page.wait_for_function(f"document.querySelectorAll('.token')[{best}].title > 0.9 * {weighted[best]}")
    assert float(tokens.nth(best).get_attribute("title")) == pytest.approx(weighted[best], rel=0.05)
    page.keyboard.press("Escape")
    page.wait_for_function("!document.querySelector('.said').textContent.includes('locked')")
    canvases = page.locator(".attention-viewer canvas")
    assert canvases.count() == 24
    page.wait_for_function("document.querySelectorAll('canvas[data-painted]').length > 10")
    canvases.nth(5).click()
    page.wait_for_function("document.querySelector('.said').textContent.startsWith('head 1.1')")
    assert seen == []


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
        page.wait_for_function(f"document.querySelector('.said').textContent.includes('({query})')")
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
