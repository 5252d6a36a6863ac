"""The templates of pages."""

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analyses.report.alternative import alternative


def environment() -> Environment:
    """Whatever is put into a template is escaped, unless it is marked as HTML."""
    made = Environment(
        loader=PackageLoader("analyses.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["as_plot"] = as_plot
    return made


def as_plot(figure: go.Figure) -> Markup:
    """A place for a figure, with its words, and the figure as data that no text in it can end."""
    figure.update_layout(autosize=False)
    data = Markup(figure.to_json().replace("<", "\\u003c"))
    return Markup(
        '<div class="plotly-graph-div" role="group" aria-label="{}"></div><script type="application/json">{}</script>'
    ).format(alternative(figure), data)
