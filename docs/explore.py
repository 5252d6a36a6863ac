"""The two pictures of the live page: `python docs/explore.py` takes them anew."""

import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

from analyses.explorer.address import to_address
from analyses.explorer.serve import Server
from analyses.explorer.state import Change, State
from analyses.plots.browser import browser
from interp.zoo import DEFAULT_PAIR

PICTURES = Path(__file__).parent
START = State(
    clean=DEFAULT_PAIR.clean, corrupt=DEFAULT_PAIR.corrupt, layer=3, position=10, head=1, temperature=0.7,
    changes=(Change("patch", 2, 10), Change("ablate", 4, None, 2), Change("inject", 1, 5, amount=0.3)),
)  # fmt: skip


def main() -> None:
    """Take both."""
    server = Server(START, port=0)
    threading.Thread(target=server.serve, daemon=True).start()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = launched.new_page(viewport={"width": 1280, "height": 1000}, color_scheme=scheme)
            page.set_default_timeout(60_000)
            page.goto(server.address + to_address(START))
            page.locator("#changes tr.together").wait_for()
            for name in ("lens", "patching", "head", "heads", "cone", "gain"):
                page.locator(f"#figure-{name} .main-svg").first.wait_for()
            if scheme == "dark":
                page.locator("#live-go").click()
                page.locator("#written .token").nth(60).wait_for()
                page.locator("#live-go").click()
                page.locator("#panel-cone").evaluate("one => window.scrollTo(0, one.offsetTop - 70)")
            page.wait_for_timeout(1500)
            page.screenshot(path=PICTURES / f"explore-{scheme}.png")
        launched.close()
    server.stop()


if __name__ == "__main__":
    main()
