"""The `interp` command. Heavy imports happen inside the commands, so that help appears at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

app = typer.Typer(
    name="interp",
    help="Open up GPT-2-style transformers: read every value, patch, and measure whether a disturbance dies away or grows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def report(
    prompt: Annotated[
        str | None, typer.Argument(help="The text to look into. Default: a prompt pair made for smalltown.")
    ] = None,
    corrupt: Annotated[
        str | None,
        typer.Option(help="A text of equal token length that differs in what matters; patched against PROMPT."),
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="Right next token, with its leading space. Default: the top prediction.")
    ] = None,
    wrong: Annotated[
        str | None, typer.Option(help="The token to compare it with. Default: the top prediction after CORRUPT.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="An embedded model, a checkpoint directory, or a hub model such as gpt2.")
    ] = "smalltown",
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    head: Annotated[
        str | None, typer.Option(help="LAYER.HEAD whose pattern is shown large. Default: chosen by its attention.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the injected directions and of the random-init twin.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write one HTML page about a prompt: predictions, logit lens, attention, patching, cascade."""
    from analyses.report import collect, summary, write
    from analyses.report.summary import parse_head
    from interp import load
    from interp.files import check_free
    from interp.zoo import DEFAULT_PAIR

    check_free(out, overwrite=force)
    if prompt is None:
        given = [
            name
            for name, value in (("--corrupt", corrupt), ("--answer", answer), ("--wrong", wrong))
            if value is not None
        ]
        if given:
            raise typer.BadParameter(f"{', '.join(given)} given without PROMPT")
        prompt, corrupt, answer, wrong = (
            DEFAULT_PAIR.clean,
            DEFAULT_PAIR.corrupt,
            DEFAULT_PAIR.answer,
            DEFAULT_PAIR.wrong,
        )
    loaded = load(model)
    results = collect(loaded, prompt, corrupt=corrupt, answer=answer, wrong=wrong, seed=seed, progress=True)
    shown = parse_head(head, results["attention"]) if head is not None else None
    write(results, out, head=shown, overwrite=force)
    console = Console(highlight=False)
    console.print(f"[bold]{escape(loaded.name)}[/] on {escape(repr(prompt))}")
    for sentence in summary(results):
        console.print(f"  • {escape(sentence)}")
    console.print(f"Report: {escape(str(out))}", soft_wrap=True)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    model: Annotated[
        str, typer.Option(help="An embedded model, a checkpoint directory, or a hub model such as gpt2.")
    ] = "smalltown",
    max_new_tokens: Annotated[int, typer.Option(help="At most this many tokens.")] = 50,
    temperature: Annotated[float, typer.Option(help="Divides the logits; 0 takes the most probable token.")] = 0.7,
    top_k: Annotated[int | None, typer.Option(help="Draw only from that many of the most probable tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw only from the most probable tokens that reach this probability.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Continue a text, token by token as they come; it ends at the end-of-text token or after MAX_NEW_TOKENS."""
    from interp import load

    loaded = load(model)
    tokenizer = loaded.need_tokenizer()
    typer.echo(prompt, nl=False)
    ids: list[int] = []
    shown = ""
    stream = loaded.stream(
        prompt, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    )
    for following in stream:
        if int(following) == tokenizer.eos:
            break
        ids.append(int(following))
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):  # a character whose bytes are not all there yet
            typer.echo(text[len(shown) :], nl=False)
            sys.stdout.flush()
            shown = text
    typer.echo(tokenizer.decode(ids)[len(shown) :])


@app.command()
def models() -> None:
    """List the models that can be loaded."""
    from rich.table import Table

    from interp import load
    from interp.loading import embedded_models
    from interp.loading.hub import MODELS

    table = Table(title="Embedded models")
    for column in ("name", "parameters", "layers", "heads", "width", "context", "tokens", "BOS"):
        table.add_column(column, no_wrap=column in ("name", "parameters", "BOS"), overflow="fold")
    for name in embedded_models():
        model = load(name)
        config = model.config
        sizes = (config.n_layers, config.n_heads, config.d_model, config.n_ctx, config.d_vocab)
        prepended = model.tokenizer is not None and model.tokenizer.bos is not None
        count = sum(p.numel() for p in model.parameters())
        table.add_row(name, f"{count:,}", *map(str, sizes), "yes" if prepended else "no")
    console = Console()
    console.print(table)
    console.print("BOS: whether prompts begin with the beginning-of-text token, as in training.")
    console.print("Also: a directory with config.json, model.safetensors and tokenizer files of a GPT-2-style model;")
    console.print(f"on the Hugging Face hub or in its cache: {', '.join(MODELS)}.")


def main() -> None:
    """Run the command. Bad input is told in one message on standard error, with exit status 1."""
    try:
        app()
    except ValueError as error:
        from interp.errors import InterpError  # here, since it loads torch

        if not isinstance(error, InterpError):
            raise
        Console(stderr=True, highlight=False).print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
