"""`interp models`: What can be loaded."""

from rich.console import Console

from analyses.cli.app import app


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
