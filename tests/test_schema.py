"""What a result of each kind has at least (`analyses/schemas.json`), and what is said of a file that lacks something of it.

A new kind gets its schema, and one that has changed is made to allow for it, by `KEEP_SCHEMAS=1 pytest -n 0 tests/test_schema.py`.
"""

import json
import os
from pathlib import Path

import pytest
import torch
import xarray as xr
from conftest import random_tokens, tiny

import analyses
from analyses.plots.kinds import kinds
from analyses.schema import ATTRIBUTES, check_schema, form_of, schemas, type_of
from interp.errors import ResultError

KEPT = Path(analyses.__file__).parent / "schemas.json"


def schema_of(result, kept):
    """What results of a kind have, of which some are known already: what all have alike."""
    found = {
        part: {str(name): [form_of(one), list(one.dims)] for name, one in there.items()}
        for part, there in (("variables", result.data_vars), ("coords", result.coords))
    }
    parameters = {name: [type_of(value), "null"] for name, value in json.loads(result.attrs["parameters"]).items()}
    if kept is None:
        return found | {"parameters": {name: sorted({*types}) for name, types in parameters.items()}}
    merged = {
        part: {
            name: [form, dims if dims == found[part][name][1] else None]
            for name, (form, dims) in kept[part].items()
            if name in found[part]
        }
        for part in found
    }
    types = {n: sorted({*known, *parameters[n]}) for n, known in kept["parameters"].items() if n in parameters}
    return merged | {"parameters": types}


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_that_has_a_figure_has_a_schema_and_fits_it(kind, measured):
    result = measured(kind)
    if os.environ.get("KEEP_SCHEMAS"):
        kept = json.loads(KEPT.read_text(encoding="utf-8"))
        kept[kind] = schema_of(result, kept.get(kind))
        lines = [f"{json.dumps(one)}: {json.dumps(what)}" for one, what in sorted(kept.items())]
        KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        return
    check_schema(result, "it")
    schema = schemas()[kind]
    assert schema["variables"]
    for part in ("variables", "coords"):
        for name in schema[part]:
            with pytest.raises(ResultError, match=f"it, a result of kind '{kind}', lacks the .* '{name}'"):
                check_schema(result.drop_vars(name), "it")


@pytest.mark.parametrize("kind", kinds())
def test_results_of_a_float64_model_are_in_float64(kind, measured):
    assert [name for name, values in measured(kind).variables.items() if values.dtype in ("float32", "float16")] == []


@pytest.fixture
def lens():
    return analyses.logit_lens(tiny(dtype=torch.float32), random_tokens(1, 4))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_that_is_missing_or_no_text_is_named(name, lens):
    others = {key: value for key, value in lens.attrs.items() if key != name}
    for attrs in (others, others | {name: 3.0}):
        with pytest.raises(ResultError, match=f"no attribute '{name}'"):
            check_schema(lens.drop_attrs(deep=False).assign_attrs(attrs), "it")


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({"parameters": "{"}, "'parameters' that is no JSON"),
        ({"parameters": "[" * 100_000}, "nested too deeply"),
        ({"parameters": "[]"}, "'parameters' that is no JSON object"),
        ({"parameters": "{}"}, "lacks the parameter"),
        ({"model_config": "{}"}, "size 'n_layers'"),
        ({"model_config": '{"n_layers": NaN}'}, "NaN is no JSON number"),
        ({"prompts": "x"}, "'prompts' that is no JSON"),
    ],
)
def test_an_attribute_that_says_nothing_is_named(attrs, said, lens):
    with pytest.raises(ResultError, match=said):
        check_schema(lens.assign_attrs(attrs), "it")


def test_variables_of_another_form_are_named(lens):
    name = "entropy"
    for values, said in (
        (lens[name].astype(str), "'entropy' of .*, expected floating-point numbers"),
        (lens[name].isel(layer=0), r"'entropy' along \(.*\), expected \("),
        (lens[name].T, r"'entropy' along \(.*\), expected \("),
    ):
        with pytest.raises(ResultError, match=said):
            check_schema(lens.drop_vars(name).assign({name: values}), "it")
    with pytest.raises(ResultError, match="it, a result of kind 'logit_lens', has no prompt"):
        check_schema(lens.isel(prompt=slice(0)), "it")


def test_kinds_of_others_are_left_to_them():
    check_schema(xr.Dataset(attrs={"kind": "theirs", "schema_version": 1}), "it")
