"""The page and the picture of smollm2-135m's tuned lens: `python docs/tuned_lens.py LENS MINUTES PROCESSOR` measures and writes both."""

import argparse
from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from rich.console import Console

import analyses
import interp
from analyses.lenses.compared import LOGIT, TUNED, compared_table
from analyses.plots import plot_lens_curves

HERE = Path(__file__).parent
NAME = "smollm2-135m"
PAGE = HERE / "models" / f"{NAME}-lens.md"
PICTURE = PAGE.with_suffix(".png")
PASSAGES = HERE / "data" / "passages.txt"
VOCABULARY = 49_152
ROWS, LENGTH, SEED = 24, 64, 1
"""Rows of its own words that are measured on, tokens of each text, and the seed of those rows, which is not that of the training."""


SOURCES = (
    "Austen (Pride and Prejudice, Emma), Melville (Moby-Dick), Dickens (A Tale of Two Cities, A Christmas Carol, "
    "David Copperfield), Carroll (Alice), Doyle (A Scandal in Bohemia, A Study in Scarlet), Wells (The War of the "
    "Worlds, The Time Machine), Shelley (Frankenstein), Charlotte Brontë (Jane Eyre), Twain (Huckleberry Finn), Poe "
    "(The Fall of the House of Usher), Thoreau (Walden), Lincoln (Gettysburg), the Declaration of Independence, "
    "Darwin (The Origin of Species), Grahame (The Wind in the Willows), Barrie (Peter and Wendy), Wilde (Dorian "
    "Gray), Smith (The Wealth of Nations) and Baum (The Wizard of Oz)"
)
"""Of the passages: the first lines of each."""


def passages(model: interp.Transformer) -> list[list[int]]:
    """The first tokens of each."""
    texts = PASSAGES.read_text(encoding="utf-8").strip().split("\n\n")
    return [model.need_tokenizer().encode(text)[:LENGTH] for text in texts]


def page(
    own: Mapping[str, xr.Dataset],
    real: Mapping[str, xr.Dataset],
    about: Mapping[str, Any],
    minutes: int,
    processor: int,
) -> str:
    """The page, in Markdown, of both lenses on its own words and on real text."""
    words = about["own_words"]
    kept = [sum(kl) / len(kl) for _, kl in about["validation_kl"]]
    told = ", ".join(
        f"{kl:.2f} after {step}" for (step, _), kl in zip(about["validation_kl"][1:], kept[1:], strict=True)
    )
    return f"""# Tuned lens of {NAME}

One affine translator for the stream entering each of the {len(own[TUNED]["layer"]) - 1} layers of [{NAME}]({NAME}.md)
(Belrose et al. 2023), trained on text that the model wrote itself. The file is 40 MB and does not come with the package; this makes it:

```
interp train-lens --own-words --tokens {words["tokens"]} --model {NAME} --steps {about["steps"]} --rows {about["rows"]} \\
    --length {about["length"]} --learning-rate {about["learning_rate"]:g} --out {NAME}-lens.safetensors
interp lens "The capital of France is" --model {NAME} --lens {NAME}-lens.safetensors --color kl
```

- {words["rows"]} rows of {words["length"]} tokens, {words["tokens"]:,} in all, drawn at temperature {words["temperature"]:g}
  with seed {words["seed"]}, each after `<|endoftext|>`; a tenth of them kept out.
- {about["trained_steps"]} steps of {about["rows"]} rows, Adam from {about["learning_rate"]:g} falling to 0: each row was seen once.
  {minutes} minutes in all, {processor} of them processor time of one thread: the machine had other work.
- KL on the rows kept out, mean over layers: {kept[0]:.2f} nats before, {told} steps.
  This is a short training on few words, and its figures say what it reached, not what a layer could tell at most. The translator
  of layer 0 is still worse than taking all {VOCABULARY:,} tokens for equally likely ({log(VOCABULARY):.1f} nats at most).

![From layer 1 on, KL and cross-entropy of the tuned lens lie below the logit lens' at every layer before the output](smollm2-135m-lens.png)

## On its own words

{ROWS} rows more, drawn with seed {SEED}, which neither the training nor the choice of the best translators saw. Means over tokens,
with 95 % intervals over rows; nats. Layer l is the stream entering it; the last row is the model's output, which both read alike.

{compared_table(own)}

## On text that it did not write

The first {LENGTH} tokens of each of the {real[TUNED].sizes["prompt"]} passages of [English prose out of copyright](../data/passages.txt),
{SOURCES},
with 95 % intervals over passages. The model has surely read most of them; the lens has not. They were not held against editions.

{compared_table(real)}

*Measured by `python docs/tuned_lens.py {NAME}-lens.safetensors {minutes} {processor}`.*
"""


def figure(own: Mapping[str, xr.Dataset], real: Mapping[str, xr.Dataset]) -> go.Figure:
    """Both lenses on both texts, from layer 1 on: the embedding, which the logit lens reads 100 nats off, would flatten the rest."""
    curves = {
        f"{name}, {text}": found[name]
        for text, found in (("own words", own), ("prose", real))
        for name in (LOGIT, TUNED)
    }
    return plot_lens_curves({name: one.sel(layer=slice(1, None)) for name, one in curves.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("lens", type=Path, help="a file of `interp train-lens`")
    parser.add_argument("minutes", type=int, help="that the training took")
    parser.add_argument("processor", type=int, help="minutes of processor time in it")
    given = parser.parse_args()
    model = interp.load(NAME)
    lens = analyses.load_lens(given.lens, model)
    written = analyses.own_words(model, rows=ROWS, length=LENGTH, seed=SEED, progress=True)
    own = analyses.compare_lenses(model, written.tokens, lens=lens)
    real = analyses.compare_lenses(model, passages(model), lens=lens)
    PAGE.write_text(page(own, real, lens.about, given.minutes, given.processor), encoding="utf-8")
    figure(own, real).write_image(PICTURE, scale=2)
    Console().print(f"Written: {PAGE} and {PICTURE}")


if __name__ == "__main__":
    main()
