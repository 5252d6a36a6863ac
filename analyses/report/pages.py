"""The templates of pages."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """Whatever is put into a template is escaped, unless it is marked as HTML."""
    return Environment(
        loader=PackageLoader("analyses.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
