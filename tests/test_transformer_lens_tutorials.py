"""Scripts in the style of the field's tutorials run from top to bottom, and find what is known to be there."""

import runpy
from pathlib import Path

import torch


def run(name: str) -> dict:
    return runpy.run_path(str(Path(__file__).parent / "tutorials" / f"{name}.py"))


def test_induction_heads():
    found = run("induction_heads")
    assert found["second"] < 0.5 < 10 < found["first"]
    assert torch.equal(found["scores"], found["hooked"])
    assert found["scores"].max() > 0.7
    assert found["without_induction"] > 10 * found["second"]
    assert found["without_others"] < 2 * found["second"]
    early = found["composition"]
    assert early.shape == (6, 4)
    assert not early[found["best"][0] :].any()


def test_indirect_objects():
    found = run("indirect_object")
    clean = found["clean_difference"]
    assert (found["original"] > 5).all()
    assert abs(clean + found["corrupted_difference"]) < 1e-3  # each prompt's corrupted one is its pair's other
    bias = (found["model"].b_U[found["ids"]] @ torch.tensor([1.0, -1.0])).mean().item()
    assert abs(found["by_step"][-1].item() + bias - clean) < 1e-3
    assert abs(found["by_part"].sum().item() + bias - clean) < 0.02 * clean
    assert found["head_labels"][int(found["by_head"].argmax())] in ("L4H1", "L4H3")
    stream = found["stream"]
    assert stream.shape == (6, found["tokens"].shape[1])
    assert int(stream[0].argmax()) == int((found["tokens"][0] != found["corrupted"][0]).nonzero()[0])
    assert abs(stream[0].max().item() - 1) < 1e-4
    assert int(stream[5].argmax()) == stream.shape[1] - 1
    torch.testing.assert_close(found["every"][0], found["head_out"])


def test_balanced_brackets():
    found = run("balanced_brackets")
    assert found["balanced"](torch.tensor([[1, 2, 1, 2], [1, 1, 2, 2], [2, 1, 1, 2], [1, 1, 1, 2]])).tolist() == [
        True, True, False, False,
    ]  # fmt: skip
    assert found["accuracy"] > 0.95
    assert found["accuracy_without"] < 0.8
    reads = {name: values.sum().item() for name, values in found["by_kind"].items()}
    assert reads["balanced"] < min(reads["unequal"], reads["negative"])
