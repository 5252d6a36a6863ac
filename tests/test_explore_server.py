"""Who may ask the live page, and what it answers to what cannot be asked: by plain HTTP, without a browser."""

import http.client
import json
import re
import socket
from urllib.parse import quote

import pytest
from explored import START, served

from analyses.explorer.address import from_address
from analyses.explorer.serve import Server
from analyses.explorer.state import State
from interp.errors import InterpError


@pytest.fixture(scope="module")
def server(smalltown):
    with served({"smalltown": smalltown}) as made:
        yield made


def ask(server, path="/", method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body, headers={"Host": f"127.0.0.1:{server.port}", **headers})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode("utf-8", "replace"), answer.headers
    connection.close()
    return found


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"method": "POST", "path": "/_dash-update-component", "Origin": "http://evil.example"}, 403),
        ({"method": "POST", "path": "/_dash-update-component", "Sec_Fetch_Site": "cross-site"}, 403),
        ({"method": "POST", "path": "/_dash-update-component", "Content_Length": "9000000"}, 413),
        ({"method": "POST", "path": "/_dash-update-component", "Transfer_Encoding": "chunked"}, 411),
        ({"path": "/assets/../serve.py"}, 404),
        ({"path": "/assets/%2e%2e/serve.py"}, 404),
        ({"path": "/_mcp"}, 404),
    ],
)  # fmt: skip
def test_who_asks_from_elsewhere_is_refused(server, asked, status):
    found = ask(server, **asked)
    if status == 404 and found[0] == 200:  # Dash answers unknown paths with the page itself
        assert "_dash-config" in found[1]
    else:
        assert found[0] == status
    assert "Traceback" not in found[1]
    assert "'self'" in found[2]["Content-Security-Policy"]
    assert "unsafe-eval" not in found[2]["Content-Security-Policy"]


BEGIN = {
    "output": "session.data", "outputs": {"id": "session", "property": "data"}, "state": [],
    "inputs": [{"id": "address", "property": "search", "value": ""}], "changedPropIds": ["address.search"],
}  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        "", "[]", "{", "null", '{"output": "x"}', '{"output": []}', "[" * 100_000, "\xff",
        *(
            json.dumps(BEGIN | wrong)
            for wrong in (
                {"output": "nowhere.children"}, {"inputs": []}, {"inputs": 3}, {"inputs": [3]},
                {"inputs": [{"id": {}, "property": "search"}]},
                {"inputs": [{"id": "address", "property": "href"}]}, {"state": None}, {"state": BEGIN["inputs"]}, {"changedPropIds": [1]},
                {"changedPropIds": None}, {"changedPropIds": ["x"]}, {"outputs": None}, {"outputs": []}, {"outputs": [BEGIN["outputs"]]},
            )
        ),
    ],
)  # fmt: skip
def test_a_question_that_is_none_is_answered_in_a_sentence(server, body, caplog):
    status, said, _ = ask(server, "/_dash-update-component", "POST", body, Content_Type="application/json")
    assert (status, said) == (400, "This is no question that the page asks. Reload it.")
    assert not caplog.records
    assert ask(server, "/_dash-update-component", "POST", json.dumps(BEGIN), Content_Type="application/json")[0] == 200


@pytest.mark.parametrize(
    "event",
    [
        None, 3, {}, {"do": "exec"}, {"do": "set", "name": "model", "value": "/etc/passwd"}, {"do": "set", "name": "changes", "value": []},
        {"do": "set", "name": "clean", "value": {"a": 1}}, {"do": "set", "name": "temperature", "value": "hot"},
        {"do": "switch", "number": 9}, {"do": "remove", "number": 0, "change": "x"},
        {"do": "remove", "number": 0, "change": {"kind": "<b>", "layer": 0}},
        {"do": "switch", "number": 0, "change": {"kind": "patch", "layer": 1}},
        {"do": "select", "layer": -3}, {"do": "select", "layer": "x"}, {"do": "key", "key": "<b>"}, {"do": "cell", "how": "exec"},
        {"do": "steer"}, {"do": "dose", "amount": 3}, {"do": "undo"},
        {"do": "dose", "number": 0, "amount": 3, "change": {"kind": "inject", "layer": 1, "position": 2}},
        {"do": "patch", "site": "../x"}, {"do": "example", "task": "ioi", "seed": -1},
        {"do": "back", "number": True}, {"do": "drop", "position": None}, {"do": "drop", "position": ""},
        {"do": "set", "name": "clean", "value": "\ud800"}, {"do": "steer", "toward": "\udfff"}, {"do": "\ud800"},
        {"do": "inject", "amount": 10**400}, {"do": "example", "task": "\ud800"}, {"do": "set", "name": "clean", "value": "word " * 1500},
    ],
)  # fmt: skip
def test_an_event_that_cannot_be_gets_a_message(server, event):
    session = {"state": START.to_json(), "past": [], "number": 3}
    output = next(one for one in server.app.callback_map if one.startswith("session.data@"))
    found = session_after(server, output, "event.data", event, session)
    assert found["message"]
    assert (found["number"], found["state"]) == (4, START.to_json() | {"changes": []})


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"host": "nosuchhost.invalid"}, "no address is known for the host 'nosuchhost.invalid'. Give --host"),
        ({"host": ""}, "no address is known for the host ''"),
        ({"host": "a" * 300}, "no address is known"),
        ({"host": "203.0.113.7"}, "203.0.113.7 is no address of this machine. Give --host"),
        ({"start": State()}, "the clean text is empty"),
        ({"start": START.but(clean="word " * 400)}, "takes at most 256"),
    ],
)
def test_what_cannot_be_served_is_named_before_it_is(smalltown, place, said):
    with pytest.raises(InterpError, match=re.escape(said)):
        Server(**{"start": START, "given": {"smalltown": smalltown}, "port": 0} | place)


def test_a_port_that_is_taken_is_named(smalltown, server):
    with pytest.raises(InterpError, match=rf"port {server.port} of 127.0.0.1 is taken. Choose another with --port"):
        Server(START, given={"smalltown": smalltown}, port=server.port)


@pytest.mark.parametrize(
    "search",
    [
        "?layer=99", "?head=99&position=7000", "?layr=1", "?clean=", "?model=/etc/passwd", "?answer=several+words+here", "?seed=1e9",
        "?clean=" + "word " * 400, "?temperature=1e999", "?layer=" + "9" * 5000,
        *(
            "?changes=" + quote(json.dumps([{"kind": "steer", "layer": 0, "position": 1, "toward": "a"} | other]))
            for other in (
                {"amount": 10**400}, {"amount": float("nan")}, {"toward": "\ud800"}, {"away": "\udfff"}, {"on": "\ud800"}, {"\ud800": 1},
            )
        ),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_gets_a_message(server, search):
    found = session_after(server, "session.data", "address.search", search)
    assert found["message"]
    there = from_address(found["address"])
    assert there == START.but(layer=there.layer, position=14, head=there.head)
    assert (there.layer, there.head) in ((0, 0), (5, 0), (0, 3))


def session_after(server, output, changed, value, session=None):
    """Through the page's own callback, as a browser would send it."""
    name, prop = changed.split(".")
    body = {
        "output": output,
        "outputs": {"id": "session", "property": output.split(".")[1]},
        "inputs": [{"id": name, "property": prop, "value": value}],
        "state": [{"id": "session", "property": "data", "value": session}] if session else [],
        "changedPropIds": [changed],
    }
    status, said, _ = ask(server, "/_dash-update-component", "POST", json.dumps(body), Content_Type="application/json")
    assert status == 200, said
    return json.loads(said)["response"]["session"]["data"]


def test_with_another_host_the_token_is_needed(smalltown):
    with served({"smalltown": smalltown}, host="0.0.0.0") as made:
        query = made.address.partition("/?")[2]
        assert query.startswith("token=")
        assert ask(made)[0] == 403
        assert ask(made, "/?token=guess")[0] == 403
        assert ask(made, "/_dash-layout")[0] == 403
        status, _, headers = ask(made, f"/?{query}")
        cookie = headers["Set-Cookie"]
        assert (status, "HttpOnly" in cookie, "SameSite=Strict" in cookie) == (200, True, True)
        assert ask(made, "/_dash-layout", Cookie=cookie.partition(";")[0])[0] == 200
        assert ask(made, "/_dash-layout", Cookie="explore=x; =;")[0] == 403
        own = socket.gethostname()
        assert made.address.startswith("http://127.0.0.1:")
        assert any(one.startswith(f"http://{own}:{made.port}/?token=") for one in made.elsewhere)
        for host in (own, f"{own}:{made.port}", f"192.0.2.7:{made.port}", "[2001:db8::1]:80"):
            assert ask(made, f"/?{query}", Host=host)[0] == 200
        for host in ("evil.example", f"evil.example:{made.port}", f"127.0.0.1.evil.example:{made.port}", "[::1", ""):
            assert ask(made, f"/?{query}", Host=host)[0] == 403
