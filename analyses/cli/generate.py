"""`interp generate`: Continuing a text."""

import sys
from typing import Annotated

import typer

from analyses.cli.app import Model, app, seed_option


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    model: Model = "smalltown",
    max_new_tokens: Annotated[int, typer.Option(help="At most this many tokens.", min=1)] = 50,
    temperature: Annotated[float, typer.Option(help="Divides the logits; 0 takes the most probable token.")] = 0.7,
    top_k: Annotated[int | None, typer.Option(help="Draw only from that many of the most probable tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw only from the most probable tokens that reach this probability.")
    ] = None,
    seed: Annotated[int, seed_option("Of the draws.")] = 0,
) -> None:
    """Continue a text, token by token as they come; it ends at the end-of-text token or after MAX_NEW_TOKENS."""
    from interp import load
    from interp.generation import Sampling

    Sampling(temperature, top_k, top_p)  # checks them
    loaded = load(model)
    tokenizer = loaded.need_tokenizer()
    stream = loaded.stream(
        prompt, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    )
    typer.echo(prompt, nl=False)
    ids: list[int] = []
    shown = ""
    for following in stream:
        if int(following) in tokenizer.stops:
            break
        ids.append(int(following))
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):  # a character whose bytes are not all there yet
            typer.echo(text[len(shown) :], nl=False)
            sys.stdout.flush()
            shown = text
    typer.echo(tokenizer.decode(ids)[len(shown) :])
