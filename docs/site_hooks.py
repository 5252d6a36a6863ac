"""What the site needs beyond its pages: the command line's reference, from the commands themselves, and notebooks' pictures in words."""

import html
import json
import re
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

COMMANDS = "<!-- commands -->"
"""Where a page has the reference of the command line."""

PICTURE = re.compile(r'<img\b[^>]*\bsrc="data:image/png[^>]*>')


def on_page_markdown(markdown: str, **_: Any) -> str:
    return markdown.replace(COMMANDS, commands()) if COMMANDS in markdown else markdown


def on_page_content(content: str, page: Any, **_: Any) -> str:
    source = Path(page.file.abs_src_path)
    return content if source.suffix != ".ipynb" else told(content, captions(json.loads(source.read_text("utf-8"))))


def commands() -> str:
    """Every command with its arguments and options, as Markdown."""
    from analyses.cli import app

    command = typer.main.get_command(app)
    page = get_docs_for_click(obj=command, ctx=typer.Context(command), name="interp")
    return re.sub(r"\A# .*\n", "", page).replace("* `", "- `").strip()


def captions(notebook: dict[str, Any]) -> list[str]:
    """What each picture of a notebook says, in order; of a figure its caption."""
    shown = [
        output.get("data", {})
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    figures = [data.get("application/vnd.plotly.v1+json", {}).get("layout", {}) for data in shown]
    return [
        html.unescape(
            re.sub(
                "<.*?>",
                " ",
                str(layout.get("meta", {}).get("caption") or layout.get("title", {}).get("text", "figure")),
            )
        )
        for layout in figures
    ]


def told(content: str, words: list[str]) -> str:
    """A page whose pictures have these words in their place where they cannot be seen."""
    left = iter(words)

    def with_words(found: re.Match[str]) -> str:
        bare = re.sub(r'\s*\balt="[^"]*"', "", found[0])
        return bare.replace("<img", f'<img alt="{html.escape(next(left))}"', 1)

    if len(PICTURE.findall(content)) != len(words):
        raise ValueError(f"a notebook has {len(words)} pictures, its page {len(PICTURE.findall(content))}.")
    return PICTURE.sub(with_words, content)
