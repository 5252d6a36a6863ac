"""`interp cascade`: Does a disturbance die away or grow?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyses.cli.app import Force, Model, SaveAll, app, deliver_all, parts_of, ready

if TYPE_CHECKING:
    from analyses.cascade.disturbances import Disturbance

cascade_app = typer.Typer(no_args_is_help=True, help="Measure whether a disturbance dies away or grows.")
app.add_typer(cascade_app, name="cascade")


@cascade_app.callback()
def cascade() -> None:
    """Measure whether a disturbance dies away or grows."""


@cascade_app.command()
def inside(
    prompt: Annotated[list[str] | None, typer.Argument(help="One text, or several for intervals and a verdict. Default: a task's.")] = None,
    task: Annotated[str, typer.Option(help="The task whose prompts are taken where none is given.")] = "ioi",
    dose: Annotated[float, typer.Option(help="Size of the disturbance relative to the stream.")] = 1e-2,
    layer: Annotated[int, typer.Option(help="Where to inject.")] = 0,
    directions: Annotated[int, typer.Option(help="Random directions at each position.")] = 8,
    model: Model = "smalltown",
    out: Annotated[Path, typer.Option(help="The HTML file to write the figures to.")] = Path("cascade.html"),
    save: SaveAll = None,
    seed: Annotated[int, typer.Option(help="Of directions, prompts and the random-init twin.")] = 0,
    force: Force = False,
) -> None:  # fmt: skip
    """Follow a disturbance of the residual stream up the layers, beside the same model at random initialisation."""
    import xarray as xr

    from analyses.report.inside import figures, inside_steps, rows
    from analyses.report.steps import run_steps
    from interp import load
    from interp.files import check_free
    from interp.zoo import task as task_of

    check_free(out, overwrite=force)
    ready(save, force)
    loaded = load(model)
    pairs = [] if prompt else task_of(task).sample(12, seed, loaded.tokenizer)
    texts = list(prompt) if prompt else [pair.clean for pair in pairs]
    answers = {"answer": [pair.answer for pair in pairs], "wrong": [pair.wrong for pair in pairs]} if pairs else None
    results: dict[str, xr.Dataset] = {}
    steps = inside_steps(
        loaded, texts, [pair.corrupt for pair in pairs], results,
        answers=answers, dose=dose, layer=layer, n_directions=directions, seed=seed,
    )  # fmt: skip
    run_steps(steps, results, title="cascade inside", progress=True)
    deliver_all(results, figures(results), rows(results), out, save, force)


@cascade_app.command()
def outside(
    prompt: Annotated[list[str] | None, typer.Argument(help="One text, or several for a verdict. Default: a task's pairs.")] = None,
    task: Annotated[str, typer.Option(help="The task whose pairs are taken, clean and disturbed into corrupt.")] = "ioi",
    count: Annotated[int, typer.Option(help="How many of them.")] = 32,
    swap: Annotated[str | None, typer.Option(help="POSITION=TOKEN to put there, or POSITION for the next best.")] = None,
    nudge: Annotated[float | None, typer.Option(help="Nudge the stream at the last token by this dose instead.")] = None,
    layer: Annotated[int, typer.Option(help="Where to nudge.")] = 0,
    seeds: Annotated[int, typer.Option(help="Draws of the noise for each prompt.")] = 8,
    steps: Annotated[int, typer.Option(help="Tokens to generate.")] = 64,
    temperature: Annotated[float, typer.Option(help="Of sampling; 0 is greedy.")] = 1.0,
    model: Model = "smalltown",
    out: Annotated[Path, typer.Option(help="The HTML file to write the figures to.")] = Path("outside.html"),
    save: SaveAll = None,
    seed: Annotated[int, typer.Option(help="Of noise, prompts and nudges.")] = 0,
    force: Force = False,
) -> None:  # fmt: skip
    """Follow a disturbance through the model's own words: coupled texts, survival, reproduction, avalanches, channels, temperature.

    Finished parts are kept in OUT.parts until all is done: after a stop, the same command goes on from there.
    """
    import xarray as xr

    from analyses.report.outside import figures, outside_steps, rows
    from analyses.report.steps import run_steps
    from interp import load
    from interp.files import check_free
    from interp.zoo import task as task_of

    check_free(out, overwrite=force)
    ready(save, force)
    loaded = load(model)
    pairs = [] if prompt else task_of(task).sample(count, seed, loaded.tokenizer)
    texts = list(prompt) if prompt else [pair.clean for pair in pairs]
    disturbance = _disturbance(swap, nudge, layer, [pair.corrupt for pair in pairs])
    results: dict[str, xr.Dataset] = {}
    with parts_of(out) as parts:
        stages = outside_steps(
            loaded, texts, disturbance, results, seeds=seeds, steps=steps, temperature=temperature, seed=seed, folder=parts
        )  # fmt: skip
        run_steps(stages, results, title="cascade outside", progress=True)
        deliver_all(results, figures(results), rows(results), out, save, force)


def _disturbance(swap: str | None, nudge: float | None, layer: int, others: list[str]) -> "Disturbance":
    """What the options ask for: a nudge, a swap, else the corrupt partners, else the last token swapped."""
    from analyses.cascade import Nudge, Replace, Swap

    if swap is not None and nudge is not None:
        raise typer.BadParameter("give --swap or --nudge, not both")
    if nudge is not None:
        return Nudge(layer=layer, dose=nudge)
    if swap is not None:
        position, _, token = swap.partition("=")
        if not position.lstrip("-").isdigit():
            raise typer.BadParameter(f"--swap is POSITION or POSITION=TOKEN, got {swap!r}")
        return Swap(int(position), token or None)
    return Replace(others) if others else Swap()
