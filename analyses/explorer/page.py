"""The page as it is at first: panels whose contents come from the state."""

from collections.abc import Sequence

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from analyses.explorer.state import SITES
from interp.zoo import TASKS

SITE_NAMES = dict(zip(SITES, ("stream", "attention", "MLP", "heads"), strict=True))

PANELS = {
    "lens": (
        "Lens",
        "What the model would predict if everything above were left out. A click selects layer and position.",
    ),
    "patching": (
        "Patching grid",
        "The changed run with one value of the other run put in at a time: 1 is all of the way.",
    ),
    "head": ("Attention of the selected head", "A row is a token, and shares its attention over the columns."),
    "heads": ("Heads of the selected layer", "A click on a head selects it."),
    "cone": ("Light cone of the disturbance", "Its energy at each layer and position, over that which was put in."),
    "gain": ("Gain of the disturbance", "How it grows or dies away with depth."),
    "attribution": ("Direct logit attribution", "What each part writes towards the answer in the clean run."),
    "circuit": ("Circuit", "The edges between parts that matter most, every one patched by itself."),
    "live": ("KL and h", "How far apart the two next-token distributions are at each step."),
}
"""Titles of the figures, and how to read them."""

ON_DEMAND = ("attribution",)
"""Figures that are measured when they are opened."""


def page(models: Sequence[str]) -> Component:
    """All of it."""
    return dmc.MantineProvider(
        [
            dcc.Location(id="address", refresh=False),
            *[dcc.Store(id=name) for name in STORES],
            dcc.Store(id="jobs", storage_type="session"),  # work goes on while a tab is loaded anew
            *[dcc.Download(id=name) for name in ("csv", "report")],
            html.A("Skip to the views", href="#views", className="skip"),
            _top(models),
            html.Main([_left(), html.Div(_views(), id="views", className="views")], className="page"),
            _code(),
            html.Div(id="nowhere", hidden=True),
        ],
        id="provider",
        defaultColorScheme="auto",
        theme={"fontFamily": '"Helvetica Neue", Helvetica, Arial, sans-serif', "primaryColor": "blue"},
    )


STORES = (
    "session", "now", "event", "scheme", "need-texts", "need-runs", "need-look",
    "told-texts", "told-runs", "told-look", "wanted", "saved", "begin", "begun", "need-jobs", "told-jobs",
    "live-ask", "live-told",
    *(f"{kind}-{name}" for name in PANELS for kind in ("need", "raw")),
)  # fmt: skip


def _top(models: Sequence[str]) -> Component:
    return html.Header(
        [
            html.H1("criticalpile explore"),
            dmc.Select(id="model", data=list(models), allowDeselect=False, size="xs", **{"aria-label": "Model"}),
            _button("undo", "Undo"),
            html.Button("Copy as Python", id="show-code", className="button"),
            html.Button("Report", id="start-report", className="button", title="The page that `interp report` writes of these texts",
                **{"data-begin": "report"}),
            dmc.ColorSchemeToggle(
                lightIcon=html.Span("☀", **{"aria-hidden": "true"}), darkIcon=html.Span("☾", **{"aria-hidden": "true"}), size="md",
                variant="default", id="toggle", **{"aria-label": "Light or dark"},
            ),
            html.Div(id="message", role="status", **{"aria-live": "polite"}),
            html.Div(id="work"),
        ],
        className="top",
    )  # fmt: skip


def _left() -> Component:
    return html.Div(
        [
            _section(
                "Prompt",
                *(
                    dmc.Textarea(id=name, label=label, autosize=True, minRows=2, maxRows=8, debounce=400)
                    for name, label in (("clean", "Clean text"), ("corrupt", "Corrupt text"))
                ),
                html.Div(
                    [
                        dmc.TextInput(id="answer", label="Answer", placeholder="top prediction", debounce=400),
                        dmc.TextInput(id="wrong", label="Wrong answer", placeholder="top prediction", debounce=400),
                    ],
                    className="pair",
                ),
                html.Div(
                    [
                        dmc.Select(id="task", data=list(TASKS), label="Example of a task", placeholder="choose"),
                        html.Button("Another", id="another", className="button"),
                    ],
                    className="pair",
                ),
            ),
            _section("Tokens", html.Div(id="tokens", className="keys")),
            _section("Selection", html.Div(id="selection", className="soft"), *_controls()),
            _section("Changes", html.Div(id="changes")),
            _section("Next-token predictions", html.Div(id="predictions", className="predictions")),
            _section("Runs", html.Div(id="runs")),
        ],
        className="left",
    )


def _controls() -> list[Component]:
    click = [
        {"value": one, "label": label}
        for one, label in (("select", "select"), ("patch", "patch"), ("ablate", "ablate"), ("inject", "disturb"))
    ]
    return [
        html.Div([html.Label("A click", htmlFor="how"), dmc.SegmentedControl(id="how", data=click, value="select", size="xs")],
            className="line",
        ),
        html.Div(
            [html.Label("Changed run"), dmc.SegmentedControl(id="changed", data=["corrupt", "clean"], value="corrupt", size="xs")],
            className="line",
        ),
        html.Div(
            [_button("patch", "Patch"), _button("ablate", "Ablate head"), _button("inject", "Disturb"), _button("steer", "Steer")],
            className="line",
        ),
        html.Div(
            [
                dmc.TextInput(id="toward", label="Steer towards", placeholder="a token", size="xs"),
                dmc.TextInput(id="away", label="away from", placeholder="nothing", size="xs"),
            ],
            className="pair",
        ),
        html.Label(id="dose-label"),
        dmc.Slider(
            id="dose", min=-3, max=0.5, step=0.05, value=-1, updatemode="drag", size="sm", thumbLabel="Dose, powers of ten",
            marks=[{"value": at, "label": f"{10.0**at:g}"} for at in (-3, -2, -1, 0)],
        ),
        html.Div(id="dose-said", className="soft"),
    ]  # fmt: skip


def _views() -> list[Component]:
    shown = dmc.SegmentedControl(id="shown", data=["clean", "corrupt"], value="clean", size="xs")
    which = dmc.SegmentedControl(id="lens", data=["logit", "tuned"], value="logit", size="xs")
    site = dmc.SegmentedControl(
        id="site",
        data=[{"value": one, "label": name} for one, name in SITE_NAMES.items()],
        value="resid_pre",
        size="xs",
    )
    return [
        html.Div([html.Span("Lens and attention of the text", className="soft"), shown], className="line whole"),
        _panel("lens", [which], whole=True),
        _panel("patching", [site]),
        html.Section(
            [html.H2("Attention over the text"), html.P(id="attended-said", className="soft"),
             html.Div(id="attended", className="keys tokens")],
            className="panel", **{"aria-label": "Attention over the text"},
        ),
        _panel("head"),
        _panel("heads"),
        _panel("cone"),
        _panel("gain"),
        html.Section(
            [
                html.H2("The cascade outside, live"),
                html.P("Both texts are continued on the same noise, a token at a time; what differs is coloured.", className="soft"),
                html.Div(
                    [
                        html.Button("Start", id="live-go", className="button"),
                        html.Button("Another seed", id="live-seed", className="button"),
                        html.Span(id="live-said", className="soft", role="status"),
                    ],
                    className="line",
                ),
                html.Label("Temperature", id="temperature-label"),
                dmc.Slider(id="temperature", min=0, max=2, step=0.05, value=1, size="sm", updatemode="mouseup", thumbLabel="Temperature",
                           marks=[{"value": at, "label": f"{at:g}"} for at in (0, 0.5, 1, 1.5, 2)]),
                html.Div(id="written", className="written"),
                *_figure("live"),
            ],
            className="panel whole", id="panel-live", **{"aria-label": "The cascade outside, live"},
        ),
        html.Details([html.Summary("Direct logit attribution"), _panel("attribution")], id="open-attribution", className="whole"),
        _panel(
            "circuit",
            [html.Button("Patch every edge", id="start-circuit", className="button", **{"data-begin": "circuit"})],
            whole=True,
        ),
    ]  # fmt: skip


def _panel(name: str, controls: Sequence[Component] = (), whole: bool = False) -> Component:
    title, read = PANELS[name]
    return html.Section(
        [html.Div([html.H2(title), *controls], className="line"), html.P(read, className="soft"), *_figure(name)],
        id=f"panel-{name}", className=f"panel{' whole' if whole else ''}", **{"aria-label": title},
    )  # fmt: skip


def _figure(name: str) -> list[Component]:
    save = [
        html.Button(
            kind,
            className="save",
            **{"data-save": kind.lower(), "data-view": name, "aria-label": f"{PANELS[name][0]} as {kind}"},
        )
        for kind in ("PNG", "SVG", "Data")
    ]
    return [
        html.P(id=f"said-{name}", className="said"),
        html.Div(
            html.Div([html.Div(id=f"figure-{name}", className="graph"), html.Div(id=f"marks-{name}")], className="holder"),
            id=f"wide-{name}", className="wide keys", tabIndex=0, role="img", hidden=True,
        ),
        html.Div(save, id=f"save-{name}", className="saves", hidden=True),
    ]  # fmt: skip


def _section(title: str, *parts: Component) -> Component:
    return html.Section([html.H2(title), *parts], className="panel", **{"aria-label": title})


def _button(do: str, label: str) -> Component:
    return html.Button(label, className="button", id=f"do-{do}", **{"data-do": do})


def _code() -> Component:
    return dmc.Modal(
        [
            html.P("The library’s own calls; they give the numbers of the page.", className="soft"),
            dcc.Clipboard(target_id="code", id="copy", title="Copy", className="copy"),
            html.Pre(id="code", className="code", tabIndex=0),
        ],
        id="code-shown", title="This view as Python", opened=False, size="xl",
    )  # fmt: skip
