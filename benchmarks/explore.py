"""How soon the live page answers, measured in the browser from the click to the numbers on the page.

    python benchmarks/explore.py [smalltown] [smollm2-135m]      (two minutes each)

Each interaction is asked for several times, each time about another place; undo, and a head that was looked at before, show what the server
has kept. A browser and the server share two cores. Bars: on smalltown 95 of 100 within 300 ms; on smollm2-135m 1.5 s for one changed run,
5 s for a grid.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from analyses.explorer.address import to_address
from analyses.explorer.state import State
from analyses.plots.browser import browser
from interp.zoo import DEFAULT_PAIR

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
PATIENCE = 120_000

# What is done, and what the page then shows; `$` is the number of the round.
SELECTION = "document.querySelector('#selection').textContent.includes('position ' + ($ % 12 + 1) + ',')"
INTERACTIONS = {
    "select a token: attention over the text": (
        "document.querySelectorAll('#tokens .row')[0].children[$ % 12 + 1].click()",
        f"{SELECTION} && document.querySelector('#attended .chosen')?.dataset.position == $ % 12 + 1"
        " && (document.querySelector('#attended').firstChild?.title || '').includes('from position ' + ($ % 12 + 1) + ' ')",
        1.0,
    ),
    "another head: its pattern": (
        "document.querySelector('#tokens .chosen').dispatchEvent(new KeyboardEvent('keydown',"
        " {key: $ % 2 ? 'ArrowLeft' : 'ArrowRight', shiftKey: true, bubbles: true}))",
        "document.querySelector('#wide-head').ariaLabel.includes('.' + ($ % 2 ? 0 : 1) + ' ·')",
        1.0,
    ),
    "patch the selected cell: every number": (
        "document.querySelector('#do-patch').click()",
        "document.querySelectorAll('#changes .switch').length == $ + 1 && document.querySelector('#predictions [data-run=changed]')",
        1.5,
    ),
    "switch a change off or on": (
        "document.querySelectorAll('.switch')[0].click()",
        "document.querySelectorAll('.switch')[0].getAttribute('aria-checked') == String($ % 2 == 1)",
        1.5,
    ),
    "disturb: its effect": (
        "document.querySelector('#do-inject').click()",
        "document.querySelectorAll('#changes .switch').length == START + $ + 1",
        1.5,
    ),
    "undo": (
        "document.querySelector('#do-undo').click()",
        "document.querySelectorAll('#changes .switch').length == START - $ - 1 || !document.querySelector('.switch')",
        1.5,
    ),
}

MEASURE = """async ([act, done]) => {
  const begun = performance.now();
  act();
  while (!done()) {
    if (performance.now() - begun > PATIENCE) throw new Error('nothing came');
    await new Promise((again) => setTimeout(again, 5));
  }
  return performance.now() - begun;
}"""


@contextmanager
def served(model: str) -> Iterator[str]:
    """The page of a model, served by a process of its own; its address."""
    command = [sys.executable, "-m", "analyses.cli", "explore", "--no-open", "--port", "0", "--model", model]
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("The page: ").strip()
        process.terminate()


def seconds(page: Page, act: str, done: str) -> float:
    """From an act to what it shows."""
    script = MEASURE.replace("PATIENCE", str(PATIENCE)).replace("([act, done])", "()")
    script = script.replace("act();", f"{act};").replace("!done()", f"!({done})")
    return float(page.evaluate(f"({script})()")) / 1000


def measure(page: Page, address: str, model: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of every interaction, by name."""
    page.set_default_timeout(PATIENCE)
    start = State(model=model, clean=DEFAULT_PAIR.clean, corrupt=DEFAULT_PAIR.corrupt, layer=1)
    times: dict[str, list[float]] = {}
    page.goto(address + to_address(start))
    ready = ("lens", "patching", "head", "heads")
    grid = "document.getElementById('figure-patching')?._fullData?.length"
    times["open the page: the first grid"] = [seconds(page, "0", grid) + page.evaluate("performance.now()") / 1000]
    for name in ready:
        seconds(page, "0", f"document.getElementById('figure-{name}')?._fullData?.length")
    page.wait_for_timeout(1500)
    for name, (act, done, _) in INTERACTIONS.items():
        begun = page.locator("#changes .switch").count()
        for number in range(rounds):
            words = [text.replace("$", str(number)).replace("START", str(begun)) for text in (act, done)]
            if "#do-patch" in act or "#do-inject" in act:
                page.locator("#tokens .row").first.locator(".token").nth(number % 12 + 1).click()
                page.wait_for_timeout(400)
            times.setdefault(name, []).append(seconds(page, *words))
            page.wait_for_timeout(150)
    for site in ("attention", "MLP", "heads"):
        before = page.evaluate(
            "document.getElementById('said-patching').textContent + document.getElementById('wide-patching').ariaLabel"
        )
        act = f"[...document.querySelectorAll('#site label')].find((one) => one.textContent === '{site}').click()"
        done = (
            "document.getElementById('said-patching').textContent + document.getElementById('wide-patching').ariaLabel"
        )
        times.setdefault("another grid of patches", []).append(seconds(page, act, f"{done} !== {before!r}"))
    return times


def main() -> None:
    """Print every interaction."""
    console = Console(width=120)
    for model in sys.argv[1:] or ["smalltown"]:
        with served(model) as address, sync_playwright() as playwright:
            launched = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
            page = launched.new_page(viewport={"width": 1280, "height": 900})
            times = measure(page, address, model, rounds=12 if model == "smalltown" else 5)
            launched.close()
        table = Table(
            "",
            "times",
            "median ms",
            "95 % ms",
            "most ms",
            title=f"{model}, {THREADS} threads, in Chromium",
            title_justify="left",
        )
        for name, found in times.items():
            each = 1000 * np.array(found)
            table.add_row(
                name, str(len(each)), *(f"{one:,.0f}" for one in (np.median(each), np.quantile(each, 0.95), each.max()))
            )
        every = 1000 * np.concatenate([found for name, found in times.items() if name in INTERACTIONS])
        within = [f"{100 * (every <= bar).mean():.0f} % within {bar} ms" for bar in (300, 1500)]
        console.print(table)
        console.print(
            f"{len(every)} interactions: {', '.join(within)}; 95 % within {np.quantile(every, 0.95):,.0f} ms.\n"
        )


if __name__ == "__main__":
    main()
