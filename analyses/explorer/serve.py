"""The page served from this machine."""

import secrets
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from analyses.explorer.listening import listen, names, reached
from analyses.explorer.questions import PATH, SAID, is_question
from analyses.explorer.state import State
from interp.errors import InterpError
from interp.model import Transformer

INSTALL = "python -m pip install 'criticalpile[explore]'"
KINDS = ("heatmap", "scatter", "bar")
"""Traces of the page's figures."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Server:
    """The page, ready to be served.

    Args:
        start: what is shown where the address names nothing.
        given: models that are loaded already, beside those that are installed.
        host: to listen at; anything but this machine itself needs the token that is made here.
        port: 0 takes one that is free.

    Attributes:
        address: of the page, with the token where there is one.
        elsewhere: addresses by which another machine reaches it, where it is listened for at all addresses of this one.

    Raises:
        InterpError: Dash is not installed; the port is taken or the host is none of this machine; a model that is not here; texts that it
            cannot take.
    """

    def __init__(
        self, start: State, *, given: Mapping[str, Transformer] | None = None, host: str = "127.0.0.1", port: int = 8050
    ) -> None:
        check_installed()
        from werkzeug.serving import WSGIRequestHandler, make_server

        from analyses.explorer.desk import Desk
        from analyses.explorer.guard import Guard

        class Quiet(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"  # one connection for many questions

            def log_request(self, *given: Any) -> None:
                """Nothing: addresses hold prompts."""

        self.desk = Desk(given)
        self.desk.asked(start)  # whether the page can show it
        self.token = None if host in LOOPBACK else secrets.token_urlsafe(24)
        self.app = application(self.desk, start)
        with listen(host, port) as taken:
            self.port = int(taken.getsockname()[1])
            guarded = Guard(self.app.server.wsgi_app, self.port, self.token, self.app.csp_hashes(), names(host))
            self._server = make_server(
                host, self.port, guarded, threaded=True, request_handler=Quiet, fd=taken.fileno()
            )
        query = f"?token={self.token}" if self.token else ""
        self.address, *self.elsewhere = [f"http://{one}:{self.port}/{query}" for one in reached(host)]

    def serve(self) -> None:
        """Answer until the process is told to end."""
        try:
            self._server.serve_forever()
        finally:
            self.desk.jobs.stop_all()

    def stop(self) -> None:
        """From another thread: end `serve`."""
        self._server.shutdown()
        self._server.server_close()


def application(desk: Any, start: State) -> Any:
    """The Dash application: nothing of it comes from outside, and nothing of it debugs."""
    from dash import Dash

    from analyses.explorer.callbacks import register
    from analyses.explorer.page import page
    from analyses.report.bundle import drawing

    app = Dash(
        "analyses.explorer", assets_folder=str(Path(str(files("analyses.explorer"))) / "assets"), serve_locally=True, title="explore",
        update_title="", eager_loading=False, suppress_callback_exceptions=False, compress=False, enable_mcp=False,
        external_scripts=["/plotly.js", "/dark.js"], add_log_handler=False,
    )  # fmt: skip
    app.layout = page(desk.models.names)
    register(app, desk, start)
    _check_questions(app)
    dark = files("analyses.report").joinpath("templates", "dark.js").read_bytes()
    _script(app.server, "/dark.js", dark)
    _script(app.server, "/plotly.js", drawing(KINDS), packed=True)
    return app


def _script(server: Any, path: str, content: bytes, *, packed: bool = False) -> None:
    from flask import Response

    headers = {"Cache-Control": "private, max-age=86400"} | ({"Content-Encoding": "gzip"} if packed else {})
    server.add_url_rule(path, path, lambda: Response(content, mimetype="text/javascript", headers=headers))


def check_installed() -> None:
    """Raise InterpError, with the command that installs it, where Dash is not here."""
    try:
        import dash
        import dash_mantine_components  # noqa: F401
    except ImportError as error:
        raise InterpError(
            f"explore: the page is made with Dash, which is not installed ({error.name}): {INSTALL}."
        ) from error
    del dash


def _check_questions(app: Any) -> None:
    """Have a Dash application answer 400, with a sentence, what would be an error in Dash itself."""
    from flask import Response, request

    @app.server.before_request
    def check() -> Response | None:
        if request.path != PATH or request.method != "POST":
            return None
        try:
            asked = request.get_json(silent=True)  # Flask keeps it, so that it is read once
        except RecursionError:
            asked = None
        return None if is_question(app.callback_map, asked) else Response(SAID, 400, mimetype="text/plain")
