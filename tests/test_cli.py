"""The `interp` command, as a user types it."""

import json
import re
import subprocess
import sys
import time

import pytest

import analyses
import interp
from analyses import cli
from analyses.plots.labels import prompts_in
from interp.zoo import DEFAULT_PAIR, every_task


def run(monkeypatch, capsys, *words):
    """Exit status, standard output and standard error of the command."""
    monkeypatch.setattr(sys, "argv", ["interp", *map(str, words)])
    try:
        cli.main()
        status = 0
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status or 0, captured.out, captured.err


def test_report_on_the_default_pair(monkeypatch, capsys, tmp_path):
    path = tmp_path / "report.html"
    status, out, err = run(monkeypatch, capsys, "report", "--out", path)
    assert status == 0, err
    assert "smalltown on" in out
    assert "“·Mary”" in out
    assert f"Report: {path}" in out
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_report_on_a_prompt_and_a_directory(monkeypatch, capsys, tmp_path, small_checkpoint):
    arguments = [
        "--model",
        small_checkpoint,
        "--corrupt",
        DEFAULT_PAIR.clean.removesuffix("to") + "and",
        "--answer",
        " Mary",
        "--wrong",
        " John",
        "--head",
        "2.1",
        "--out",
        tmp_path / "r.html",
    ]
    status, out, err = run(monkeypatch, capsys, "report", DEFAULT_PAIR.clean, *arguments)
    assert status == 0, err
    assert "small on" in out
    assert "Head 2.1" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_an_existing_report_is_kept_unless_forced(monkeypatch, capsys, tmp_path, small_checkpoint):
    path = tmp_path / "report.html"
    path.write_text("mine")
    status, _, err = run(monkeypatch, capsys, "report", "Mary went", "--out", path)
    assert status == 1
    assert "exists already and is kept" in err
    assert path.read_text() == "mine"
    assert (
        run(monkeypatch, capsys, "report", "Mary went", "--model", small_checkpoint, "--out", path, "--force")[0] == 0
    )
    assert path.read_text(encoding="utf-8") != "mine"


def test_an_interrupted_report_leaves_no_page(monkeypatch, capsys, tmp_path, small_checkpoint):
    import analyses.report.html

    def interrupt(results, head):
        raise KeyboardInterrupt

    monkeypatch.setattr(analyses.report.html, "render", interrupt)
    words = ["report", "Mary went", "--model", small_checkpoint, "--out", tmp_path / "report.html"]
    status, _, err = run(monkeypatch, capsys, *words)
    assert status == 130
    assert "the same command goes on from there" in err
    assert [path.name for path in tmp_path.iterdir()] == ["report.html.parts"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([""], "prompt 0 is empty"),
        ([" Mary" * 300], "at most 256"),
        (["Mary went", "--corrupt", "Mary"], "must match position by position"),
        ([DEFAULT_PAIR.clean, "--corrupt", DEFAULT_PAIR.corrupt, "--answer", " Mary John"], "' Mary', ' John'"),
        (["Mary went", "--model", "gpt9"], "neither an embedded model, a directory, a GGUF file nor a hub id"),
        (["Mary went", "--head", "7.7"], "from 0.0 to 5.3"),
    ],
)
def test_bad_input_is_one_message_and_no_file(monkeypatch, capsys, tmp_path, words, message):
    status, _, err = run(monkeypatch, capsys, "report", *words, "--out", tmp_path / "r.html")
    assert status == 1
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_options_of_a_pair_need_a_prompt(monkeypatch, capsys, tmp_path):
    status, _, err = run(monkeypatch, capsys, "report", "--answer", " Mary", "--out", tmp_path / "r.html")
    assert status == 2
    assert "--answer" in err


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ([], "activation_patching", "layer 0, position 10 ·Mary → ·John"),
        (["--site", "z", "--task", "ioi", "--pairs", 4], "activation_patching", "95 % interval"),
        (["--compare"], "patching_methodology", "noising · zero · logit_difference"),
        (["--screen", 3, "--direction", "noising"], "attribution_patching", "estimate"),
        (["The capital of France is", "--trace", "France"], "causal_tracing", "position 4 ·France"),
        (
            ["Mary went <", "--corrupt", "Anna went <", "--answer", " to", "--wrong", " had", "--site", "resid_post"],
            "activation_patching",
            "position 4 <",
        ),
    ],
)  # fmt: skip
def test_patch(monkeypatch, capsys, tmp_path, words, kind, said):
    monkeypatch.setenv("COLUMNS", "200")
    figure, numbers = tmp_path / "patch.html", tmp_path / "patch.nc"
    status, out, err = run(monkeypatch, capsys, "patch", *words, "--out", figure, "--save", numbers)
    assert status == 0, err
    assert said in out
    assert "&lt;" not in out
    assert f"Figure: {figure}" in out
    assert analyses.load(numbers).attrs["kind"] == kind
    assert "plotly" in figure.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["Mary went"], 1, "give --corrupt too"),
        (["--answer", " Mary"], 1, "give PROMPT too"),
        (["Mary went", "--task", "ioi"], 1, "leave out PROMPT"),
        (["--task", "ioj"], 1, "Did you mean 'ioi'"),
        (["Mary went", "--corrupt", "Mary went"], 1, "are the same"),
        (["--compare", "--screen", 3], 2, "choose one of"),
        (["--compare", "--metric", "logit"], 1, "--metric cannot be combined with --compare"),
        (["--screen", 3, "--window", 2], 1, "--window cannot be combined with --screen"),
        (["Mary went", "--trace", "Mary", "--replacement", "zero"], 1, "--replacement cannot be combined with --trace"),
        (["--trace", "Mary"], 2, "give one"),
        (["--site", "zz"], 1, "site 'zz' is not supported"),
    ],
)
def test_patch_told_nonsense_writes_nothing(monkeypatch, capsys, tmp_path, words, status, message):
    found, _, err = run(monkeypatch, capsys, "patch", *words, "--out", tmp_path / "patch.html")
    assert found == status
    assert message in " ".join(err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_patch_keeps_existing_files(monkeypatch, capsys, tmp_path):
    for name in ("patch.html", "patch.nc"):
        (tmp_path / name).write_text("mine")
    arguments = ["--out", tmp_path / "patch.html", "--save", tmp_path / "patch.nc"]
    assert run(monkeypatch, capsys, "patch", *arguments)[0] == 1
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}
    assert run(monkeypatch, capsys, "patch", *arguments, "--force")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "logit difference: "),
        (["The capital of France is", "--metric", "log_probability"], "log-probability of the answer: -"),
        ([DEFAULT_PAIR.clean, "--answer", " Mary", "--wrong", " John", "--ablation", "mean"], "position 10 ·John"),
    ],
)
def test_attribution(monkeypatch, capsys, tmp_path, words, said):
    arguments = ["--out", tmp_path / "a.html", "--save", tmp_path / "a.nc"]
    status, out, err = run(monkeypatch, capsys, "attribution", *words, *arguments)
    assert status == 0, err
    assert said in out
    assert analyses.load(tmp_path / "a.nc").attrs["kind"] == "direct_logit_attribution"
    assert run(monkeypatch, capsys, "attribution", *words, *arguments)[0] == 1  # existing files are kept
    assert run(monkeypatch, capsys, "attribution", "--answer", " Mary", "--out", tmp_path / "b.html")[0] == 2
    assert not (tmp_path / "b.html").exists()


@pytest.mark.parametrize(
    ("words", "figures"),
    [
        ([], 1),
        (["The capital of France is", "--color", "kl", "--follow", " Paris"], 2),
        ([DEFAULT_PAIR.clean, "--other", DEFAULT_PAIR.corrupt, "--tuned", "--parts"], 6),
    ],
)
def test_lens(monkeypatch, capsys, tmp_path, words, figures):
    arguments = ["--out", tmp_path / "l.html", "--save", tmp_path / "l.nc"]
    status, out, err = run(monkeypatch, capsys, "lens", *words, *arguments)
    assert status == 0, err
    assert "5.mlp" in out
    assert (tmp_path / "l.html").read_text().count('class="plotly-graph-div"') == figures
    assert analyses.load(tmp_path / "l.nc").attrs["kind"] == "logit_lens"
    assert run(monkeypatch, capsys, "lens", *words, *arguments)[0] == 1  # existing files are kept


def test_lens_told_nonsense(monkeypatch, capsys, tmp_path):
    out = tmp_path / "l.html"
    assert run(monkeypatch, capsys, "lens", "--tuned", "--published", "gpt2", "--out", out)[0] == 2
    status, _, err = run(monkeypatch, capsys, "lens", "--color", "hue", "--out", out)
    assert status == 1
    assert "no colour 'hue'" in err
    status, _, err = run(monkeypatch, capsys, "lens", "--lens", tmp_path / "none", "--out", out)
    assert status == 1
    assert "cannot be read" in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ([], ["clean", "corrupt"]),
        (["--task", "induction", "--pairs", 5], ["clean", "corrupt"]),
        (["Mary and John", "--task", "induction", "--pairs", 5, "--sort", "importance_resample"], ["prompt"]),
    ],
)
def test_attention(monkeypatch, capsys, tmp_path, words, texts):
    arguments = ["--out", tmp_path / "a.html", "--save", tmp_path / "a.nc"]
    status, out, err = run(monkeypatch, capsys, "attention", *words, *arguments)
    assert status == 0, err
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert rows[0].split("│")[1].strip() == "4.2"
    page = (tmp_path / "a.html").read_text()
    assert page.count('class="plotly-graph-div"') == 2
    assert page.count('class="attention-viewer"') == 1
    shown = json.loads(re.search(r'<script type="application/json">(\{"layers".*?)</script>', page)[1])
    assert (shown["layer"], shown["head"]) == (4, 2)  # the first of the table
    assert [one["name"] for one in shown["texts"]] == texts
    assert analyses.load(tmp_path / "a.nc").attrs["kind"] == "head_table"
    assert run(monkeypatch, capsys, "attention", *words, *arguments)[0] == 1
    status, _, err = run(monkeypatch, capsys, "attention", "--sort", "inductoin", "--out", tmp_path / "b.html")
    assert status == 1
    assert "Did you mean 'induction'" in err
    assert not (tmp_path / "b.html").exists()


@pytest.mark.parametrize(
    ("words", "said", "figures"),
    [
        (["--directions", 2, "--all", "--task", "ioi"], "piano string, 12 prompts", 24),
        (["--directions", 1], "12 prompts in 10", 20),
        (["Once upon a time there was", "--layer", 2, "--directions", 2], "not worked out", 18),
    ],
)
def test_cascade_inside(monkeypatch, capsys, tmp_path, words, said, figures):
    arguments = ["--out", tmp_path / "c.html", "--save", tmp_path]
    status, out, err = run(monkeypatch, capsys, "cascade", "inside", *words, *arguments)
    assert status == 0, err
    assert said in out
    assert (tmp_path / "c.html").read_text().count('class="plotly-graph-div"') == figures
    assert analyses.load(tmp_path / "ledger.nc").attrs["kind"] == "cascade_ledger"
    assert run(monkeypatch, capsys, "cascade", "inside", *words, *arguments)[0] == 1


def test_train_lens_and_use_it(monkeypatch, capsys, tmp_path):
    text, path = tmp_path / "text.txt", tmp_path / "lens.safetensors"
    text.write_text("Mary and John went to the store. Then Rose gave a book to Peter, and he was happy. " * 40)
    words = ["train-lens", text, "--out", path, "--steps", 20, "--rows", 2, "--length", 32]
    status, out, err = run(monkeypatch, capsys, *words)
    assert status == 0, err
    assert "20 steps" in out
    status, _, err = run(monkeypatch, capsys, "lens", "--lens", path, "--out", tmp_path / "l.html")
    assert status == 0, err
    assert run(monkeypatch, capsys, *words)[0] == 1


def test_generate_streams_the_text_that_the_library_generates(monkeypatch, capsys):
    model = interp.load()
    tokens = model.generate("Once upon a time,", max_new_tokens=20, temperature=0.7, seed=3)
    expected = model.to_string(tokens)[0].replace("<|endoftext|>", "")
    words = ["generate", "Once upon a time,", "--max-new-tokens", 20, "--seed", 3]
    assert run(monkeypatch, capsys, *words) == (0, f"{expected}\n", "")


def test_generate_told_nonsense(monkeypatch, capsys):
    for words, message in (
        (["--temperature", "-1"], "temperature must be 0"),
        (["--max-new-tokens", 300], "leaves room for"),
        (["--top-p", 2], "top_p"),
    ):
        status, _, err = run(monkeypatch, capsys, "generate", "Mary", *words)
        assert status == 1
        assert message in err


def test_models(monkeypatch, capsys):
    status, out, _ = run(monkeypatch, capsys, "models")
    assert status == 0
    assert "smalltown" in out
    assert f"{sum(p.numel() for p in interp.load().parameters()):,}" in out


def test_help_loads_no_torch_and_appears_at_once():
    code = "import sys; sys.argv = ['interp', 'report', '--help']\nfrom analyses.cli import main\ntry: main()\n"
    code += (
        "except SystemExit: pass\nprint('loaded:', sorted({'torch', 'xarray', 'plotly', 'interp'} & set(sys.modules)))"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stdout
    assert "--corrupt" in done.stdout
    assert time.monotonic() - start < 20  # a stuck import; the bar of one second is measured by hand


def test_cascade_outside(monkeypatch, capsys, tmp_path):
    arguments = ["--seeds", 2, "--steps", 16, "--count", 7, "--out", tmp_path / "o.html", "--save", tmp_path]
    status, out, err = run(monkeypatch, capsys, "cascade", "outside", *arguments)
    assert status == 0, err
    pairs = every_task(7, 0, interp.load().tokenizer)
    units = len({pair.cluster or pair.clean for pair in pairs})
    assert f"{prompts_in(7, units)} of 2 draws" in out
    assert analyses.load(tmp_path / "external.nc")["clusters"] == units
    assert "rank correlation" in out
    assert (tmp_path / "o.html").read_text().count('class="plotly-graph-div"') == 14
    assert analyses.load(tmp_path / "coupled.nc").attrs["kind"] == "cascade_coupled"
    assert not (tmp_path / "o.html.parts").exists()
    assert run(monkeypatch, capsys, "cascade", "outside", *arguments)[0] == 1


def test_cascade_outside_goes_on_after_a_stop(monkeypatch, capsys, tmp_path):
    import sys

    module = sys.modules["analyses.cascade.coupled"]
    original, calls = module._continue, []

    def stopping(*given):
        calls.append(given[8])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(module, "_continue", stopping)
    words = [
        "Once upon a time",
        "He <b>was</b>",
        "--nudge",
        0.5,
        "--seeds",
        2,
        "--steps",
        16,
        "--out",
        tmp_path / "o.html",
    ]
    status, _, err = run(monkeypatch, capsys, "cascade", "outside", *words)
    assert status == 130
    assert "the same command goes on from there" in err.replace("\n", " ")
    assert [path.name for path in (tmp_path / "o.html.parts").glob("*/coupled")] == ["coupled"]
    assert len(calls) == 4
    status, out, err = run(monkeypatch, capsys, "cascade", "outside", *words)
    assert status == 0, err
    assert len(calls) == 1 + 14  # 9 temperatures, the texts, unrelated ones, the twin's, two of the picture; none twice
    assert "undetermined, 2 prompts" in out
    assert "<b>was" not in (tmp_path / "o.html").read_text().split("plotly.js", 1)[-1].split("<body>")[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Mary went", "--swap", "1=x", "--nudge", 0.1], "not both"),
        (["Mary went", "--swap", "one"], "POSITION=TOKEN"),
        (["Mary went", "--swap", "9"], "none at position 9"),
        (["Mary went", "--steps", 300], "leaves room for"),
        (["Mary went", "--temperature", -1.0], "temperature must be 0"),
    ],
)
def test_cascade_outside_requests_that_cannot_be(monkeypatch, capsys, tmp_path, words, said):
    status, _, err = run(monkeypatch, capsys, "cascade", "outside", *words, "--out", tmp_path / "o.html")
    assert status != 0
    assert said in " ".join(err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []
