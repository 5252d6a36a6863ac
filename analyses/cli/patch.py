"""`interp patch`: Activation patching."""

from pathlib import Path
from typing import Annotated, Any

import typer

from analyses.cli.app import Force, Model, Save, app, deliver, free, seed_option


@app.command()
def patch(
    prompt: Annotated[str | None, typer.Argument(help="The clean text. Default: a prompt pair made for smalltown.")] = None,
    corrupt: Annotated[str | None, typer.Option(help="A text that differs in what matters.")] = None,
    answer: Annotated[str | None, typer.Option(help="Right next token, with its leading space. Default: the top prediction.")] = None,
    wrong: Annotated[str | None, typer.Option(help="The token to compare it with. Default: the top prediction after CORRUPT.")] = None,
    task: Annotated[str | None, typer.Option(help="Draw pairs from a task (ioi, capitals, ...) in place of PROMPT.")] = None,
    pairs: Annotated[int | None, typer.Option(help="How many pairs to draw from the task. Default: 20.", min=1)] = None,
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
    window: Annotated[int | None, typer.Option(help="Patch this many adjacent layers together. Default: 1.", min=1)] = None,
    align: Annotated[bool, typer.Option("--align", help="Match prompts of unequal length by their common tokens.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="The same grid by several methods, beside each other.")] = False,
    screen: Annotated[int | None, typer.Option(help="Estimate all cells by a gradient, then check this many exactly.", min=0)] = None,
    trace: Annotated[str | None, typer.Option(help="Causal tracing: the part of PROMPT that is blurred with noise.")] = None,
    seed: Annotated[int, seed_option("Of the task's pairs, or of the noise.")] = 0,
    out: Annotated[Path, typer.Option(help="The HTML file to write the figure to.")] = Path("patch.html"),
    save: Save = None,
    force: Force = False,
) -> None:  # fmt: skip
    """Put one value from one run into another at a time, and see which moves the answer."""
    import analyses
    from analyses.patching.metrics import metric_of
    from analyses.report.patch import check_method, check_options, chosen, pairs_to_patch, refuse
    from analyses.report.tables import strongest_cells
    from interp import load

    if sum((compare, screen is not None, trace is not None)) > 1:
        raise typer.BadParameter("choose one of --compare, --screen and --trace")
    mode = "--trace" if trace is not None else "--compare" if compare else "--screen" if screen is not None else None
    common: dict[str, Any] = {"site": site, "position": position, "by_position": by_position or None, "window": window}
    method: dict[str, Any] = {"direction": direction, "replacement": replacement}
    if mode == "--trace":
        refuse(mode, task=task, corrupt=corrupt, align=align or None, **method)
        if prompt is None:
            raise typer.BadParameter("--trace blurs a part of PROMPT; give one")
        if metric is not None and metric_of(metric).compares and wrong is None:
            raise typer.BadParameter(f"--metric {metric} compares two answers; give --wrong")
    elif mode == "--compare":
        refuse(mode, metric=metric, align=align or None, **method)
    elif mode == "--screen":
        refuse(mode, align=align or None, window=window)
    if task is None:
        refuse("no --task", pairs=pairs)
    if mode != "--trace":
        check_options(prompt=prompt, corrupt=corrupt, answer=answer, wrong=wrong, task_name=task)
    free(out, save, force=force)
    loaded = load(model)
    check_method(loaded, mode, metric=metric, **method, **common)
    common["progress"] = True
    if trace is not None:
        assert prompt is not None
        result = analyses.causal_tracing(
            loaded, prompt, **chosen(subject=trace, answer=answer, wrong=wrong, metric=metric, seed=seed, **common)
        )
    else:
        two = pairs_to_patch(
            loaded, prompt=prompt, corrupt=corrupt, answer=answer, wrong=wrong, task_name=task,
            count=20 if pairs is None else pairs, seed=seed, align=align, **chosen(position=position),
        )  # fmt: skip
        if compare:
            result = analyses.compare_patching(loaded, **two, **chosen(**common))
        elif screen is not None:
            asked = chosen(verify=screen, metric=metric, **method, **common)
            result = analyses.attribution_patching(loaded, **two, **asked)
        else:
            asked = chosen(metric=metric, align=align or None, **method, **common)
            result = analyses.activation_patching(loaded, **two, **asked)
    deliver(result, strongest_cells(result), out, save, force)
