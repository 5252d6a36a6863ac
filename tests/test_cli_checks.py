"""Whatever a command cannot do it says before any work: with no model loaded where that shows it, else before the model runs."""

import pytest
from test_cli import run

import analyses
import interp
from analyses.attention.table import IMPORTANCE, SCORES
from interp import Transformer
from interp.zoo import DEFAULT_PAIR

CLEAN, CORRUPT = DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt
LONG = " Mary" * 200
PAIR = [CLEAN, "--corrupt", CORRUPT]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with a file that is there already, one that is no text, and a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("mine")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").mkdir()
    return tmp_path


BEFORE_LOADING = [
    ("generate Mary --temperature -1", "temperature must be 0"),
    ("generate Mary --temperature nan", "temperature must be 0"),
    ("generate Mary --top-p 2", "top_p must be above 0"),
    ("generate Mary --top-k 0", "top_k must be at least 1"),
    ("generate Mary --max-new-tokens 0", "--max-new-tokens"),
    ("generate Mary --seed -1", "--seed"),
    ("generate Mary --seed 9999999999", "--seed"),
    ("lens --color hue", "no colour 'hue'"),
    ("lens --tuned --published gpt2", "choose one of"),
    ("lens --out there", "overwritten by --force"),
    ("lens --out folder", "is a folder"),
    ("lens --out nowhere/lens.html", "the folder nowhere does not exist"),
    ("lens --out both --save both", "asked for twice"),
    ("lens --out " + "x" * 300, "cannot name a file"),
    ("train-lens nothere", "nothere"),
    ("train-lens binary", "cannot be read as text in UTF-8"),
    ("train-lens there --steps 0", "--steps"),
    ("train-lens there --rows 0", "--rows"),
    ("train-lens there --learning-rate nan", "must be positive"),
    ("train-lens there --out there", "overwritten by --force"),
    ("train-lens", "a text file to train on, or --own-words"),
    ("train-lens there --own-words", "a text file to train on, or --own-words"),
    ("train-lens there --tokens 500", "--tokens is for --own-words"),
    ("train-lens there --temperature 1", "--temperature is for --own-words"),
    ("train-lens --own-words --tokens 0", "--tokens"),
    ("train-lens --own-words --tokens -5", "--tokens"),
    ("train-lens --own-words --tokens 128", "one row of 128"),
    ("train-lens --own-words --temperature 0", "temperature must be positive"),
    ("train-lens --own-words --temperature nan", "temperature must be positive"),
    ("train-lens --own-words --length 1", "--length"),
    ("train-lens --own-words --out there", "overwritten by --force"),
    ("train-lens --own-words --evaluate nothere", "nothere"),
    ("train-lens --own-words --evaluate binary", "cannot be read as text in UTF-8"),
    ("attention --sort inductoin", "Did you mean 'induction'"),
    ("attention --sort importance_zero", "give --task"),
    ("attention --task ioj", "Did you mean 'ioi'"),
    ("attention --pairs 5", "--pairs is for --task"),
    ("attention --task ioi --pairs 0", "--pairs"),
    ("attention --out there", "overwritten by --force"),
    ("attribution Mary --metric probability", "cannot be attributed"),
    ("attribution Mary --metric logit_difference", "needs a wrong answer"),
    ("attribution Mary --ablation none", "unknown ablation 'none'"),
    ("attribution --answer x", "--answer without PROMPT"),
    ("attribution --save there", "overwritten by --force"),
    ("circuit --out there", "overwritten by --force"),
    ("circuit --graphml there", "overwritten by --force"),
    ("circuit --eap-ig both --graphml both", "asked for twice"),
    ("circuit Mary", "circuit: two prompts are needed; give --corrupt too."),
    ("circuit Mary --task ioi", "leave out PROMPT"),
    ("circuit --task ioj", "Did you mean 'ioi'"),
    ("circuit --pairs 5", "--pairs is for --task"),
    ("circuit --verify 5", "--verify is for an estimate"),
    ("circuit --edges 0", "--edges"),
    ("circuit --save there", "is a file"),
    ("patch --out there", "overwritten by --force"),
    ("patch Mary", "give --corrupt too"),
    ("patch --answer x", "give PROMPT too"),
    ("patch Mary --task ioi", "leave out PROMPT"),
    ("patch --task ioj", "Did you mean 'ioi'"),
    ("patch --pairs 5", "--pairs cannot be combined with no --task"),
    ("patch --compare --screen 3", "choose one of"),
    ("patch --compare --metric logit", "--metric cannot be combined with --compare"),
    ("patch --screen 3 --window 2", "--window cannot be combined with --screen"),
    ("patch --screen -1", "--screen"),
    ("patch --window 0", "--window"),
    ("patch --trace Mary", "give one"),
    ("patch Mary --trace Mary --metric logit_difference", "give --wrong"),
    ("attribution Mary --wrong x --metric logit", "not heeded by --metric logit"),
    ("cascade outside --swap 3=", "POSITION=TOKEN"),
    ("patch Mary --trace Mary --replacement zero", "--replacement cannot be combined with --trace"),
    ("report --head x", "LAYER.HEAD"),
    ("report --head 1", "LAYER.HEAD"),
    ("report --head -1.0", "--head"),
    ("report --answer x", "--answer given without PROMPT"),
    ("report --out there", "overwritten by --force"),
    ("report --save there/results", "is a file"),
    ("report --save there", "is a file"),
    ("report --results nothere", "is no folder of saved results"),
    ("report --results folder --model smalltown", "--model not with --results"),
    ("report --results folder --seed 0", "--seed not with --results"),
    ("report --results folder --head one", "--head is LAYER.HEAD"),
    ("report --results folder --cascade", "--cascade not with --results"),
    ("report --pdf", "no Chrome or Chromium was found"),
    ("cascade inside --task ioj", "Did you mean 'ioi'"),
    ("cascade inside Mary --task ioi", "--task is for where no PROMPT is given"),
    ("cascade inside --directions 0", "--directions"),
    ("cascade inside --out there", "overwritten by --force"),
    ("cascade outside --task ioj", "Did you mean 'ioi'"),
    ("cascade outside Mary --count 3", "--count is for where no PROMPT is given"),
    ("cascade outside --count 0", "--count"),
    ("cascade outside --seeds 0", "--seeds"),
    ("cascade outside --layer 2", "--layer says where to --nudge"),
    ("cascade outside --swap one", "POSITION=TOKEN"),
    ("cascade outside --swap 1 --nudge 0.1", "not both"),
    ("cascade outside --save there", "is a file"),
    ("export nothere", "there is no nothere"),
    ("export empty", "no results (.nc) in empty"),
    ("export there --format gif", "unknown format 'gif'"),
    ("export there --format ,", "no format is named"),
    ("export there --format html --size doubel", "Did you mean 'double'"),
    ("export there --format png", "no Chrome or Chromium was found"),
    ("export there --format html --out there", "is a file"),
    ("export there there --format html", "two results are named there"),
    ("export there --format html", "there cannot be read as a result"),
    ("verify --reference nothere", "nothere"),
    ("verify --write there", "overwritten by --force"),
    ("card --out there", "overwritten by --force"),
    ("card --pairs 0", "--pairs"),
    ("tasks ioj", "Did you mean 'ioi'"),
    ("tasks --pairs 0", "--pairs"),
    ("get gpt22", "neither a packaged model"),
    ("get my+model/v1", "nor can the hub have it"),
]

BEFORE_RUNNING = [
    (["generate", ""], "prompt 0 is empty"),
    (["generate", "Mary", "--max-new-tokens", 300], "leaves room for"),
    (["lens", ""], "prompt 0 is empty"),
    (["lens", "Mary", "--other", ""], "prompt 1 is empty"),
    (["lens", "--follow", " Mary John"], "must be a single token"),
    (["lens", "--lens", "nothere"], "nothere"),
    (["train-lens", "there", "--length", 300], "outside 2 to 256"),
    (["train-lens", "there"], "one to train on and one kept out"),
    (["train-lens", "--own-words", "--length", 300], "outside 2 to 256"),
    (["train-lens", "--own-words", "--evaluate", "there"], "rows of 128 tokens to measure on; 6 are the least"),
    (["attention", ""], "prompt 0 is empty"),
    (["attribution", ""], "prompt 0 is empty"),
    (["attribution", "Mary", "--answer", " Mary John"], "must be a single token"),
    (["attribution", "Mary", "--wrong", " Mary John"], "must be a single token"),
    (["attribution", "Mary", "--position", 99], "99"),
    (["circuit", "Mary went", "--corrupt", "Mary"], "circuit: pair 0: the clean prompt has 3 tokens"),
    (["circuit", "Mary went", "--corrupt", "Mary went"], "circuit: the clean and the corrupt prompt are the same"),
    (["circuit", *PAIR, "--answer", " Mary John"], "must be a single token"),
    (["circuit", "--method", "eap_gi"], "unknown method 'eap_gi'"),
    (["circuit", "--method", "eap", "--metric", "rank"], "has no gradient, which eap follows"),
    (["circuit", "--metric", "logits"], "unknown metric 'logits'"),
    (["circuit", "--replacement", "men"], "unknown replacement 'men'"),
    (["circuit", "--edges", 2000], "2000 edges asked for; the model has 1,108"),
    (["circuit", "--method", "eap", "--verify", 2000], "2000 edges to verify; the model has 1,108"),
    (["patch", "Mary went", "--corrupt", "Mary"], "must match position by position"),
    (["patch", "Mary went", "--corrupt", "Mary went"], "are the same"),
    (["patch", *PAIR, "--answer", " Mary John"], "must be a single token"),
    (["patch", *PAIR, "--answer", " Mary", "--wrong", " Mary"], "the same, ' Mary'"),
    (["patch", *PAIR, "--site", "zz"], "site 'zz' is not supported"),
    (["patch", *PAIR, "--direction", "up"], "unknown direction 'up'"),
    (["patch", *PAIR, "--replacement", "men"], "unknown replacement 'men'"),
    (["patch", *PAIR, "--metric", "logits"], "unknown metric 'logits'"),
    (["patch", *PAIR, "--replacement", "add"], "takes a vector"),
    (["patch", *PAIR, "--screen", 3, "--metric", "rank"], "has no gradient"),
    (["report", *PAIR, "--answer", " Mary", "--wrong", " Mary"], "--answer and --wrong are the same"),
    (["patch", *PAIR, "--window", 7], "the model has 6"),
    (["patch", *PAIR, "--position", 99], "99"),
    (["patch", "--compare", "--site", "pattern"], "a mean pattern means nothing"),
    (["patch", "The capital of France is", "--trace", "Spain"], "Spain"),
    (["patch", "The capital of France is", "--trace", "France", "--answer", " Mary John"], "must be a single token"),
    (["report", ""], "prompt 0 is empty"),
    (["report", " Mary" * 300], "at most 256"),
    (["report", "--head", "9.9"], "from 0.0 to 5.3"),
    (["report", "Mary went", "--corrupt", "Mary"], "must match position by position"),
    (["report", "Mary went", "--corrupt", "Mary went"], "are the same"),
    (["report", *PAIR, "--answer", " Mary John"], "must be a single token"),
    (["report", "Mary", "--wrong", " Mary John"], "must be a single token"),
    (["report", LONG, "--cascade"], "leaves room for"),
    (["cascade", "inside", ""], "prompt 0 is empty"),
    (["cascade", "inside", "--layer", 6], "layer 6 is out of range"),
    (["cascade", "inside", "--dose", 0], "dose 0 is out of range"),
    (["cascade", "inside", "--dose", "nan"], "dose nan is out of range"),
    (["cascade", "outside", "Mary", "--steps", 300], "leaves room for"),
    (["cascade", "outside", "--steps", 15], "steps 16 at least"),
    (["cascade", "outside", "--temperature", -1.0], "temperature must be 0"),
    (["cascade", "outside", "Mary went", "--swap", 9], "none at position 9"),
    (["cascade", "outside", "Mary went", "--swap", "1= Mary John"], "must be a single token"),
    (["cascade", "outside", "Mary went", "--nudge", "nan"], "must be positive"),
    (["cascade", "outside", "Mary went", "--nudge", 0], "must be positive"),
    (["cascade", "outside", "Mary went", "--nudge", 1, "--layer", 6], "layers are 0 to 5"),
]  # fmt: skip


def told(monkeypatch, capsys, place, words):
    """What a command that must fail says, on one line; nothing is left behind."""
    before = sorted(path.name for path in place.iterdir())
    status, out, err = run(monkeypatch, capsys, *words)
    assert status in (1, 2), out
    assert out == ""
    assert "Traceback" not in err
    assert sorted(path.name for path in place.iterdir()) == before
    return " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(("line", "said"), BEFORE_LOADING, ids=[line[:60] for line, _ in BEFORE_LOADING])
def test_before_a_model_is_loaded(monkeypatch, capsys, place, line, said):
    def load(*given, **options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(interp, "load", load)
    monkeypatch.setenv("BROWSER_PATH", str(place / "none"))
    assert said in told(monkeypatch, capsys, place, line.split())


@pytest.mark.parametrize(
    ("words", "said"), BEFORE_RUNNING, ids=[" ".join(map(str, words))[:60] for words, _ in BEFORE_RUNNING]
)
def test_before_the_model_runs(monkeypatch, capsys, place, words, said):
    def run_blocks(*given, **options):
        raise AssertionError("the model ran")

    monkeypatch.setattr(Transformer, "run_blocks", run_blocks)
    assert said in told(monkeypatch, capsys, place, words)


def test_answers_that_are_predictions_are_told_apart_before_anything_else(monkeypatch, capsys, place):
    for command, said in (("report", "predicts ' to' after both prompts"), ("patch", "the same, ' to'")):
        assert said in told(monkeypatch, capsys, place, [command, "Mary went", "--corrupt", "John went"])


def test_an_answer_without_a_corrupt_prompt_is_attributed(monkeypatch, capsys, tmp_path, small_checkpoint):
    words = [
        "report",
        CLEAN,
        "--model",
        small_checkpoint,
        "--answer",
        " Mary",
        "--wrong",
        " John",
        "--out",
        tmp_path / "r.html",
        "--save",
        tmp_path / "kept",
    ]
    status, out, err = run(monkeypatch, capsys, *words)
    assert status == 0, err
    assert "Of the logit difference of" in out
    attribution = analyses.load(tmp_path / "kept" / "attribution.nc")
    model = interp.load(small_checkpoint)
    ids = [model.to_single_token(text) for text in (" Mary", " John")]
    assert [int(attribution[f"{role}_id"][0]) for role in ("answer", "wrong")] == ids
    trajectory = analyses.load(tmp_path / "kept" / "trajectory.nc")
    assert trajectory["candidate"].to_numpy().tolist() == [" Mary", " John"]
    assert not (tmp_path / "kept" / "patching.nc").exists()


def test_the_scores_that_can_be_sorted_by_are_those_of_the_table(smalltown):
    pair = {"clean": [CLEAN], "corrupt": [CORRUPT], "answer": [" Mary"], "wrong": [" John"]}
    table = analyses.head_table(smalltown, count=2, length=10, **pair)
    numbers = {
        name for name in table.data_vars if table[name].dims == ("layer", "head") and table[name].dtype != object
    }
    assert numbers == {*SCORES, *IMPORTANCE}
