"""Circuits in the formats of others, against a file that a peer wrote, and round trips."""

import json

import networkx as nx
import pytest
from conftest import SHARED, random_tokens, tiny
from test_edge_patching import needs_reference
from test_options import build

import analyses
from analyses import Circuit
from analyses.circuits.circuit import graph
from analyses.circuits.edges import Shape
from analyses.circuits.formats import SHARES
from interp.errors import ConfigError, InterpError, ResultError

THEIRS = SHARED / "data" / "eap-ig" / "circuit.json"
SHAPE = Shape(n_layers=2, n_heads=2, kv_heads=2, d_model=8)


@needs_reference
def test_a_file_that_a_peer_wrote(tmp_path):
    held = json.loads(THEIRS.read_text())
    circuit = analyses.read_eap_ig(THEIRS)
    assert circuit.edges == {name for name, edge in held["edges"].items() if edge["in_graph"]}
    assert circuit.scores == {name: edge["score"] for name, edge in held["edges"].items()}
    analyses.write_eap_ig(tmp_path / "mine.json", circuit)
    mine = json.loads((tmp_path / "mine.json").read_text())
    assert mine["cfg"] == held["cfg"]
    assert mine["edges"] == held["edges"]
    assert mine["nodes"] == held["nodes"]


def scored(shape: Shape, count: int) -> Circuit:
    scores = {name: float(number) - 20.0 for number, name in enumerate(graph(shape))}
    chosen = Circuit.from_scores(scores, model=shape, count=count)
    return Circuit(shape, chosen.edges, scores)


def test_there_and_back(tmp_path):
    circuit = scored(SHAPE, 11)
    analyses.write_eap_ig(tmp_path / "c.json", circuit)
    back = analyses.read_eap_ig(tmp_path / "c.json")
    assert back == circuit
    assert back.scores == circuit.scores
    with pytest.raises(InterpError, match="exists"):
        analyses.write_eap_ig(tmp_path / "c.json", circuit)
    analyses.write_eap_ig(tmp_path / "c.json", Circuit.none(SHAPE), overwrite=True)
    assert not analyses.read_eap_ig(tmp_path / "c.json")


def test_shared_keys_are_one_for_each_head_there(tmp_path):
    model = build(n_kv_heads=2, parallel=True)
    circuit = Circuit.of(model, ["input->a0.h1<k>", "a0.h0->m1"])
    circuit = Circuit(circuit.shape, circuit.edges, {"input->a0.h1<k>": 3.0, "input->a0.h1<q>": 2.0})
    analyses.write_eap_ig(tmp_path / "c.json", circuit)
    held = json.loads((tmp_path / "c.json").read_text())
    assert held["edges"]["input->a0.h2<k>"] == held["edges"]["input->a0.h3<k>"] == {"score": 1.5, "in_graph": True}
    assert held["edges"]["input->a0.h1<q>"] == {"score": 2.0, "in_graph": False}
    assert held["cfg"]["parallel_attn_mlp"] is True
    back = analyses.read_eap_ig(tmp_path / "c.json", model=model)
    assert back == circuit
    assert back.scores["input->a0.h1<k>"] == 3.0
    alone = analyses.read_eap_ig(tmp_path / "c.json")
    assert len(alone) == 3  # as a model whose heads have keys of their own


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held.pop("cfg"), "it has no 'cfg'"),
        (lambda held: held.update(edges=[]), "it has no 'edges'"),
        (lambda held: held["cfg"].update(n_layers="2"), "n_layers is '2'"),
        (lambda held: held["cfg"].update(n_layers=10**9), "n_layers is 1000000000"),
        (lambda held: held["cfg"].update(n_layers=10**4), "has 46 edges; a model of its shape has"),
        (lambda held: held["edges"].pop("m0->m1"), "has 45 edges"),
        (lambda held: held["edges"].update({"m1->m0": held["edges"].pop("m0->m1")}), "it has no 'm0->m1'"),
        (lambda held: held["edges"]["m0->m1"].update(score="1"), "the edge m0->m1 has no score"),
        (lambda held: held["edges"]["m0->m1"].update(in_graph=1), "the edge m0->m1 has no score"),
    ],
)
def test_files_that_are_none(tmp_path, change, said):
    analyses.write_eap_ig(tmp_path / "c.json", scored(SHAPE, 5))
    held = json.loads((tmp_path / "c.json").read_text())
    change(held)
    (tmp_path / "c.json").write_text(json.dumps(held))
    with pytest.raises(InterpError, match=said):
        analyses.read_eap_ig(tmp_path / "c.json")


def test_what_is_no_json(tmp_path):
    (tmp_path / "c.json").write_text('{"cfg": NaN}')
    with pytest.raises(InterpError, match="NaN is no JSON number"):
        analyses.read_eap_ig(tmp_path / "c.json")
    with pytest.raises(InterpError, match="no circuit in EAP-IG's format"):
        analyses.read_eap_ig(tmp_path / "there-is-none.json")
    analyses.write_eap_ig(tmp_path / "d.json", scored(SHAPE, 5))
    with pytest.raises(InterpError, match="is of a model of 2 layers of 2 heads"):
        analyses.read_eap_ig(tmp_path / "d.json", model=tiny())


def test_what_the_format_cannot_say(tmp_path):
    with pytest.raises(ConfigError, match="every layer has an MLP"):
        analyses.write_eap_ig(tmp_path / "c.json", Circuit.none(build(mlp="none")))
    with pytest.raises(ConfigError, match="the model's width"):
        analyses.write_eap_ig(tmp_path / "c.json", Circuit.none(Shape(2, 2, 2)))
    assert not list(tmp_path.iterdir())


def test_the_folder_of_mib(tmp_path):
    model = tiny()
    exact = analyses.edge_patching(
        model, random_tokens(2, 5), random_tokens(2, 5, seed=1), answer=1, wrong=3, smallest_gap=0.0
    )
    folder = analyses.write_mib(tmp_path, "arc_easy", model, exact, name="gpt2")
    assert folder == tmp_path / "arc-easy_gpt2"
    assert [file.name for file in folder.iterdir()] == ["importances.json"]
    read = analyses.read_mib(folder)["importances"]
    assert read.scores == pytest.approx(analyses.edge_scores(exact))
    circuits = [Circuit.from_scores(exact, share=share) for share in SHARES]
    folder = analyses.write_mib(tmp_path, "ioi", model, circuits, name="gpt2")
    back = analyses.read_mib(folder)
    assert [back[str(share)] for share in SHARES] == circuits
    with pytest.raises(InterpError, match="MIB takes 9 circuits"):
        analyses.write_mib(tmp_path, "ioi", model, circuits[:3], name="gpt2")
    with pytest.raises(InterpError, match="is larger than 0.1% of"):
        analyses.write_mib(tmp_path, "ioi", model, circuits[::-1], name="gpt2")
    with pytest.raises(InterpError, match="exists"):
        analyses.write_mib(tmp_path, "ioi", model, circuits, name="gpt2")
    with pytest.raises(InterpError, match="cannot be part of a folder's name"):
        analyses.write_mib(tmp_path, "../ioi", model, circuits)


def test_pickles_are_not_read(tmp_path):
    (tmp_path / "importances.pt").write_bytes(b"")
    with pytest.raises(InterpError, match="pickled files"):
        analyses.read_mib(tmp_path)
    with pytest.raises(InterpError, match="no folder with circuits"):
        analyses.read_mib(tmp_path / "nowhere")


def test_as_a_graph_of_networkx_and_on_file(tmp_path):
    circuit = Circuit(
        SHAPE, frozenset(["input->m0", "m0->a1.h1<q>", "m0->a1.h1<v>", "a1.h1->logits"]), {"input->m0": -2.0}
    )
    made = analyses.to_networkx(circuit)
    assert dict(made.nodes(data=True)) == {
        "input": {"kind": "input"}, "m0": {"kind": "mlp", "layer": 0}, "a1.h1": {"kind": "head", "layer": 1, "head": 1},
        "logits": {"kind": "logits"},
    }  # fmt: skip
    assert made.edges["m0", "a1.h1", "m0->a1.h1<v>"] == {"part": "v"}
    assert made.edges["input", "m0", "input->m0"] == {"part": "mlp", "score": -2.0}
    assert nx.has_path(made, "input", "logits")
    analyses.write_graphml(tmp_path / "c.graphml", circuit)
    back = nx.read_graphml(tmp_path / "c.graphml")
    assert set(back.edges()) == set(made.edges())
    assert {data["score"] for *_, data in back.edges(data=True) if "score" in data} == {-2.0}
    with pytest.raises(InterpError, match="exists"):
        analyses.write_graphml(tmp_path / "c.graphml", circuit)


def test_a_result_of_several_methods_is_not_one_score(tmp_path):
    model = tiny()
    several = analyses.edge_attribution(
        model,
        random_tokens(1, 5),
        random_tokens(1, 5, seed=1),
        answer=1,
        wrong=3,
        method=["eap", "clean_corrupted"],
        verify=0,
    )
    with pytest.raises(ResultError, match="of several methods"):
        analyses.write_mib(tmp_path, "ioi", model, several)


def test_what_cannot_be_written_is_named_before_anything_is_made(tmp_path):
    model = tiny()
    scores = dict.fromkeys(graph(Circuit.none(model).shape), 1.0) | {"input->m0": float("nan")}
    with pytest.raises(InterpError, match="score of input->m0 is nan"):
        analyses.write_mib(tmp_path, "ioi", model, scores)
    with pytest.raises(InterpError, match="score of input->m0 is inf"):
        analyses.write_eap_ig(tmp_path / "x.json", Circuit(SHAPE, frozenset(), {"input->m0": float("inf")}))
    assert not list(tmp_path.iterdir())


def test_an_edge_into_shared_keys_runs_to_each_head_with_its_whole_score():
    model = build(n_kv_heads=2)
    whole = Circuit.whole(model)
    made = analyses.to_networkx(Circuit(whole.shape, whole.edges, dict.fromkeys(whole, 3.0)))
    found = [about["score"] for _, _, key, about in made.edges(keys=True, data=True) if key == "input->a0.h0<k>"]
    assert found == [3.0, 3.0]
