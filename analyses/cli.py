"""The `interp` command. Heavy imports happen inside the commands, so that help appears at once."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    import xarray as xr
    from rich.table import Table

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
def patch(
    prompt: Annotated[str | None, typer.Argument(help="The clean text. Default: a prompt pair made for smalltown.")] = None,
    corrupt: Annotated[str | None, typer.Option(help="A text that differs in what matters.")] = None,
    answer: Annotated[str | None, typer.Option(help="Right next token, with its leading space. Default: the top prediction.")] = None,
    wrong: Annotated[str | None, typer.Option(help="The token to compare it with. Default: the top prediction after CORRUPT.")] = None,
    task: Annotated[str | None, typer.Option(help="Draw pairs from a task (ioi, capitals, ...) in place of PROMPT.")] = None,
    pairs: Annotated[int, typer.Option(help="How many pairs to draw from the task.")] = 20,
    model: Annotated[str, typer.Option(help="An embedded model, a checkpoint directory, or a hub model such as gpt2.")] = "smalltown",
    site: Annotated[str | None, typer.Option(
        help="resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v, pattern or mlp_post. Default: resid_pre; with "
        "--screen or --compare z, with --trace resid_post."
    )] = None,
    by_position: Annotated[bool, typer.Option("--by-position", help="Heads and neurons one position at a time.")] = False,
    direction: Annotated[str | None, typer.Option(help="denoising (default) or noising.")] = None,
    replacement: Annotated[str | None, typer.Option(help="resample (default), zero, mean or mean_by_position.")] = None,
    metric: Annotated[str | None, typer.Option(
        help="logit_difference (default), logit, probability (default of --trace), log_probability, cross_entropy, kl or rank."
    )] = None,
    window: Annotated[int | None, typer.Option(help="Patch this many adjacent layers together. Default: 1.")] = None,
    align: Annotated[bool, typer.Option("--align", help="Match prompts of unequal length by their common tokens.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="The same grid by several methods, beside each other.")] = False,
    screen: Annotated[int | None, typer.Option(help="Estimate all cells by a gradient, then check this many exactly.")] = None,
    trace: Annotated[str | None, typer.Option(help="Causal tracing: the part of PROMPT that is blurred with noise.")] = None,
    seed: Annotated[int, typer.Option(help="Of the task's pairs, or of the noise.")] = 0,
    out: Annotated[Path, typer.Option(help="The HTML file to write the figure to.")] = Path("patch.html"),
    save: Annotated[Path | None, typer.Option(help="Also keep the numbers, as a netCDF file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:  # fmt: skip
    """Put one value from one run into another at a time, and see which moves the answer."""
    import analyses
    from analyses.report.patch import chosen, pairs_to_patch, refuse
    from analyses.report.tables import strongest_cells
    from interp import load
    from interp.files import check_free

    if sum((compare, screen is not None, trace is not None)) > 1:
        raise typer.BadParameter("choose one of --compare, --screen and --trace")
    for path in (out, *([save] if save else [])):
        check_free(path, overwrite=force)
    common: dict[str, Any] = {"site": site, "by_position": by_position or None, "window": window, "progress": True}
    method: dict[str, Any] = {"direction": direction, "replacement": replacement, "align": align or None}
    loaded = load(model)
    if trace is not None:
        refuse("--trace", task=task, corrupt=corrupt, **method)
        if prompt is None:
            raise typer.BadParameter("--trace blurs a part of PROMPT; give one")
        result = analyses.causal_tracing(
            loaded, prompt, **chosen(subject=trace, answer=answer, wrong=wrong, metric=metric, seed=seed, **common)
        )
    else:
        two = pairs_to_patch(
            loaded, prompt=prompt, corrupt=corrupt, answer=answer, wrong=wrong, task_name=task, count=pairs, seed=seed
        )
        if compare:
            refuse("--compare", metric=metric, **method)
            result = analyses.compare_patching(loaded, **two, **chosen(**common))
        elif screen is not None:
            refuse("--screen", align=method.pop("align"), window=common.pop("window"))
            result = analyses.attribution_patching(
                loaded, **two, **chosen(verify=screen, metric=metric, **method, **common)
            )
        else:
            result = analyses.activation_patching(loaded, **two, **chosen(metric=metric, **method, **common))
    _deliver(result, strongest_cells(result), out, save, force)


@app.command()
def attribution(
    prompt: Annotated[str | None, typer.Argument(help="The text. Default: one made for smalltown.")] = None,
    answer: Annotated[
        str | None,
        typer.Option(help="The next token asked about, with its leading space. Default: the top prediction."),
    ] = None,
    wrong: Annotated[str | None, typer.Option(help="A token to compare it with.")] = None,
    model: Annotated[
        str, typer.Option(help="An embedded model, a checkpoint directory, or a hub model such as gpt2.")
    ] = "smalltown",
    metric: Annotated[
        str | None, typer.Option(help="logit_difference (default with --wrong), logit or log_probability.")
    ] = None,
    ablation: Annotated[str, typer.Option(help="For the total effect of each head: zero or mean.")] = "zero",
    out: Annotated[Path, typer.Option(help="The HTML file to write the figure to.")] = Path("attribution.html"),
    save: Annotated[Path | None, typer.Option(help="Also keep the numbers, as a netCDF file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Split a prediction into what each part of the model wrote towards it, beside what happens without each head."""
    import analyses
    from analyses.report.patch import top_prediction
    from analyses.report.tables import largest_heads
    from interp import load
    from interp.files import check_free
    from interp.zoo import DEFAULT_PAIR

    for path in (out, *([save] if save else [])):
        check_free(path, overwrite=force)
    if prompt is None:
        if answer is not None or wrong is not None:
            raise typer.BadParameter("--answer and --wrong need PROMPT")
        prompt, answer, wrong = DEFAULT_PAIR.clean, DEFAULT_PAIR.answer, DEFAULT_PAIR.wrong
    loaded = load(model)
    result = analyses.direct_logit_attribution(
        loaded,
        prompt,
        answer=top_prediction(loaded, prompt) if answer is None else answer,
        wrong=wrong,
        metric=metric,
        ablation=ablation,
        progress=True,
    )
    _deliver(result, largest_heads(result), out, save, force)


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


def _deliver(result: "xr.Dataset", table: "Table", out: Path, save: Path | None, force: bool) -> None:
    """Write a result's figure and, if asked, its numbers; print its table."""
    import analyses
    from analyses.report.html import write_figure

    write_figure(analyses.plot(result), out, overwrite=force)
    if save is not None:
        analyses.save(result, save, overwrite=force)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Figure: {escape(str(out))}", soft_wrap=True)


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
