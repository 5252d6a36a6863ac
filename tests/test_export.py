"""Figures for papers: what is written, how large, and that nothing is lost."""

import json
import re
import struct
import subprocess
import sys

import numpy as np
import pandas as pd
import plotly.io
import pytest
from conftest import random_tokens, tiny
from pdf_extent import figure_extent, page_size
from test_cli import run

import analyses
from analyses import cascade
from analyses.plots.sizes import SIZES, fitting, sized
from analyses.plots.theme import NAME, TEMPLATE
from analyses.plots.together import draw
from analyses.report.export import export, provenance, table
from analyses.report.printing import print_page
from analyses.report.saved import WHOLE
from interp.errors import InterpError
from interp.zoo import DEFAULT_PAIR


@pytest.fixture(scope="module")
def results(smalltown):
    gain = cascade.gain(smalltown, [DEFAULT_PAIR.clean, "Mary went", "<script>"], n_directions=2)
    return {
        "lens": analyses.logit_lens(smalltown, DEFAULT_PAIR.clean),
        "verdict": cascade.internal_verdict(gain),
        "gain": gain,
        "spectrum": cascade.jacobian_spectrum(smalltown, "Mary went", k=4),
    }


@pytest.mark.browser
def test_a_folder_is_exported_in_one_call(results, monkeypatch, capsys, tmp_path):
    for name, result in results.items():
        analyses.save(result, tmp_path / f"{name}.nc")
    status, out, err = run(monkeypatch, capsys, "export", tmp_path, "--size", "single")
    assert status == 0, err
    assert "gain (panels side by side: at double width)" in out
    for name in results:
        assert {path.suffix for path in tmp_path.glob(f"{name}.*")} == {
            ".nc",
            ".html",
            ".png",
            ".svg",
            ".pdf",
            ".csv",
            ".json",
        }
    inches = {"lens": 7.2, "gain": 7.2, "spectrum": 3.5, "verdict": 7.2}
    for name, width in inches.items():
        wide = struct.unpack(">I", (tmp_path / f"{name}.png").read_bytes()[16:20])[0]
        assert wide == pytest.approx(300 * width, abs=2)
        svg = re.search(r'width="([\d.]+)"', (tmp_path / f"{name}.svg").read_text())
        assert float(svg.group(1)) == pytest.approx(96 * width, abs=1)
        figure = sized(analyses.plot(results[name]), "double" if width > 4 else "single")
        fills_its_page((tmp_path / f"{name}.pdf").read_bytes(), (tmp_path / f"{name}.png").read_bytes(), figure)
    data = pd.read_csv(tmp_path / "verdict.csv")
    slopes = data[data["variable"] == "slope"]
    np.testing.assert_allclose(slopes["value"].astype(float), results["verdict"]["slope"].to_numpy().ravel())
    about = json.loads((tmp_path / "gain.json").read_text())
    assert about["parameters"]["n_directions"] == 2
    assert about["weight_hash"] == results["gain"].attrs["weight_hash"]
    assert run(monkeypatch, capsys, "export", tmp_path, "--format", "html")[0] == 1  # nothing is overwritten
    assert not list(tmp_path.glob(".*"))


def fills_its_page(pdf, png, figure):
    """The figure reaches from edge to edge of the PDF's page, which is as large as the PNG."""
    inches = [pixels / 300 for pixels in struct.unpack(">II", png[16:24])]
    page = page_size(pdf)
    assert page == pytest.approx([72 * inch for inch in inches], abs=1)
    extent = figure_extent(pdf, round(figure.layout.width), round(figure.layout.height))
    assert extent == pytest.approx((0, page[0], 0, page[1]), abs=1)


@pytest.mark.browser
def test_the_browser_that_stays_open_prints_to_the_edge_too():
    code = (
        "import sys, plotly.graph_objects as go\n"
        "from analyses.plots.browser import keep_open\n"
        "keep_open()\n"
        "sys.stdout.buffer.write(go.Figure(go.Scatter(y=[1, 2])).to_image('pdf', width=500, height=300))\n"
    )
    pdf = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=True).stdout
    assert figure_extent(pdf, 500, 300) == pytest.approx((0, 375, 0, 225), abs=1)
    assert page_size(pdf) == pytest.approx((375, 225), abs=1)


def test_it_writes_the_figure_of_the_report(tmp_path):
    """Growth beside its twin and the theory, another result on the twin's scale, a second lens beside the first."""
    model, tokens, other = tiny(), random_tokens(2, 6, seed=1), random_tokens(2, 6, seed=2)
    twin = cascade.random_twin(model)
    results = {
        "gain": cascade.gain(model, tokens, n_directions=1),
        "gain_null": cascade.gain(twin, tokens, n_directions=1),
        "theory": cascade.mean_field(twin, tokens),
        "ledger": cascade.ledger(model, tokens, other),
        "ledger_null": cascade.ledger(twin, tokens, other),
        "lens": analyses.logit_lens(model, tokens),
        "lens_corrupt": analyses.logit_lens(model, other),
        "trajectory": analyses.logit_lens(model, tokens, candidates=[3]),
    }
    names = {name: {trace.name for trace in draw(name, results).data} for name in ("gain", "trajectory")}
    assert {results["gain"].attrs["model"], results["gain_null"].attrs["model"], "mean field"} <= names["gain"]
    assert "#3" in names["trajectory"]
    assert len(draw("lens_corrupt", results).data) == 2
    scales = [draw(name, results).layout.coloraxis.cmax for name in ("ledger", "ledger_null")]
    alone = [analyses.plot(results[name]).layout.coloraxis.cmax for name in ("ledger", "ledger_null")]
    assert scales == [max(alone)] * 2
    assert alone[0] != alone[1]
    export(results.items(), tmp_path, formats=["html"], options={"prompt": 1})
    about = json.loads((tmp_path / "gain.json").read_text())
    assert about["caption"].startswith("Growth of an injected disturbance. Mean over 2 prompts; bands: 5 to 95 %")
    assert "k against depth." in about["caption"]
    assert about["caption"].split(". ")[1] in (tmp_path / "gain.html").read_text()
    assert json.loads((tmp_path / "ledger.json").read_text())["caption"].split(". ")[1].startswith("Prompt 1 of 0 to 1")


def test_which_prompt_and_position_is_exported_can_be_chosen(smalltown, monkeypatch, capsys, tmp_path):
    analyses.save(analyses.attention_patterns(smalltown, ["Mary went to", "John gave"]), tmp_path / "attention.nc")
    words = ["export", tmp_path, "--format", "html"]
    chosen = [one for word in ("prompt=1", "layer=2", "head=3") for one in ("--choose", word)]
    status, _, err = run(monkeypatch, capsys, *words, *chosen)
    assert status == 0, err
    caption = json.loads((tmp_path / "attention.json").read_text())["caption"]
    assert caption.startswith("Attention of head 2.3 · smalltown. Prompt 1 of 0 to 1.")
    for word, said in (("way=Q", "no figure of these results has an option 'way'"), ("prompt", "such as prompt=2")):
        status, _, err = run(monkeypatch, capsys, *words, "--force", "--choose", word)
        assert (status, said in " ".join(err.split())) == (1, True), err


def test_every_number_is_in_the_table(results):
    frame = table(results["gain"])
    one = frame[
        (frame["variable"] == "gain") & (frame["prompt"] == 0) & (frame["injection"] == 3) & (frame["direction"] == 1)
    ]
    np.testing.assert_allclose(one["value"].astype(float), results["gain"]["gain"][0, 2, 1])
    assert set(frame["variable"]) == set(map(str, results["gain"].data_vars))
    assert provenance(results["gain"])["kind"] == "cascade_gain"


def test_sizes(results):
    lens, spectrum = analyses.plot(results["lens"]), analyses.plot(results["spectrum"])
    assert fitting(lens, "single") == "double"
    assert fitting(spectrum, "single") == "single"
    before = spectrum.to_json()
    small = sized(spectrum, "single")
    assert spectrum.to_json() == before  # a copy
    assert small.layout.title.text is None
    assert 13 * 3.5 * 72 / small.layout.width >= 6.5  # points, as printed
    for name in ("double", "slide"):
        assert 13 * SIZES[name].inches * 72 / sized(lens, name).layout.width >= 6.4
    assert sized(lens, "slide").layout.title.text == lens.layout.title.text
    assert sized(lens, "screen").layout == lens.layout


def test_the_theme_has_a_name_and_is_not_the_default():
    assert plotly.io.templates[NAME].layout.font.family == TEMPLATE.layout.font.family
    assert plotly.io.templates.default == "plotly"


@pytest.mark.parametrize(
    ("options", "said"),
    [({"formats": ["gif"]}, "unknown format 'gif'"), ({"size": "doubel"}, "Did you mean 'double'")],
)
def test_requests_that_cannot_be(results, tmp_path, options, said):
    with pytest.raises(InterpError, match=said):
        export(results.items(), tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_without_a_browser_it_says_how_to_get_one_before_any_result_is_read(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    with pytest.raises(InterpError, match="apt install chromium.*--format html"):
        export(results.items(), tmp_path, formats=["png"])
    (tmp_path / "damaged.nc").write_text("no result")
    status, _, err = run(monkeypatch, capsys, "export", tmp_path)
    assert status == 1
    assert "make browser" in err
    assert "damaged" not in err
    with pytest.raises(InterpError, match="BROWSER_PATH"):
        print_page(tmp_path / "page.html", tmp_path / "page.pdf")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.nc"]


def test_a_drawing_that_fails_leaves_nothing(results, tmp_path, monkeypatch):
    def fails(*given, **options):
        raise RuntimeError("the browser closed\nand a long trace")

    monkeypatch.setattr(plotly.io, "write_images", fails)
    monkeypatch.setattr("analyses.report.export.check_pictures", lambda: None)
    with pytest.raises(InterpError, match=r"could not draw: the browser closed\. HTML needs"):
        export(results.items(), tmp_path, formats=["png"])
    assert list(tmp_path.iterdir()) == []


def test_formats_that_need_no_browser(results, tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    (one,) = export([("verdict", results["verdict"])], tmp_path, formats=["html", "html"])
    assert sorted(one.files) == sorted(tmp_path.iterdir())
    assert {path.suffix for path in one.files} == {".html", ".csv", ".json"}
    with pytest.raises(InterpError, match="two results are named lens"):
        export([("lens", results["lens"])] * 2, tmp_path, formats=["html"])


@pytest.mark.parametrize("fewer", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["fewer", "all"])
def test_a_report_from_saved_results(fewer, monkeypatch, capsys, tmp_path, small_checkpoint):
    folder = tmp_path / "saved"
    folder.mkdir()
    words = ["report", "Mary and John went to", "--model", small_checkpoint, "--out", tmp_path / "first.html"]
    words += ["--save", folder]
    status, _, err = run(monkeypatch, capsys, *words)
    assert status == 0, err
    status, _, err = run(monkeypatch, capsys, "report", "--results", folder, "--out", tmp_path / "again.html")
    assert status == 0, err
    sections = [re.findall(r"<h2>(.*?)</h2>", (tmp_path / name).read_text()) for name in ("first.html", "again.html")]
    assert sections[0] == sections[1]
    for path in folder.glob("*.nc"):
        if fewer and path.stem not in WHOLE:
            path.unlink()
    words = ["report", "--results", folder, "--force", "--out", tmp_path / "again.html", "--head"]
    assert run(monkeypatch, capsys, *words, "1.1")[0] == 0
    assert "Head 1.1. A row" in (tmp_path / "again.html").read_text()
    status, _, err = run(monkeypatch, capsys, *words, "9.9")
    assert (status, "head '9.9' is not one of this model" in err) == (1, True)
    status, _, err = run(monkeypatch, capsys, "export", folder, "--format", "html", "--out", tmp_path / "exported")
    assert status == 0, err
    assert {path.stem for path in (tmp_path / "exported").glob("*.html")} == {path.stem for path in folder.glob("*.nc")}
    for path in folder.glob("*.nc"):
        if path.stem not in ("gain", "lens"):
            path.unlink()
    status, _, err = run(monkeypatch, capsys, "report", "--results", folder, "--out", tmp_path / "part.html")
    assert status == 0, err
    part = (tmp_path / "part.html").read_text()
    status, _, err = run(monkeypatch, capsys, *words, "1.1")
    assert (status, "which these results do not make" in err) == (1, True)
    assert part.count('class="plotly-graph-div"') == 2
    assert analyses.load(folder / "lens.nc").attrs["weight_hash"] in part
    assert run(monkeypatch, capsys, "report", "--results", tmp_path / "none", "--out", tmp_path / "x.html")[0] == 1


@pytest.mark.browser
def test_on_paper(results, monkeypatch, capsys, tmp_path):
    analyses.save(results["verdict"], tmp_path / "verdict.nc")
    words = ["report", "--results", tmp_path, "--out", tmp_path / "page.html", "--pdf"]
    status, out, err = run(monkeypatch, capsys, *words)
    assert status == 0, err
    assert "PDF:" in out
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_a_browser_that_cannot_print(monkeypatch, tmp_path):
    monkeypatch.setattr("analyses.report.printing.browser", lambda: "false")
    with pytest.raises(InterpError, match="could not print"):
        print_page(tmp_path / "page.html", tmp_path / "page.pdf")
    assert list(tmp_path.iterdir()) == []
