"""Attacks by result files that somebody else made: markup in every text, numbers from elsewhere, what is damaged or lacks something."""

import json
import random
import re

import h5py
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
import xarray as xr
from conftest import random_tokens, tiny

import analyses
from analyses import plots
from analyses.plots.kinds import kinds
from analyses.report.html import render, write_figures
from analyses.report.saved import load_folder, write_saved
from analyses.report.viewer import attention_viewer
from analyses.schema import check_schema
from interp.errors import InterpError, ResultError

HOST = "attacker.invalid"
MARKUP = (
    f'<span style="background:url(http://{HOST}/a)">',
    f'<a href="http://{HOST}/b">',
    f"<img src=http://{HOST}/c onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "<b>&lt;i&gt;",
)
OURS = re.compile(r"</?(?:b|br|sup|sub|extra|i)>")
"""The only tags that our figures have."""


def hostile(result: xr.Dataset, mark: str) -> xr.Dataset:
    """The result with markup at the end of every text in it: attributes, what is within JSON, units, coordinates, tokens."""
    found = result.copy(deep=True)

    def marked(value):
        if isinstance(value, str):
            return value + mark
        if isinstance(value, list):
            return [marked(inner) for inner in value]
        return {key: marked(inner) for key, inner in value.items()} if isinstance(value, dict) else value

    for name, value in result.attrs.items():
        if name in ("parameters", "prompts", "versions"):
            text = json.dumps(marked(json.loads(value)))
            found.attrs[name] = text if len(mark) % 2 else text.replace("<", "\\u003c").replace(">", "\\u003e")
        elif name not in ("kind", "schema_version", "model_config", "dtype") and isinstance(value, str):
            found.attrs[name] = marked(value)
    for name, variable in result.variables.items():
        if variable.dtype.kind in "OU":
            texts = [marked(str(one)) for one in variable.to_numpy().reshape(-1)]
            values = np.array([*texts, None], dtype=object)[:-1].reshape(variable.shape)
            if name in result.coords:
                found = found.assign_coords({name: (variable.dims, values)})
            else:
                found[name] = (variable.dims, values)
        for key, value in variable.attrs.items():
            if isinstance(value, str):
                found[name].attrs[key] = marked(value)
    return found


def kept_as_they_must_be(result: xr.Dataset, given: xr.Dataset, labels: bool = False) -> xr.Dataset:
    """What says which figure is drawn, such as the site or the names of paths, as it was: with another value there is none."""
    if labels:
        result = result.assign_coords({name: given[name] for name in given.dims if name in given.coords})
    was, now = (json.loads(one.attrs["parameters"]) for one in (given, result))
    chosen = {name: was[name] for name in ("site", "direction") if name in was}
    return result.assign_attrs(parameters=json.dumps(now | chosen))


def texts_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from texts_in(key)
            yield from texts_in(inner)
    elif isinstance(value, (list, tuple, np.ndarray)):
        for inner in value:
            yield from texts_in(inner)


def check_figure(figure: go.Figure):
    """There is no tag in a figure but ours, and of those none that came from the file."""
    held = figure.to_plotly_json()
    held["layout"].pop("template", None)
    for text in texts_in(held):
        assert not re.search("<[^ ]", OURS.sub("", text)), text
        assert MARKUP[-1] not in text
        assert not re.search("[\U0010fffb-\U0010fffd]", text), text


def drawn(result: xr.Dataset) -> go.Figure | None:
    """A figure, or None of a result with, say, a site that nobody knows."""
    try:
        return analyses.plot(result)
    except ResultError:
        return None


@pytest.mark.parametrize("kind", kinds())
def test_no_text_of_a_result_is_markup_in_its_figure(kind, measured):
    plain = measured(kind)
    for mark in ("".join(MARKUP), MARKUP[0]):
        result = hostile(plain, mark)
        attempts = [result, *(kept_as_they_must_be(result, plain, labels) for labels in (False, True))]
        figure = next(figure for one in attempts if (figure := drawn(one)) is not None)
        check_figure(figure)
        assert HOST in "".join(texts_in(figure.to_plotly_json()))  # it is shown, as what it is


def test_nor_in_the_figures_that_are_no_kinds_own(measured):
    for mark in MARKUP:
        lens, attention = (hostile(measured(kind), mark) for kind in ("logit_lens", "attention_patterns"))
        for figure in (
            plots.plot_head(attention, layer=0, head=0),
            plots.plot_lens_pair(lens, lens, names=[mark, mark]),
            plots.plot_lens_pair(lens, lens),
            plots.plot_lens_curves({mark: lens}),
            plots.plot_positions(hostile(measured("embedding_structure"), mark)),
        ):
            check_figure(figure)


def test_every_public_function_that_draws_is_guarded():
    for name in plots.__all__:
        if name.startswith("plot_"):
            assert getattr(plots, name).__wrapped__, name


def saved(tmp_path, measured, wanted, mark):
    for name, kind in wanted.items():
        plain = measured(kind)
        result = kept_as_they_must_be(hostile(plain, mark), plain)
        analyses.save(result, tmp_path / f"{name}.nc", overwrite=True)
    return load_folder(tmp_path)


WANTED = {"lens": "logit_lens", "heads": "activation_patching", "repair": "self_repair", "sizes": "cascade_avalanches"}


@pytest.mark.browser
def test_a_page_and_a_notebooks_view_ask_for_nothing_and_run_nothing(measured, tmp_path, page):
    asked, told = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    (tmp_path / "results").mkdir()
    results = saved(tmp_path / "results", measured, WANTED, "".join(MARKUP))
    write_saved(results, tmp_path / "page.html")
    viewer = attention_viewer(hostile(measured("attention_patterns"), "".join(MARKUP)))
    viewer.write(tmp_path / "viewer.html")
    plain = go.Figure(analyses.plot(results["heads"]))  # as a notebook shows it: a page without a policy
    plain.write_html(tmp_path / "notebook.html", include_plotlyjs=True)
    for name in ("page", "viewer", "notebook"):
        page.goto((tmp_path / f"{name}.html").as_uri())
        page.wait_for_timeout(150)
        assert (
            page.evaluate(f'document.querySelectorAll(\'[href*="{HOST}"], [src*="{HOST}"], [style*="{HOST}"]\').length')
            == 0
        )
    assert told == []
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


@pytest.mark.browser
def test_the_policy_of_a_page_forbids_requests(tmp_path, page):
    """Were markup to come through, still nothing is fetched."""
    failed, done = [], []
    page.on("requestfinished", lambda request: done.append(request.url))
    page.on("requestfailed", lambda request: failed.append(request.url))
    write_figures(
        [go.Figure(layout={"title": {"text": "one"}})], tmp_path / "page.html", above=MARKUP[0] + "x</span>" + MARKUP[2]
    )
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_timeout(200)
    assert any("Content Security Policy" in text and HOST in text for text in said)
    assert not [url for url in (*failed, *done) if HOST in url and url in done]


def test_pages_escape_what_they_say_of_a_result(measured, tmp_path):
    mark = "".join(MARKUP)
    results = saved(tmp_path, measured, WANTED, mark)
    write_saved(results, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    for one in MARKUP:
        assert one not in outside
    assert "form-action 'none'" in text
    whole = {"lens": results["lens"], "attention": hostile(measured("attention_patterns"), mark)}
    page = re.sub(r"<script.*?</script>", "", render(whole), flags=re.DOTALL)
    assert not any(one in page for one in MARKUP)


@pytest.fixture
def path(tmp_path):
    analyses.save(analyses.logit_lens(tiny(dtype=torch.float32), random_tokens(1, 4)), tmp_path / "r.nc")
    (tmp_path / "secret").write_bytes(np.arange(4000.0).tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["numbers"] = np.arange(400.0)
    return tmp_path / "r.nc"


def external(file, folder):
    file.create_dataset("leak", (400,), "f8", external=[(str(folder / "secret"), 0, 3200)])


def virtual(file, folder):
    layout = h5py.VirtualLayout((400,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "numbers", (400,))
    file.create_virtual_dataset("leak", layout)


def linked(file, folder):
    file["leak"] = h5py.ExternalLink(str(folder / "other.h5"), "numbers")


def soft(file, folder):
    file["leak"] = h5py.SoftLink("/entropy")


def grouped(file, folder):
    file.create_group("more")["leak"] = h5py.ExternalLink(str(folder / "other.h5"), "numbers")


def many(file, folder):
    """Each by itself would fit."""
    for number in range(40):
        file.create_dataset(f"leak{number}", (10**6,), "f8", chunks=(10**5,))


def huge(file, folder):
    file.create_dataset("leak", (10**12,), "f8", chunks=(10**5,))


@pytest.mark.parametrize("attack", [external, virtual, linked, soft, grouped, huge, many])
def test_numbers_from_elsewhere_are_refused(attack, path):
    analyses.load(path)
    with h5py.File(path, "a") as file:
        attack(file, path.parent)
    with pytest.raises(ResultError, match="leak|more"):
        analyses.load(path)


def loads_or_says_why(path):
    """Whatever a file holds: it is loaded, drawn and written as a table, or an error of ours says why not."""
    try:
        result = analyses.load(path)
        analyses.plot(result)
    except InterpError:
        return False
    return True


def damaged(path, seeds):
    content = path.read_bytes()
    loaded = 0
    for seed in seeds:
        drawn, changed = random.Random(seed), bytearray(content)
        for _ in range(drawn.choice([1, 4, 32])):
            changed[drawn.randrange(len(changed))] = drawn.randrange(256)
        path.write_bytes(changed if seed % 5 else changed[: drawn.randrange(len(changed))])
        loaded += loads_or_says_why(path)
    path.write_bytes(content)
    assert loads_or_says_why(path)
    return loaded


def test_damaged_files_are_errors_of_ours(path):
    assert damaged(path, range(60)) < 60


@pytest.mark.slow
def test_damaged_files_are_errors_of_ours_whatever_is_damaged(path):
    assert damaged(path, range(60, 2000)) < 1940


def nonsense(kind, plain, times):
    """A result that lacks something or says nonsense, so many times, each of which is drawn or refused."""
    drawn, parameters = random.Random(f"{kind} {times}"), json.loads(plain.attrs["parameters"])
    for _ in times:
        result = plain.copy()
        name = drawn.choice(sorted(map(str, {*plain.variables} - {*plain.dims})))
        match drawn.randrange(5):
            case 0:
                result = result.drop_vars(name)
            case 1:
                dim = drawn.choice(sorted(map(str, plain.sizes)))
                result = result.isel({dim: slice(0)})
            case 2:
                said = drawn.choice(sorted(parameters)) if parameters else "position"
                wrong = drawn.choice([None, -7, 10**9, 2.5, "x", [], {}, True])
                result = result.assign_attrs(parameters=json.dumps(parameters | {said: wrong}))
            case 3:
                values = plain[name]
                made = values.astype(str) if values.dtype.kind in "fiu" else values.astype(object)
                result = result.drop_vars(name).assign({name: made})
            case _:
                result = result.assign_attrs(model_config=json.dumps({"n_layers": 10**9}))
        try:
            check_schema(result, "it")
            analyses.plot(result)
        except ResultError:
            continue


@pytest.mark.parametrize("kind", [*kinds()][::-1])  # while another worker measures the first
def test_a_result_that_lacks_something_or_says_nonsense_is_drawn_or_refused(kind, measured):
    nonsense(kind, measured(kind), range(5))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*kinds()][::-1])
def test_and_so_it_is_many_times(kind, measured):
    nonsense(kind, measured(kind), range(40))
