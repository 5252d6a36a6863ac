"""Tabs of the live page in a browser: fixtures of the tests that poke it."""

import time

import pytest
from explored import served
from playwright.sync_api import sync_playwright

from analyses.explorer.address import from_address, to_address
from analyses.plots.browser import browser


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
