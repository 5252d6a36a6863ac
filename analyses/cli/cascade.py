"""`interp cascade`: Does a disturbance die away or grow?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyses.cli.app import (
    Force,
    Model,
    Save,
    SaveAll,
    app,
    deliver,
    deliver_all,
    free,
    free_folder,
    refuse,
    seed_option,
)
from analyses.cli.parts import check_whole, goes_on, parts_of

if TYPE_CHECKING:
    from analyses.cascade.disturbances import Disturbance, Swap

cascade_app = typer.Typer(no_args_is_help=True, help="Measure whether a disturbance dies away or grows.")
app.add_typer(cascade_app, name="cascade")


@cascade_app.callback()
def cascade() -> None:
    """Measure whether a disturbance dies away or grows."""


@cascade_app.command()
def inside(
    prompt: Annotated[list[str] | None, typer.Argument(help="One text, or several for intervals and a verdict. Default: a task's.")] = None,
    task: Annotated[str | None, typer.Option(help="The task whose prompts are taken where none is given. Default: all in turn.")] = None,
    dose: Annotated[float, typer.Option(help="Size of the disturbance relative to the stream.")] = 1e-2,
    layer: Annotated[int, typer.Option(help="Where to inject.")] = 0,
    directions: Annotated[int, typer.Option(help="Random directions at each position.", min=1)] = 8,
    everything: Annotated[bool, typer.Option("--all", help="Also what rounding loses, and the way between two activations.")] = False,
    model: Model = "smalltown",
    out: Annotated[Path, typer.Option(help="The HTML file to write the figures to.")] = Path("cascade.html"),
    save: SaveAll = None,
    seed: Annotated[int, seed_option("Of directions, prompts and the random-init twin.")] = 0,
    force: Force = False,
) -> None:  # fmt: skip
    """Follow a disturbance of the residual stream up the layers, beside the same model at random initialisation.

    Finished parts are kept in OUT.parts until all is done: after a stop, or where something failed, the same command goes on from there.
    """
    asked = {"command": "cascade inside", **locals()}
    from analyses.report.cascade_rows import inside_rows
    from analyses.report.inside import SLOW, check_inside, figures, inside_shelf, inside_steps
    from analyses.report.steps import Results, check_any, run_steps
    from interp import load
    from interp.zoo import every_task
    from interp.zoo import task as task_of

    if prompt:
        refuse("is for where no PROMPT is given", task=task)
    force = force or goes_on(asked, out, save)
    free(out, force=force)
    free_folder(save, force=force)
    drawn = every_task if task is None else task_of(task).sample
    loaded = load(model)
    pairs = [] if prompt else drawn(12, seed, loaded.tokenizer)
    texts = list(prompt) if prompt else [pair.clean for pair in pairs]
    check_inside(loaded, texts, dose=dose, layer=layer, n_directions=directions)
    answers = {"answer": [pair.answer for pair in pairs], "wrong": [pair.wrong for pair in pairs]} if pairs else None
    others, clusters = [pair.corrupt for pair in pairs], [pair.cluster for pair in pairs] or None
    request: dict[str, Any] = {"dose": dose, "layer": layer, "n_directions": directions, "seed": seed}
    results = Results()
    with parts_of(out) as parts:
        shelf = inside_shelf(parts, loaded, texts, others, answers=answers, clusters=clusters, **request)
        steps = inside_steps(
            loaded,
            texts,
            others,
            results,
            answers=answers,
            clusters=clusters,
            **request,
            shelf=shelf,
            leave=() if everything else SLOW,
        )
        run_steps(steps, results, title="cascade inside", progress=True)
        check_any(results, "cascade inside")
        deliver_all(results, figures(results), inside_rows(results), out, save, force)
        check_whole(results, asked, out, save)


@cascade_app.command()
def outside(
    prompt: Annotated[list[str] | None, typer.Argument(help="One text, or several for a verdict. Default: a task's pairs.")] = None,
    task: Annotated[str | None, typer.Option(help="A task whose pairs are taken, clean made corrupt. Default: all in turn.")] = None,
    count: Annotated[int | None, typer.Option(help="How many of them. Default: 32.", min=1)] = None,
    swap: Annotated[str | None, typer.Option(help="POSITION=TOKEN to put there, or POSITION for the next best.")] = None,
    nudge: Annotated[float | None, typer.Option(help="Nudge the stream at the last token by this dose instead.")] = None,
    layer: Annotated[int | None, typer.Option(help="Where to nudge. Default: 0.", min=0)] = None,
    seeds: Annotated[int, typer.Option(help="Draws of the noise for each prompt.", min=1)] = 8,
    steps: Annotated[int, typer.Option(help="Tokens to generate; 16 at least.")] = 64,
    temperature: Annotated[float, typer.Option(help="Of sampling; 0 is greedy.")] = 1.0,
    model: Model = "smalltown",
    out: Annotated[Path, typer.Option(help="The HTML file to write the figures to.")] = Path("outside.html"),
    save: SaveAll = None,
    seed: Annotated[int, seed_option("Of noise, prompts and nudges.")] = 0,
    force: Force = False,
) -> None:  # fmt: skip
    """Follow a disturbance through the model's own words: coupled texts, survival, reproduction, avalanches, channels, temperature.

    Finished parts are kept in OUT.parts until all is done: after a stop, or where something failed, the same command goes on from there.
    """
    asked = {"command": "cascade outside", **locals()}
    from analyses.cascade import Nudge, Replace, Swap
    from analyses.report.cascade_rows import outside_rows
    from analyses.report.outside import check_outside, figures, outside_shelf, outside_steps
    from analyses.report.steps import Results, check_any, run_steps
    from interp import load
    from interp.zoo import every_task
    from interp.zoo import task as task_of

    if prompt:
        refuse("is for where no PROMPT is given", task=task, count=count)
    if swap is not None and nudge is not None:
        raise typer.BadParameter("give --swap or --nudge, not both")
    if nudge is None:
        refuse("says where to --nudge; give that too", layer=layer)
    swapped = None if swap is None else _swap(swap)
    force = force or goes_on(asked, out, save)
    free(out, force=force)
    free_folder(save, force=force)
    drawn = every_task if task is None else task_of(task).sample
    loaded = load(model)
    pairs = [] if prompt else drawn(32 if count is None else count, seed, loaded.tokenizer)
    texts = list(prompt) if prompt else [pair.clean for pair in pairs]
    disturbance: Disturbance
    if nudge is not None:
        disturbance = Nudge(layer=layer or 0, dose=nudge)
    else:
        disturbance = swapped or (Replace([pair.corrupt for pair in pairs]) if pairs else Swap())
    clusters = [pair.cluster for pair in pairs] or None
    request: dict[str, Any] = {"seeds": seeds, "steps": steps, "temperature": temperature}
    check_outside(loaded, texts, disturbance, **request)
    results = Results()
    with parts_of(out) as parts:
        shelf = outside_shelf(parts, loaded, texts, disturbance, **request, clusters=clusters, seed=seed)
        stages = outside_steps(
            loaded, texts, disturbance, results, **request, clusters=clusters, seed=seed, folder=shelf.folder
        )
        run_steps(stages, results, title="cascade outside", progress=True, keep=shelf.part)
        check_any(results, "cascade outside")
        deliver_all(results, figures(results), outside_rows(results), out, save, force)
        check_whole(results, asked, out, save)


@cascade_app.command()
def picture(
    prompt: Annotated[str | None, typer.Argument(help="The text. Default: one made for smalltown.")] = None,
    corrupt: Annotated[str | None, typer.Option(help="The same text disturbed, of as many tokens.")] = None,
    swap: Annotated[str | None, typer.Option(help="Or POSITION=TOKEN to put there, or POSITION for the next best.")] = None,
    nudge: Annotated[float | None, typer.Option(help="Or nudge the stream at the last token by this dose.")] = None,
    steps: Annotated[int, typer.Option(help="Tokens to generate.", min=1)] = 20,
    temperature: Annotated[float, typer.Option(help="Of sampling; 0 is greedy.")] = 1.0,
    model: Model = "smalltown",
    out: Annotated[Path, typer.Option(help="The HTML file to write the moving picture to.")] = Path("picture.html"),
    save: Save = None,
    seed: Annotated[int, seed_option("Of the noise, so of the draw that is shown.")] = 0,
    force: Force = False,
) -> None:  # fmt: skip
    """One disturbance as light that spreads through layers and positions, then on through the text, beside the untrained model."""
    import analyses
    from analyses.cascade import Nudge, Replace, wavefront
    from analyses.report.tables import wavefront_rows
    from interp import load
    from interp.zoo import DEFAULT_PAIR

    if sum(one is not None for one in (corrupt, swap, nudge)) > 1:
        raise typer.BadParameter("choose one of --corrupt, --swap and --nudge")
    swapped = None if swap is None else _swap(swap)
    free(out, save, force=force)
    if prompt is None and all(one is None for one in (corrupt, swap, nudge)):
        corrupt = DEFAULT_PAIR.corrupt
    disturbance: Disturbance | None = swapped
    if nudge is not None:
        disturbance = Nudge(dose=nudge)
    elif corrupt is not None:
        disturbance = Replace([corrupt])
    text = DEFAULT_PAIR.clean if prompt is None else prompt
    result = wavefront(load(model), text, disturbance, steps=steps, temperature=temperature, seed=seed, progress=True)
    deliver(result, wavefront_rows(result), out, save, force, [analyses.plot(result, animated=True)])


def _swap(text: str) -> "Swap":
    """What --swap asks for."""
    from analyses.cascade import Swap

    position, sign, token = text.partition("=")
    if not position.removeprefix("-").isdecimal() or (sign and not token):
        raise typer.BadParameter(f"--swap is POSITION or POSITION=TOKEN, got {text!r}")
    return Swap(int(position), token or None)
