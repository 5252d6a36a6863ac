"""The live page in a browser: what it shows is what the library measures, and nothing of it comes from elsewhere."""

import io
import json
import re
import time
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from explored import START, served
from playwright.sync_api import sync_playwright

import analyses
from analyses.explorer.address import from_address, to_address
from analyses.explorer.state import Change
from analyses.plots.browser import browser
from interp.progress import progress_bar

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & Mary"


@pytest.fixture(scope="module")
def server(smalltown):
    with served({"smalltown": smalltown}) as made:
        yield made


@pytest.fixture(scope="module")  # Playwright holds the event loop: no longer than these tests
def chromium():
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        yield launched
        launched.close()


class Tab:
    """A tab of the page, with all that went wrong in it."""

    def __init__(self, page, server):
        self.page, self.server, self.wrong = page, server, []
        page.set_default_timeout(30_000)
        page.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("response", lambda answer: self.wrong.append(answer.url) if answer.status >= 400 else None)
        own = (server.address, "data:", "blob:")
        page.on("request", lambda asked: None if asked.url.startswith(own) else self.wrong.append(asked.url))

    def open(self, state=None):
        self.page.goto(self.server.address + ("" if state is None else to_address(state)))
        self.page.locator("#tokens .token").first.wait_for()
        self.page.locator("#predictions table").first.wait_for()
        return self

    @property
    def state(self):
        """As the address has it, once every event is answered."""
        self.until("!document.body.dataset.waiting")
        return from_address(self.page.url.partition("?")[2])

    def until(self, condition, seconds=30.0):
        """Wait for a condition. Playwright's own waiting evaluates text in the page, which the page's policy forbids."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(
            f"(() => {{ try {{ return Boolean({condition}); }} catch {{ return false; }} }})()"
        ):
            assert time.monotonic() < end, condition
            self.page.wait_for_timeout(25)

    def draws(self, name):
        """Wait until a figure is drawn; its first heatmap."""
        self.until(f"(document.querySelector('#figure-{name}') || {{}})._fullData?.length")
        return self.page.evaluate(
            f"(() => {{ const one = document.querySelector('#figure-{name}')._fullData[0];"
            "return Array.from(one.z, row => Array.from(row)); })()"
        )

    def cell(self, name, column, row):
        """Click on a cell of a figure, once those above it have come."""
        self.draws("lens")
        self.draws(name)
        self.page.locator(f"#panel-{name}").scroll_into_view_if_needed()
        self.until(f"document.querySelector('#figure-{name}').dataset.listens")
        at = self.page.evaluate(
            f"""(() => {{ const plot = document.querySelector('#figure-{name}'), box = plot.getBoundingClientRect();
            const x = plot._fullLayout.xaxis, y = plot._fullLayout.yaxis;
            return [box.left + x._offset + x.d2p({column}), box.top + y._offset + y.d2p({row})]; }})()"""
        )
        self.page.mouse.move(*at)
        self.page.mouse.click(*at)

    def moved(self):
        """The numbers of the list of changes: moved, share and KL of each."""
        return self.page.locator("#changes tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.querySelectorAll('.number')].map(one => one.textContent))"
        )


@pytest.fixture(scope="module")
def context(chromium):
    """One for all tabs, so that what the page consists of is fetched once."""
    return chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)


@pytest.fixture
def tab(server, context):
    made = Tab(context.new_page(), server)
    yield made
    made.page.close()
    assert made.wrong == []


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


def answer_once(page, asked, answer):
    """Have the next request for an output answered otherwise, as a server or a net that fails would."""

    left = [answer]

    def otherwise(route):
        if left and asked in (route.request.post_data or ""):
            left.pop()(route)
        else:
            route.fallback()

    page.route("**/_dash-update-component*", otherwise)


@pytest.mark.browser
def test_a_request_that_fails_is_said_and_the_page_goes_on(tab):
    tab.open()
    page = tab.page
    tab.draws("patching")
    says = "document.querySelector('#message').textContent.includes('{}')".format
    token = page.locator("#tokens .token")

    def goes_on(position):
        assert not page.evaluate("document.body.dataset.waiting")
        token.nth(position).click()
        tab.until(f"document.querySelector('#selection').textContent.includes('position {position},')")
        tab.until("!document.querySelector('#message').textContent")

    answer_once(page, '"event.data"', lambda route: route.abort())
    token.nth(3).click()
    tab.until(says("did not answer"))
    goes_on(4)
    said = "This request is too large: at most 2,000,000 bytes."
    answer_once(page, '"event.data"', lambda route: route.fulfill(status=413, body=said, content_type="text/plain"))
    page.locator("#clean").fill("When")
    tab.until(says(said))
    goes_on(5)
    tab.until(f"document.querySelector('#clean').value === {json.dumps(START.clean)}")
    answer_once(page, "raw-patching", lambda route: route.fulfill(status=500))
    page.locator("#site").get_by_text("MLP", exact=True).click()
    tab.until(says("(500); the terminal"))
    assert page.locator("#wide-patching").is_hidden()
    assert "(500)" in page.locator("#said-patching").inner_text()
    answer_once(page, '"told-runs.data"', lambda route: route.fulfill(status=500))
    page.locator("#do-inject").click()
    tab.until("document.querySelector('#predictions').textContent.includes('(500)')")
    goes_on(6)  # and what failed is asked again
    page.locator("#wide-patching").wait_for()
    page.locator("#changes tbody tr").nth(1).wait_for()
    answer_once(page, "live-told", lambda route: route.abort())
    page.locator("#live-go").click()
    tab.until("document.querySelector('#live-said').textContent.includes('did not answer')")
    assert page.locator("#live-go").inner_text() == "Start"
    page.set_viewport_size({"width": 400, "height": 800})
    page.locator("#panel-circuit").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#do-undo').click(), document.querySelector('#do-undo').click()")
    tab.until(says("nothing to undo"))
    box = page.locator("#message").bounding_box()
    assert 0 <= box["y"] < box["y"] + box["height"] <= 800
    expected = ("Failed to load resource", "Callback failed", "/_dash-update-component", "Callback error updating")
    assert [one for one in tab.wrong if not any(said in one for said in expected)] == []
    tab.wrong.clear()


def hold(page, asked):
    """Keep the requests for an output back: what waits for the first of them, and what lets them through."""
    held, holds = [], [True]

    def keep(route):
        if holds and asked in (route.request.post_data or ""):
            held.append(route)
        else:
            route.fallback()

    page.route("**/_dash-update-component*", keep)

    def release():
        holds.clear()
        for route in held:
            route.continue_()

    def wait():
        for _ in range(400):
            if held:
                return
            page.wait_for_timeout(25)
        raise AssertionError(f"{asked} was not asked for")

    return wait, release


@pytest.mark.browser
def test_of_choices_taken_back_while_an_event_is_under_way_the_last_wins(tab):
    tab.open(START.but(changes=(Change("inject", 1, 5),), position=14))
    page = tab.page
    tab.draws("patching")
    slider = page.locator("#dose [role=slider]")

    def there_and_back(there, back):
        """The second while the first is under way."""
        wait, release = hold(page, '"event.data"')
        there()
        wait()
        back()
        page.wait_for_timeout(700)  # longer than a pause between keys that is waited for
        release()
        tab.until("!document.body.dataset.waiting")
        page.wait_for_timeout(300)

    def site(said):
        return lambda: page.locator("#site").get_by_text(said, exact=True).click()

    start = tab.state
    fill = page.locator("#clean").fill
    there_and_back(lambda: fill(START.clean + " the"), lambda: fill(START.clean))
    assert page.locator("#clean").input_value() == tab.state.clean == START.clean
    there_and_back(site("MLP"), site("stream"))
    assert page.locator("#site input:checked").input_value() == tab.state.site == start.site
    there_and_back(lambda: slider.press("ArrowRight"), lambda: slider.press("ArrowLeft"))
    assert [one.amount for one in tab.state.changes] == [0.1]
    assert float(slider.get_attribute("aria-valuenow")) == pytest.approx(-1)
    page.evaluate(
        "(([one, other]) => { other.click(); setTimeout(() => one.click(), 5); })"
        "([...document.querySelectorAll('#shown input')])"
    )
    page.wait_for_timeout(300)
    tab.until("!document.body.dataset.waiting")
    assert page.locator("#shown input:checked").input_value() == tab.state.shown == start.shown
    there_and_back(site("MLP"), site("attention"))  # and what is shown is what is meant
    assert page.locator("#site input:checked").input_value() == tab.state.site == "attn_out"
    tab.until("document.querySelector('#clean').value === " + json.dumps(tab.state.clean))


@pytest.mark.browser
def test_a_double_click_removes_one_change_and_a_quick_click_means_the_row_it_is_on(tab):
    changes = tuple(Change("patch", layer, 10) for layer in range(4))
    tab.open(START.but(changes=changes))
    page, rows = tab.page, "document.querySelectorAll('#changes .remove').length === {}".format
    tab.until(rows(4))
    page.locator(".remove").first.dblclick()
    tab.until(rows(3))
    assert tab.state.changes == changes[1:]
    answer_once(page, '"event.data"', lambda route: route.abort())
    page.locator(".remove").first.click()
    tab.until("document.querySelector('#message').textContent.includes('did not answer')")
    tab.wrong.clear()
    wait, release = hold(page, '"event.data"')
    page.locator(".remove").first.click()  # after a failure it can be pressed again
    wait()
    page.locator(".switch").nth(1).click()
    release()
    tab.until("document.querySelectorAll('.switch')[0].getAttribute('aria-checked') === 'false'")
    assert [(one.layer, one.on) for one in tab.state.changes] == [(2, False), (3, True)]


@pytest.mark.browser
def test_each_piece_of_work_is_listed_through_a_reload_and_stopped_by_itself(tab, monkeypatch):
    def long(*given, **options):
        with progress_bar(False) as bar:
            task = bar.add_task("counting", total=60_000)
            for _ in range(60_000):
                time.sleep(0.001)
                bar.advance(task)

    for name in ("edge_patching", "collect"):
        monkeypatch.setattr(f"analyses.explorer.desk.{name}", long)
    tab.open()
    page = tab.page
    page.locator("#start-report").click()
    page.locator("#start-circuit").click()
    tab.until("document.querySelectorAll('.job').length === 2")
    page.reload()
    tab.until("document.querySelectorAll('.job').length === 2")
    page.locator("#tokens .token").first.wait_for()
    page.locator("#start-report").click()
    tab.until("document.querySelector('#message').textContent.includes('under way already')")
    assert page.locator(".job").count() == 2
    for kind, left in (("Writing the report", 1), ("Patching every edge", 0)):
        line = page.locator(".job", has_text=kind)
        line.get_by_role("button").click()
        tab.until(f"document.querySelectorAll('.job').length === {left}")
        tab.until(f"document.querySelector('#message').textContent === '{kind}: stopped'")
    monkeypatch.setattr("analyses.explorer.desk.collect", lambda *given, **options: None)
    monkeypatch.setattr("analyses.explorer.desk.render", lambda found: "a report")
    with page.expect_download() as begun:
        page.evaluate(
            "document.querySelector('#start-report').click(), document.querySelector('#start-circuit').click()"
        )
    assert begun.value.path().read_text() == "a report"
    page.locator(".job", has_text="Patching every edge").get_by_role("button").click()
    tab.until("document.querySelectorAll('.job').length === 0")


@pytest.mark.browser
def test_fields_drops_doses_and_changes_that_are_left_out(tab, monkeypatch):
    monkeypatch.setattr("analyses.explorer.live.MOST_STEPS", 3)
    tab.open(START.but(layer=99, position=14, seed=9, changes=(Change("steer", 1, 3, amount=-1.0, toward=" he"),)))
    page = tab.page
    tab.until("document.querySelector('#message').textContent.includes('there is no layer 99 in smalltown')")
    slider = page.locator("#dose [role=slider]")
    said = page.locator("#dose-said")
    assert (slider.get_attribute("aria-valuenow"), said.inner_text()[:28]) == ("-1", "Dose -1, which is not on the")
    page.locator("#do-inject").click()
    tab.until("document.querySelectorAll('#changes tbody tr').length === 3")
    assert "disturbance of layer 5 at 14" in page.locator("#dose-label").inner_text()
    page.locator(".dosed").first.click()
    tab.until("document.querySelector('#dose-label').textContent.includes('steering of layer 1 at 3')")
    slider.press("ArrowRight")
    tab.until("document.querySelector('#changes').textContent.includes('0.1122 ×')")
    assert [one.amount for one in tab.state.changes] == [0.1122, 0.1]
    page.evaluate(
        """(() => { const dataTransfer = new DataTransfer(); dataTransfer.setData("text/plain", "");
        document.querySelector(".row[data-run='changed']").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true })); })()"""
    )
    page.locator("[data-run='other'] [data-position='10']").drag_to(
        page.locator("[data-run='changed'] [data-position='4']")
    )
    tab.until("document.querySelector('#message').textContent.includes('at position 10')")
    assert tab.state.changes[2:] == (Change("patch", 5, 10),)
    fits = "(one => one.scrollWidth <= one.clientWidth)(document.querySelector('#changes .wide'))"
    tab.until(f"document.querySelectorAll('#changes tbody tr').length === 4 && {fits}")
    tab.until("document.querySelectorAll('#marks-heads i').length === 1")
    page.locator("#live-go").click()
    tab.until("document.querySelector('#live-said').textContent.includes('3 tokens: as long as they can be here')")
    assert page.locator("#live-go").is_disabled()

    for name, typed in (("clean", "When Sam and"), ("wrong", " he")):
        page.locator(f"#{name}").press("Control+a")
        page.keyboard.press("Delete")
        page.wait_for_timeout(700)  # longer than a pause between keys that is waited for
        tab.until("!document.body.dataset.waiting")
        page.keyboard.type(typed, delay=20)
        assert page.locator(f"#{name}").input_value() == typed
    page.locator("#answer").fill(" several tokens")
    tab.until("document.querySelector('#message').textContent.includes('several tokens')")
    page.locator("#corrupt").fill("Paris is")
    tab.until("document.querySelector('#answer').value === ''")
    tab.until(
        "document.querySelector('#changes').textContent.includes('Left out: the corrupt text has positions 0 to')"
    )
    top = page.locator("#predictions [data-run='corrupt'] .number").first.inner_text()
    found = tab.server.desk.effects(tab.state.but(changes=())).runs["corrupt"].tokens[0][1]
    assert top == f"{found:.4f}"
    page.locator("#changes .remove").last.click()
    tab.until("document.querySelectorAll('#changes .remove').length === 2")
    last = page.locator("#tokens .row").first.locator(".token").last
    last.click()
    at = last.get_attribute("data-position")
    page.locator("#shown").get_by_text("corrupt", exact=True).click()
    tab.until("document.querySelector('#attended-said').textContent.includes(', the last of the corrupt text')")
    shown = page.locator("#attended .token").last
    assert int(shown.get_attribute("data-position")) < int(at)
    assert f"from position {shown.get_attribute('data-position')}," in page.locator("#attended-said").inner_text()
