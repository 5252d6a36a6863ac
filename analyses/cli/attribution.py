"""`interp attribution`: Direct logit attribution."""

from pathlib import Path
from typing import Annotated

import typer

from analyses.cli.app import Force, Model, Save, app, deliver, free, refuse


@app.command()
def attribution(
    prompt: Annotated[str | None, typer.Argument(help="The text. Default: one made for smalltown.")] = None,
    answer: Annotated[
        str | None,
        typer.Option(help="The next token asked about, with its leading space. Default: the top prediction."),
    ] = None,
    wrong: Annotated[str | None, typer.Option(help="A token to compare it with.")] = None,
    model: Model = "smalltown",
    metric: Annotated[
        str | None, typer.Option(help="logit_difference (default with --wrong), logit or log_probability.")
    ] = None,
    ablation: Annotated[
        str,
        typer.Option(help="For the total effect of each head: zero, mean (over all positions) or mean_by_position."),
    ] = "zero",
    position: Annotated[
        int, typer.Option(help="Where the answer is read; negative counts from the end. Default: the last token.")
    ] = -1,
    out: Annotated[Path, typer.Option(help="The HTML file to write the figure to.")] = Path("attribution.html"),
    save: Save = None,
    force: Force = False,
) -> None:
    """Split a prediction into what each part of the model wrote towards it, beside what happens without each head."""
    import analyses
    from analyses.attribution import check_metric
    from analyses.patching.metrics import METRICS
    from analyses.report.tables import largest_heads
    from interp import load
    from interp.zoo import DEFAULT_PAIR

    if prompt is None:
        refuse("without PROMPT: the default prompt has its own", answer=answer, wrong=wrong)
    free(out, save, force=force)
    if not METRICS[check_metric(metric, ablation, wrong=wrong)].compares:
        refuse(f"is not heeded by --metric {metric}", wrong=wrong)
    if prompt is None:
        prompt, answer, wrong = DEFAULT_PAIR.clean, DEFAULT_PAIR.answer, DEFAULT_PAIR.wrong
    loaded = load(model)
    result = analyses.direct_logit_attribution(
        loaded,
        prompt,
        answer=answer,
        wrong=wrong,
        metric=metric,
        ablation=ablation,
        position=position,
        progress=True,
    )
    deliver(result, largest_heads(result), out, save, force)
