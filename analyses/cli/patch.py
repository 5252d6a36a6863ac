"""`interp patch`: Activation patching."""

from pathlib import Path
from typing import Annotated, Any

import typer

from analyses.cli.app import Force, Model, Save, app, deliver


@app.command()
def patch(
    prompt: Annotated[str | None, typer.Argument(help="The clean text. Default: a prompt pair made for smalltown.")] = None,
    corrupt: Annotated[str | None, typer.Option(help="A text that differs in what matters.")] = None,
    answer: Annotated[str | None, typer.Option(help="Right next token, with its leading space. Default: the top prediction.")] = None,
    wrong: Annotated[str | None, typer.Option(help="The token to compare it with. Default: the top prediction after CORRUPT.")] = None,
    task: Annotated[str | None, typer.Option(help="Draw pairs from a task (ioi, capitals, ...) in place of PROMPT.")] = None,
    pairs: Annotated[int, typer.Option(help="How many pairs to draw from the task.")] = 20,
    model: Model = "smalltown",
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
    position: Annotated[int | None, typer.Option(
        help="Where the answer is read: a position, negative from the end of each prompt. Default: the last token."
    )] = None,
    window: Annotated[int | None, typer.Option(help="Patch this many adjacent layers together. Default: 1.")] = None,
    align: Annotated[bool, typer.Option("--align", help="Match prompts of unequal length by their common tokens.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="The same grid by several methods, beside each other.")] = False,
    screen: Annotated[int | None, typer.Option(help="Estimate all cells by a gradient, then check this many exactly.")] = None,
    trace: Annotated[str | None, typer.Option(help="Causal tracing: the part of PROMPT that is blurred with noise.")] = None,
    seed: Annotated[int, typer.Option(help="Of the task's pairs, or of the noise.")] = 0,
    out: Annotated[Path, typer.Option(help="The HTML file to write the figure to.")] = Path("patch.html"),
    save: Save = None,
    force: Force = False,
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
    common: dict[str, Any] = {
        "site": site, "position": position, "by_position": by_position or None, "window": window, "progress": True,
    }  # fmt: skip
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
            loaded,
            prompt=prompt,
            corrupt=corrupt,
            answer=answer,
            wrong=wrong,
            task_name=task,
            count=pairs,
            seed=seed,
            **chosen(position=position),
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
    deliver(result, strongest_cells(result), out, save, force)
