"""`interp circuit`: Which edges between the parts of a model carry the answer, and how faithful is that?"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import Force, Model, SaveAll, app, deliver_all, free, free_folder, refuse, seed_option
from analyses.cli.parts import check_whole, goes_on, parts_of


@app.command()
def circuit(
    prompt: Annotated[str | None, typer.Argument(help="The clean text. Default: a prompt pair made for smalltown.")] = None,
    corrupt: Annotated[str | None, typer.Option(help="A text of equal token length that differs in what matters.")] = None,
    answer: Annotated[str | None, typer.Option(help="Right next token, with its leading space. Default: the top prediction.")] = None,
    wrong: Annotated[str | None, typer.Option(help="The token to compare it with. Default: the top prediction after CORRUPT.")] = None,
    task: Annotated[str | None, typer.Option(help="Draw pairs from a task (ioi, capitals, ...) in place of PROMPT.")] = None,
    pairs: Annotated[int | None, typer.Option(help="How many pairs to draw from the task. Default: 20.", min=1)] = None,
    model: Model = "smalltown",
    method: Annotated[str, typer.Option(
        help="exact: every edge is patched. Or an estimate, for a first look at a large model: eap, eap_ig_inputs, eap_ig_activations, "
        "clean_corrupted, relp or atp_star."
    )] = "exact",
    edges: Annotated[int | None, typer.Option(
        help="How many edges make the circuit, before what lies on no path is left out. Default: 50, or all of a model with fewer.", min=1
    )] = None,
    signed: Annotated[bool, typer.Option("--signed", help="Rank edges by how much they help the answer, not by size.")] = False,
    verify: Annotated[int | None, typer.Option(help="Of an estimate, how many edges to patch exactly. Default: 20.", min=0)] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Every method beside the exact effects of all edges.")] = False,
    replacement: Annotated[str, typer.Option(help="resample, zero, mean or mean_by_position.")] = "resample",
    metric: Annotated[str, typer.Option(
        help="logit_difference, logit, probability, log_probability, cross_entropy, kl or rank."
    )] = "logit_difference",
    position: Annotated[int, typer.Option(help="Where the answer is read: a position, negative from the end of each prompt.")] = -1,
    graphml: Annotated[Path | None, typer.Option(help="Also write the circuit as GraphML.")] = None,
    eap_ig: Annotated[Path | None, typer.Option(help="Also write the circuit, with the scores of all edges, as EAP-IG's JSON.")] = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write the figures to.")] = Path("circuit.html"),
    save: SaveAll = None,
    seed: Annotated[int, seed_option("Of the task's pairs and of random circuits.")] = 0,
    force: Force = False,
) -> None:  # fmt: skip
    """Score every edge of the model, draw the circuit that the strongest make, and measure how faithful it is.

    Finished parts are kept in OUT.parts until all is done: after a stop, or where something failed, the same command goes on from there.
    A part of the exact effects is some of the pairs, as many as memory allows; what was done of an unfinished one is done again.
    """
    asked = {"command": "circuit", **locals()}
    from analyses.circuits import Circuit, edge_scores, write_eap_ig, write_graphml
    from analyses.report.circuit import (
        EXACT,
        check_circuit,
        circuit_sentence,
        circuit_steps,
        count_of,
        figures,
        rows,
        shown_circuit,
        usual_count,
    )
    from analyses.report.patch import check_options, pairs_to_patch
    from analyses.report.shelf import parts_shelf
    from analyses.report.steps import Results, check_any, run_steps
    from interp import load

    if method == EXACT:
        refuse("is for an estimate; with --method exact every edge is patched", verify=verify)
    if task is None:
        refuse("is for --task", pairs=pairs)
    check_options(prompt=prompt, corrupt=corrupt, answer=answer, wrong=wrong, task_name=task, who="circuit")
    force = force or goes_on(asked, out, graphml, eap_ig, save)
    free(out, graphml, eap_ig, force=force)
    free_folder(save, force=force)
    loaded = load(model)
    options: dict[str, Any] = {"replacement": replacement, "metric": metric, "position": position}
    first = min(20, count_of(loaded)) if verify is None else verify
    count = usual_count(loaded) if edges is None else edges
    check_circuit(loaded, method=method, count=count, verify=first, **options)
    two = pairs_to_patch(
        loaded, prompt=prompt, corrupt=corrupt, answer=answer, wrong=wrong, task_name=task,
        count=20 if pairs is None else pairs, seed=seed, position=position, who="circuit",
    )  # fmt: skip
    request: dict[str, Any] = {
        "method": method,
        "count": count,
        "signed": signed,
        "verify": first,
        "compare": compare,
        "seed": seed,
    }
    results = Results()
    with parts_of(out) as parts:
        shelf = parts_shelf(parts, loaded, {"what": "circuit", "pairs": two, **options, **request})
        keep = None if shelf.folder is None else shelf.folder / "edges"
        steps = circuit_steps(loaded, two, results, **request, options=options, keep=keep, progress=True)
        run_steps(steps, results, title="circuit", progress=True, keep=shelf.part)
        check_any(results, "circuit")
        deliver_all(results, figures(results), rows(results), out, save, force)
        console = Console(highlight=False)
        if "circuit_faithfulness" in results:
            console.print(escape(circuit_sentence(results["circuit_edges"], results["circuit_faithfulness"])))
            found = shown_circuit(results)
            if graphml is not None:
                write_graphml(graphml, found, overwrite=force)
                console.print(f"GraphML: {escape(str(graphml))}", soft_wrap=True)
            if eap_ig is not None:
                scored = Circuit(found.shape, found.edges, edge_scores(results["circuit_edges"]))
                write_eap_ig(eap_ig, scored, overwrite=force)
                console.print(f"EAP-IG: {escape(str(eap_ig))}", soft_wrap=True)
        check_whole(results, asked, out, graphml, eap_ig, save)
