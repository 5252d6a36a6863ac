"""The code beside each figure of the gallery, taken from `gallery.Examples`, which draws it."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import gallery

SETUP = """
import analyses, interp
from analyses import cascade, plots
from analyses.cascade import Replace
from interp.zoo import task

model = interp.load("smalltown")
PROMPT = "When Mary and John went to the store, John gave a drink to"
OTHER = "When Mary and John went to the store, Mary gave a drink to"
ASKED = {"answer": " Mary", "wrong": " John"}
one = {**ASKED, "clean": PROMPT, "corrupt": OTHER}
pairs = task("ioi").sample(6, 0, model.tokenizer)
clean, corrupt = [pair.clean for pair in pairs], [pair.corrupt for pair in pairs]
answers = {"answer": [pair.answer for pair in pairs], "wrong": [pair.wrong for pair in pairs]}
disturbed = {"seeds": 3, "steps": 24}
"""
"""What every snippet begins from."""


def snippets() -> dict[str, str]:
    """By the name of each figure, the code that draws it after `SETUP`."""
    methods = {
        one.name: one
        for one in ast.walk(ast.parse(dedent(inspect.getsource(gallery.Examples))))
        if isinstance(one, ast.FunctionDef)
    }
    shared = {
        one.targets[0].attr: one.value.args[0].body
        for one in methods["__init__"].body
        if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Attribute) and isinstance(one.value, ast.Call)
        and one.value.args and isinstance(one.value.args[0], ast.Lambda)
    }  # fmt: skip
    inline = _Inline(shared)
    code = {name: f"analyses.plot({inline.of(one)})" for name, one in _lambdas(methods["all"]).items()}
    code |= {name: inline.of(one) for name, one in _lambdas(methods["others"]).items()}
    return dict(zip(code, _formatted(list(code.values())), strict=True))


def _lambdas(method: ast.FunctionDef) -> dict[str, ast.expr]:
    """What the lambdas of the dictionary that a method returns give; of a shared one, the call of it."""
    returned = next(one.value for one in method.body if isinstance(one, ast.Return))
    assert isinstance(returned, ast.Dict)
    return {
        ast.literal_eval(key): value.body if isinstance(value, ast.Lambda) else ast.Call(value, [], [])
        for key, value in zip(returned.keys, returned.values, strict=True)
        if key is not None
    }


class _Inline(ast.NodeTransformer):
    """What is measured once for several figures in the place where it is used; the model and the prompts by the names of `SETUP`."""

    def __init__(self, shared: dict[str, ast.expr]) -> None:
        self._shared = shared

    def of(self, tree: ast.expr) -> str:
        return ast.unparse(self.visit(ast.parse(ast.unparse(tree), mode="eval")))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        owner, _, name = ast.unparse(node.func).rpartition(".")
        if owner == "self" and name in self._shared:
            return self.visit(ast.parse(ast.unparse(self._shared[name]), mode="eval").body)
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return ast.Name(node.attr)
        return self.generic_visit(node)


def _formatted(code: list[str]) -> list[str]:
    """Laid out in lines that stand on a page."""
    mark = "\n# next\n"
    command = [sys.executable, "-m", "ruff", "format", "-"]
    done = subprocess.run(
        command, input=mark.join(code), capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    return [one.strip() for one in done.stdout.split(mark.strip())]
