"""What the page asks of the server. Each callback reads the tab's own session; the server keeps nothing of it."""

from collections.abc import Callable
from typing import Any

import pandas as pd
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, no_update

from analyses.explorer import figures, parts
from analyses.explorer.address import from_address, to_address
from analyses.explorer.desk import Desk
from analyses.explorer.events import act, elsewhere, remark, settled
from analyses.explorer.figures import FIGURES
from analyses.explorer.page import PANELS
from analyses.explorer.session import Session
from analyses.explorer.state import State as Looked
from analyses.report.export import table
from interp.errors import InterpError

Json = dict[str, Any]

LIVE_SECONDS = 0.15
"""For which texts are continued before the page is told."""


def register(app: Dash, desk: Desk, start: Looked) -> None:
    """Give the page what it needs; `start` is shown where the address names nothing."""
    _sessions(app, desk, start)
    _texts(app, desk)
    for name in FIGURES:
        _figure(app, desk, name)
    _saved(app, desk)
    _work(app, desk)
    _live(app, desk)
    _in_browser(app)


def _sent(desk: Desk, session: Session, number: int, message: str = "") -> Json:
    """A session as the tab keeps it."""
    length = max(tokens.shape[1] for tokens in desk.asked(session.state).tokens.values())
    said = {"number": number, "message": message, "address": to_address(session.state), "length": length}
    said["runs"] = parts.runs(session)
    return session.to_json() | said


def _sessions(app: Dash, desk: Desk, start: Looked) -> None:
    @app.callback(Output("session", "data"), Input("address", "search"))
    def begin(search: str | None) -> Json:
        query = search or ""
        try:
            state = from_address(query, start)
            message, state = elsewhere(desk, state), settled(desk, state, last="position=" not in query)
        except InterpError as error:
            message, state = str(error), settled(desk, start, last=True)
        return _sent(desk, Session(state), 0, message)

    @app.callback(
        Output("session", "data", allow_duplicate=True),
        Input("event", "data"),
        State("session", "data"),
        prevent_initial_call=True,
    )
    def happen(event: Any, given: Any) -> Json:
        number = given.get("number", 0) + 1 if isinstance(given, dict) else 1
        try:
            return _sent(desk, act(desk, Session.from_json(given), event), number, remark(event))
        except InterpError as error:
            return {**given, "number": number, "message": str(error)}


def _told(tell: Callable[[Any], Json]) -> Callable[[Any, Any], Json]:
    """A callback that tells something of a state, or why it cannot."""

    def told(need: Any, given: Any) -> Json:
        try:
            return tell(given)
        except InterpError as error:
            return {"problem": str(error)}

    return told


def _texts(app: Dash, desk: Desk) -> None:
    def tokens(given: Any) -> Json:
        state = Looked.from_json(given)
        asked = desk.asked(state)
        with desk.models.use(state.model) as model:
            pieces = model.need_tokenizer().pieces
        return parts.texts(asked, {which: pieces(rows[0].tolist()) for which, rows in asked.tokens.items()}, state)

    def effects(given: Any) -> Json:
        state = Looked.from_json(given)
        return parts.effects(desk.effects(desk.possible(state)), state, desk.obstacles(state))

    def attended(given: Any) -> Json:
        state = Looked.from_json(given)
        return parts.attended(desk.result(f"attention{state.suffix}", state), state)

    for name, tell in {"texts": tokens, "runs": effects, "look": attended}.items():
        app.callback(
            Output(f"told-{name}", "data"),
            Input(f"need-{name}", "data"),
            State("now", "data"),
            prevent_initial_call=True,
        )(_told(tell))

    @app.callback(
        Output("code", "children"), Output("code-shown", "opened"), Input("show-code", "n_clicks"), State("now", "data"),
        State("live-told", "data"), prevent_initial_call=True,
    )  # fmt: skip
    def code(clicks: int | None, given: Any, told: Any) -> Any:
        steps = told.get("steps", 0) if isinstance(told, dict) else 0
        try:
            return desk.python(Looked.from_json(given), steps if isinstance(steps, int) else 0), True
        except InterpError as error:
            return f"# {error}", True


def _figure(app: Dash, desk: Desk, name: str) -> None:
    @app.callback(
        Output(f"raw-{name}", "data"),
        Input(f"need-{name}", "data"),
        State("now", "data"),
        prevent_initial_call=True,
    )
    def view(need: Any, given: Any) -> Any:
        if need is None:
            return None
        try:
            return desk.figure(name, Looked.from_json(given))
        except InterpError as error:
            return {"problem": str(error)}


def _saved(app: Dash, desk: Desk) -> None:
    @app.callback(
        Output("csv", "data"),
        Output("saved", "data"),
        Input("wanted", "data"),
        State("now", "data"),
        State("live-told", "data"),
        prevent_initial_call=True,
    )
    def data(wanted: Any, given: Any, told: Any) -> Any:
        """The numbers of a figure as CSV, or why they cannot be had."""
        try:
            return frame(wanted, given, told), {"problem": ""}
        except InterpError as error:
            return no_update, {"problem": str(error)}

    def frame(wanted: Any, given: Any, told: Any) -> Any:
        name = str(wanted.get("view")) if isinstance(wanted, dict) else ""
        state = Looked.from_json(given)
        if name == "live":
            steps = told.get("steps", 0) if isinstance(told, dict) else 0
            texts = desk.lives.to(state, int(steps), 5.0)
            told_apart = dict(zip(("clean", "corrupt"), texts.tokens, strict=True))
            found = pd.DataFrame({"time": range(len(texts.kl)), **told_apart, "kl": texts.kl, "h": texts.h})
        elif name == "circuit":
            edges = desk.circuit(state)
            if edges is None:
                return no_update
            found = table(edges)
        elif name in FIGURES:
            found = table(desk.result(FIGURES[name].result(state), state))
        else:
            return no_update
        return dcc.send_string(found.to_csv(index=False), f"{name}.csv")


def _own(given: Any) -> dict[str, str]:
    """The kinds of the work that a tab began, by its names."""
    listed = given if isinstance(given, list) else []
    return {
        str(one["key"]): str(one["kind"]) for one in listed if isinstance(one, dict) and {"key", "kind"} <= set(one)
    }


def _work(app: Dash, desk: Desk) -> None:
    @app.callback(
        Output("begun", "data"), Input("begin", "data"), State("now", "data"), State("jobs", "data"), prevent_initial_call=True,
    )  # fmt: skip
    def start(asked: Any, given: Any, jobs: Any) -> Json:
        kind = "report" if isinstance(asked, dict) and asked.get("kind") == "report" else "circuit"
        begin = desk.start_report if kind == "report" else desk.start_circuit
        try:
            return {"key": begin(Looked.from_json(given), _own(jobs)), "kind": kind}
        except InterpError as error:
            return {"problem": str(error)}

    @app.callback(
        Output("told-jobs", "data"), Output("report", "data"), Output("raw-circuit", "data"),
        Input("need-jobs", "data"), State("jobs", "data"), State("now", "data"), prevent_initial_call=True,
    )  # fmt: skip
    def watch(need: Any, jobs: Any, given: Any) -> Any:
        """How far the work of a tab is; what is done leaves its list, a report with its page."""
        stop = need.get("stop") if isinstance(need, dict) else None
        told: list[Json] = []
        report: Any = no_update
        circuit: Any = no_update
        for key, kind in _own(jobs).items():
            try:
                job = desk.jobs.get(key)
            except InterpError as error:
                told.append({"key": key, "ended": str(error)})
                continue
            if key == stop:
                job.stop()
            if job.running or (kind == "report" and report is not no_update):  # one page at a time
                told.append({"key": key, "said": job.said, "share": job.steps.share})
                continue
            told.append({"key": key, "ended": f"{job.name}: {job.problem or 'done'}"})
            if not job.problem and kind == "report":
                report = dcc.send_string(job.result, "report.html")
            if not job.problem and kind == "circuit":
                circuit = _circuit(desk, given)
        return {"jobs": told}, report, circuit

    @app.callback(
        Output("raw-circuit", "data", allow_duplicate=True), Input("need-circuit", "data"), State("now", "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    def circuit(need: Any, given: Any) -> Any:
        return _circuit(desk, given)


def _circuit(desk: Desk, given: Any) -> Json:
    state = Looked.from_json(given)
    found = desk.circuit(state)
    if found is None:
        return {
            "problem": "None was computed of these texts: the button patches every edge, which takes a while on a large model."
        }
    return figures.circuit(found, state)


def _live(app: Dash, desk: Desk) -> None:
    @app.callback(
        Output("live-told", "data"), Output("raw-live", "data"), Input("live-ask", "data"),
        State("now", "data"), prevent_initial_call=True,
    )  # fmt: skip
    def go_on(ask: Any, given: Any) -> Any:
        steps = ask.get("steps") if isinstance(ask, dict) else None
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            return {"steps": 0, "most": 0, "ask": None, "problem": ""}, None
        state = Looked.from_json(given)
        try:
            texts = desk.lives.to(state, steps, LIVE_SECONDS)
        except InterpError as error:
            return {"steps": 0, "most": 0, "ask": ask.get("ask"), "problem": str(error)}, None
        told = {
            "steps": len(texts.kl),
            "most": texts.most,
            "ask": ask.get("ask"),
            "problem": "",
            "kl": texts.kl,
            "h": texts.h,
        }
        return told | {"texts": parts.written(texts)}, figures.live(texts)


def _in_browser(app: Dash) -> None:
    """What needs no server: which view needs what, figures in light and dark with the selection marked, fields and the address."""

    def named(function: str) -> ClientsideFunction:
        return ClientsideFunction(namespace="explorer", function_name=function)

    needs = ["texts", "runs", "look", "live", *PANELS]
    app.clientside_callback(  # the only one of the session: Dash takes some 10 ms for each
        named("needs"), [Output("now", "data"), *[Output(f"need-{name}", "data") for name in dict.fromkeys(needs)]],
        Input("session", "data"), prevent_initial_call=True,
    )  # fmt: skip
    for name in PANELS:
        app.clientside_callback(
            named("drawn"),
            Output(f"said-{name}", "children"), Output(f"wide-{name}", "hidden"), Output(f"wide-{name}", "style"),
            Output(f"wide-{name}", "aria-label"), Output(f"save-{name}", "hidden"),
            Input(f"raw-{name}", "data"), Input("scheme", "data"), State(f"figure-{name}", "id"), prevent_initial_call=True,
        )  # fmt: skip
    fields = ("model", "clean", "corrupt", "answer", "wrong", "changed", "site", "shown", "lens", "temperature")
    app.clientside_callback(
        named("changed"), Output("nowhere", "children"), [Input(name, "value") for name in (*fields, "task", "dose")],
        State("session", "data"), prevent_initial_call=True,
    )  # fmt: skip
    for name in ("texts", "runs", "look"):
        app.clientside_callback(
            named(f"show_{name}"),
            Output(f"told-{name}", "storage_type"),
            Input(f"told-{name}", "data"),
            prevent_initial_call=True,
        )
    app.clientside_callback(
        named("worked"), Output("jobs", "data"), Input("begun", "data"), Input("told-jobs", "data"), State("jobs", "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    app.clientside_callback(named("saved"), Output("nowhere", "dir"), Input("saved", "data"), prevent_initial_call=True)
    app.clientside_callback(named("watched"), Output("nowhere", "lang"), Input("jobs", "data"))
    app.clientside_callback(
        named("lived"), Output("live-said", "children"), Output("live-go", "children"), Output("live-go", "disabled"),
        Input("live-told", "data"), Input("need-live", "data"),
        Input("live-go", "n_clicks"), Input("live-seed", "n_clicks"), State("session", "data"), prevent_initial_call=True,
    )  # fmt: skip
