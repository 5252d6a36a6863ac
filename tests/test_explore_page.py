"""The live page in a browser: what it shows is what the library measures, and nothing of it comes from elsewhere."""

import io
import json
import re
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from explored import START
from tabs import Tab

import analyses
from analyses.explorer.state import Change

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & Mary"


@pytest.mark.browser
def test_the_numbers_of_the_page_are_the_librarys(tab, smalltown):
    tab.open()
    page = tab.page
    assert page.locator("#tokens .row").count() == 2
    ids = smalltown.to_tokens(START.clean)[0].tolist()
    titles = page.locator("#tokens .row").first.locator(".token").evaluate_all("all => all.map(one => one.title)")
    assert [int(re.search(r"id (\d+)", one)[1]) for one in titles] == ids
    assert page.locator("#tokens .differs").all_inner_texts() == ["·John", "·Mary"]
    p = smalltown(smalltown.to_tokens(START.clean))[0, -1].softmax(-1)
    first = page.locator("#predictions table").first.locator(".number").all_inner_texts()
    assert first == [f"{value:.4f}" for value in p.topk(8).values.tolist()]
    lens = analyses.logit_lens(smalltown, START.clean)
    np.testing.assert_allclose(tab.draws("lens"), lens["top_probability"][0, :, :, 0], atol=1e-6)
    grid = analyses.activation_patching(smalltown, START.clean, START.corrupt, answer=" Mary", wrong=" John")
    np.testing.assert_allclose(tab.draws("patching"), grid["effect"][0], atol=1e-5)
    pattern = analyses.attention_patterns(smalltown, START.clean)["pattern"][0]
    tab.cell("lens", 11, 4)  # the stream that enters layer 2
    tab.until("document.querySelector('#attended .chosen')?.dataset.position === '11'")
    assert (tab.state.layer, tab.state.position) == (2, 11)
    tab.until("document.querySelector('#wide-head').ariaLabel.includes('head 2.0')")
    shares = page.locator("#attended .token").evaluate_all("all => all.map(one => Number(one.dataset.share))")
    np.testing.assert_allclose(shares, pattern[2, 0, 11], atol=2e-6)


@pytest.mark.browser
def test_patch_by_click_switch_undo_and_reload(tab, smalltown):
    tab.open()
    page = tab.page
    page.locator("#how").get_by_text("patch", exact=True).click()
    tab.cell("patching", 10, 2)
    tab.until("document.querySelectorAll('#changes tbody tr').length === 2")
    grid = analyses.activation_patching(smalltown, START.clean, START.corrupt, answer=" Mary", wrong=" John")
    assert tab.state.changes == (Change("patch", 2, 10),)
    assert [row[1] for row in tab.moved()] == [f"{float(grid['effect'][0, 2, 10]):.3f}"] * 2
    page.locator("#do-ablate").click()
    tab.until("document.querySelectorAll('#changes tbody tr').length === 3")
    assert tab.state.changes[1] == Change("ablate", 2, None, 0)
    found = tab.server.desk.effects(tab.state)
    assert [row[0] for row in tab.moved()] == [f"{one.moved:+.4f}" for one in (*found.alone, found.together)]
    page.locator(".switch").nth(1).click()
    tab.until("document.querySelectorAll('.switch')[1].getAttribute('aria-checked') === 'false'")
    state, seen = tab.state, tab.moved()
    page.reload()
    tab.until("document.querySelectorAll('#changes tbody tr').length === 3")
    assert (tab.state, tab.moved()) == (state, seen)
    page.locator(".switch").nth(1).click()
    tab.until("document.querySelectorAll('.switch')[1].getAttribute('aria-checked') === 'true'")
    page.locator("#do-undo").click()
    tab.until("document.querySelectorAll('.switch')[1].getAttribute('aria-checked') === 'false'")
    page.locator("#do-undo").click()
    tab.until("document.querySelector('#message').textContent.includes('nothing to undo')")


@pytest.mark.browser
def test_keys_drags_and_fields(tab):
    tab.open(START.but(position=14))
    page = tab.page
    page.locator("#tokens .chosen").first.focus()
    for key in ("ArrowLeft", "ArrowUp", "ArrowUp", "Shift+ArrowUp", "Shift+ArrowRight"):
        page.keyboard.press(key)
    tab.until("document.querySelector('#selection').textContent.startsWith('Layer 2, position 13, head 2')")
    assert page.evaluate("document.activeElement.classList.contains('chosen')")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Escape")
    tab.until("document.querySelector('#selection').textContent.startsWith('Layer 0, position 14, head 0')")
    page.locator("[data-run='other'] [data-position='10']").first.drag_to(page.locator(".row[data-run='changed']"))
    tab.until("document.querySelectorAll('#changes tbody tr').length === 2")
    assert tab.state.changes == (Change("patch", 0, 10),)
    page.locator("#clean").fill("Then Anna and Tom met at the park, and Anna sent a ring to")
    tab.until("document.querySelector('#tokens').textContent.includes('Anna')")
    tab.until(
        "document.querySelector('#changes').textContent.includes('token by token') || document.querySelector('#changes tbody')"
    )
    assert tab.state.clean.startswith("Then Anna")
    page.locator("#task").click()
    page.get_by_role("option", name="capitals").click()
    tab.until("document.querySelector('#clean').value.includes('capital')")
    assert tab.state.answer != tab.state.wrong


@pytest.mark.browser
def test_a_disturbance_spreads_with_its_dose(tab, smalltown):
    tab.open(START.but(layer=1, position=5))
    page = tab.page
    page.locator("#do-inject").click()
    first = np.array(tab.draws("cone"), dtype=float)
    state = tab.state
    assert state.changes == (Change("inject", 1, 5, amount=0.1),)
    cone = tab.server.desk.result("cone", state)["share"][0, 0].to_numpy()
    there = cone > 1e-4
    np.testing.assert_allclose(first[there], np.log10(cone[there]), atol=1e-5)
    tab.until("document.querySelector('#figure-gain')?._fullData?.length")
    page.locator("#dose [role=slider]").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    tab.until("document.querySelector('#changes').textContent.includes('dose 0.1585')")
    assert tab.state.changes[0].amount == pytest.approx(10**-0.8, abs=1e-4)
    found = tab.server.desk.effects(tab.state)
    tab.until(f"document.querySelector('#changes .number').textContent === '{found.alone[0].moved:+.4f}'")
    page.locator("#do-undo").click()  # however far the slider went
    tab.until("document.querySelector('#changes').textContent.includes('dose 0.1,')")


@pytest.mark.browser
def test_an_interaction_asks_for_what_it_changes_alone(tab):
    tab.open(START.but(layer=1, position=3, changes=(Change("patch", 1, 10), Change("inject", 1, 3))))
    for name in ("lens", "patching", "head", "heads", "cone", "gain"):
        tab.until(f"document.querySelector('#figure-{name}')._fullData.length")
    asked = []
    tab.page.on(
        "request", lambda one: asked.extend(one.post_data_json["changedPropIds"]) if "_dash-" in one.url else None
    )
    runs, spread = ["runs"], ["cone", "gain", "runs"]
    for act, needs in (
        ("#tokens .token >> nth=4", ["look"]),
        ("#do-patch", runs),
        ("#do-undo", runs),
        ("#do-inject", spread),
        ("#do-undo", spread),
        (".switch >> nth=0", runs),
        ("#do-undo", runs),
    ):
        asked.clear()
        tab.page.locator(act).click()
        expected = sorted(["event.data", *(f"need-{name}.data" for name in needs)])
        for _ in range(200):
            tab.page.wait_for_timeout(25)
            if len(asked) >= len(expected):
                break
        tab.page.wait_for_timeout(200)  # nor for anything afterwards
        assert sorted(asked) == expected


@pytest.mark.browser
def test_two_texts_are_written_live_and_the_code_gives_them(tab):
    tab.open(START.but(temperature=0.5))
    page = tab.page
    page.locator("#live-go").click()
    tab.until("document.querySelectorAll('#written .token').length > 20")
    page.locator("#live-go").click()
    tab.until("document.querySelector('#live-go').textContent === 'Go on'")
    page.wait_for_timeout(600)
    texts = page.locator("#written .tokens").evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('.token')].map(one => one.textContent))"
    )
    steps = len(texts[0])
    page.locator("#show-code").click()
    page.locator("#code").wait_for()
    space: dict[str, object] = {}
    exec(page.locator("#code").inner_text(), space)
    coupled = space["texts"]
    assert coupled.sizes["time"] == steps
    for name, shown in zip(("token", "other_token"), texts, strict=True):
        assert [one.replace(" ", "·") for one in coupled[name][0, 0].to_numpy()] == shown
    page.keyboard.press("Escape")
    curve = page.evaluate("Array.from(document.querySelector('#figure-live')._fullData[0].y)")
    np.testing.assert_allclose(curve, coupled["kl"][0, 0], rtol=1e-6, atol=1e-9)
    page.locator("#live-seed").click()
    tab.until("document.querySelector('#live-said').textContent.startsWith('Seed 1')")


@pytest.mark.browser
def test_figures_their_data_and_a_circuit_are_kept(tab):
    tab.open()
    page = tab.page
    tab.draws("patching")
    kept = {}
    for kind in ("png", "svg", "data"):
        with page.expect_download() as begun:
            page.locator(f"#save-patching [data-save={kind}]").click()
        kept[kind] = begun.value.path().read_bytes()
    assert kept["png"][1:4] == b"PNG"
    assert kept["svg"].startswith(b"<svg")
    frame = pd.read_csv(io.BytesIO(kept["data"]))
    effect = tab.server.desk.result("patching", tab.state)["effect"]
    np.testing.assert_allclose(frame[frame["variable"] == "effect"]["value"], effect.to_numpy().ravel(), rtol=1e-6)
    page.locator("#start-circuit").click()
    tab.until("document.querySelector('#figure-circuit')?._fullData?.length")
    assert tab.server.desk.circuit(tab.state) is not None
    page.locator("#open-attribution summary").click()
    tab.until("document.querySelector('#figure-attribution')?._fullData?.length")


@pytest.mark.browser
def test_long_work_shows_how_far_it_is_and_stops_while_the_page_answers(tab):
    tab.open()
    page = tab.page
    page.locator("#start-report").click()
    tab.until("/Writing the report, [1-9]/.test(document.querySelector('.job-said').textContent)")
    page.locator("#tokens [data-position='3']").first.click()
    tab.until("document.querySelector('#selection').textContent.includes('position 3')")
    page.locator(".job-stop").click()
    tab.until("document.querySelector('#message').textContent.includes('stopped')")
    assert page.locator("#work").is_hidden()


@pytest.mark.browser
def test_hostile_text_is_text(tab):
    tab.open(START.but(clean=HOSTILE, corrupt=HOSTILE + " John", changes=(Change("ablate", 0, None, 0),)))
    page = tab.page
    tab.draws("lens")
    tab.draws("head")
    assert page.locator("#clean").input_value() == HOSTILE
    page.locator("#show-code").click()
    page.locator("#code").wait_for()
    page.keyboard.press("Escape")
    assert page.title() == "explore"
    assert page.locator("img[src=x]").count() == 0
    page.locator("#clean").fill("word " * 400)
    tab.until("document.querySelector('#message').textContent.includes('takes at most 256')")
    page.goto(tab.server.address + "?clean=a&changes=" + quote(json.dumps([{"kind": "<b>"}])))
    tab.until("document.querySelector('#message').textContent.includes('a change has a layer')")


def contrast(one, other):
    """Of two opaque colours as a browser writes them, as WCAG 2.2 has it."""

    def luminance(color):
        parts = np.array([float(part) for part in re.findall(r"[\d.]+", color)[:3]]) / 255
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def check_looks(tab, scheme):
    """That words stay in their cells, and controls stand out (WCAG 2.2, 1.4.3 and 1.4.11)."""
    page = tab.page
    tab.draws("lens")
    tab.until("document.querySelectorAll('#figure-lens .heatmap-label').length")
    words = page.locator("#figure-lens .heatmap-label text").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().width)"
    )
    cell = page.evaluate(
        "(plot => plot._fullLayout.xaxis._length / plot._fullData[0].z[0].length)(document.querySelector('#figure-lens'))"
    )
    assert words
    assert max(words) <= cell
    for (what, one), (behind, other), least in (
        (("#do-patch", "borderTopColor"), (".panel", "backgroundColor"), 3),
        (("#clean", "borderTopColor"), (".panel", "backgroundColor"), 3),
        ((".mantine-SegmentedControl-indicator", "backgroundColor"), (".mantine-SegmentedControl-root", "backgroundColor"), 3),
        ((".mantine-SegmentedControl-label[data-active]", "color"), (".mantine-SegmentedControl-indicator", "backgroundColor"), 4.5),
        ((".mantine-Slider-markLabel", "color"), (".panel", "backgroundColor"), 4.5),
    ):  # fmt: skip
        colors = [
            page.locator(place).first.evaluate(f"one => getComputedStyle(one).{name}")
            for place, name in ((what, one), (behind, other))
        ]
        assert contrast(*colors) >= least, (scheme, what, colors)


@pytest.mark.browser
def test_two_tabs_do_not_disturb_each_other_dark_and_narrow(tab, chromium, server):
    tab.open()
    context = chromium.new_context(viewport={"width": 400, "height": 800}, color_scheme="dark")
    other = Tab(context.new_page(), server).open()
    tab.page.locator("#do-patch").click()
    tab.until("document.querySelectorAll('#changes tbody tr').length === 2")
    other.page.locator("#do-inject").click()
    other.until("document.querySelectorAll('#changes tbody tr').length === 2")
    assert [one.state.changes[0].kind for one in (tab, other)] == ["patch", "inject"]
    other.draws("lens")
    other.page.wait_for_timeout(300)
    assert other.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert other.page.evaluate("document.documentElement.dataset.mantineColorScheme") == "dark"
    paper = other.page.evaluate("document.querySelector('#figure-lens')._fullLayout.paper_bgcolor")
    assert paper == "#171b1f"
    assert (
        other.page.evaluate("document.querySelector('#wide-lens').scrollLeft") == 0
    )  # the names of the layers are seen first
    check_looks(tab, "light")
    check_looks(other, "dark")
    context.close()
    assert other.wrong == []
