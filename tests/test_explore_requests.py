"""The live page in a browser: requests that fail, wait or are taken back, work in the background, fields and changes that are left out."""

import json
import time

import pytest
from explored import START

from analyses.explorer.state import Change
from interp.progress import progress_bar


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
