"""The tuned lens of the embedded model, and its card.

`python -m analyses.lenses.smalltown` trains it anew; with `--card` it only writes the card.
"""

import argparse
import random
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from analyses.lenses.compared import compare_lenses, compared_table
from analyses.lenses.translators import TunedLens, shipped_lens
from analyses.lenses.tuning import train_tuned_lens
from interp.files import write_whole
from interp.loading import load
from interp.model import Transformer
from interp.zoo.corpus import document

NAME = "smalltown"
DOCUMENTS, STORIES = 4000, 0.5
STEPS, ROWS, RATE = 1500, 16, 3e-3
EXAMINED = 100
"""Documents that the card's figures are over."""


def documents(count: int, seed: str) -> list[str]:
    """Texts like those that the model was trained on."""
    rng = random.Random(seed)
    return [document(rng, STORIES) for _ in range(count)]


def card(model: Transformer, lens: TunedLens) -> str:
    """The card, in Markdown: both lenses on texts that neither training nor early stopping saw."""
    table = compared_table(compare_lenses(model, documents(EXAMINED, "tuned lens card"), lens=lens))
    about = lens.about
    return f"""# Tuned lens of {model.name}

One affine translator for the stream entering each layer (Belrose et al. 2023), trained to bring what the final norm and the
unembedding make of it as near as possible, in KL, to the model's own prediction.

- Trained on {DOCUMENTS:,} documents of the kind that the model learned from, in rows of {about["length"]} tokens, a tenth of them kept out:
  {about["trained_steps"]} steps of {about["rows"]} rows, Adam from {about["learning_rate"]:g} falling to 0.
- `python -m analyses.lenses.smalltown` trains it anew.
- It belongs to the weights `{lens.weight_hash[:16]}…`; loading it onto others is an error.

## Against the logit lens

Means over the tokens of {EXAMINED} new documents, with 95 % intervals over documents; nats. Layer l is the stream entering it; the
last row is the model's output, which both read alike.

{table}

A tuned lens says what could be read from the stream by the best affine map, not what the model itself reads there.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--card", action="store_true", help="write the card of the lens that is there")
    model, folder = load(NAME), Path(str(files("analyses.lenses") / "trained"))
    if not parser.parse_args().card:
        train_tuned_lens(
            model,
            documents(DOCUMENTS, "tuned lens"),
            out=folder / f"{NAME}.safetensors",
            steps=STEPS,
            rows=ROWS,
            learning_rate=RATE,
            overwrite=True,
            progress=True,
        )
    text = card(model, shipped_lens(model))
    write_whole(folder / f"{NAME}.md", lambda path: path.write_text(text, encoding="utf-8"))
    Console().print(f"Written to {folder}")


if __name__ == "__main__":
    main()
