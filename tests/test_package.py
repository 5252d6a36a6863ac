"""The package as a whole: what it exports, what importing it does, and the wheel."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import analyses
import interp
import interp.loading
import interp.zoo
from analyses import cascade, lenses, plots, report

ROOT = Path(__file__).parent.parent


def python(code: str, **options) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", [interp, interp.loading, interp.zoo, analyses, cascade, lenses, plots, report])
def test_all_is_what_is_there(module):
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert getattr(module, name).__doc__ if callable(getattr(module, name)) else True


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="logitlens"):
        analyses.logitlens  # noqa: B018


def test_importing_has_no_side_effects():
    code = """
import numpy, torch, plotly.io
def state():
    settings = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), plotly.io.templates.default
    return torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), settings
before = state()
import interp, analyses, analyses.plots, analyses.report
interp.Transformer(interp.ModelConfig(n_layers=1, d_model=4, n_heads=1, d_head=4, d_mlp=4, n_ctx=4, d_vocab=4))
assert state() == before
"""
    python(code)


def test_importing_interp_is_light():
    loaded = python("import sys, interp; print(*sys.modules)").split()
    assert not {"xarray", "pandas", "plotly", "scipy", "transformers", "typer", "huggingface_hub"} & set(loaded)


def test_configurations_of_the_wrong_type_without_the_tests_type_checks():
    code = """
import interp
from interp.errors import ConfigError
sizes = dict(n_layers=1, d_model=4, n_heads=1, d_head=4, d_mlp=4, n_ctx=4, d_vocab=4)
for change in ({"d_model": 2.5}, {"n_heads": True}, {"activation": "tanh"}, {"n_ctx": "8"}):
    try:
        interp.ModelConfig(**(sizes | change))
    except ConfigError as error:
        assert next(iter(change)) in str(error)
    else:
        raise AssertionError(change)
"""
    python(code)


def test_imports_run_downward():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_only_the_embedded_models_lens_is_in_the_wheel(tmp_path):
    """Those of other models are 40 MB and more, and stay where their owner wrote them: also if that is here."""
    for name in ("pyproject.toml", ".gitignore", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    trained = tmp_path / "analyses" / "lenses" / "trained"
    trained.mkdir(parents=True)
    (tmp_path / "interp").mkdir()
    for name in ("smalltown.safetensors", "smalltown.md", "smollm2-135m.safetensors", "lens.safetensors.training"):
        (trained / name).write_text(name)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("criticalpile-*.whl")
    names = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "/trained/" in name}
    assert names == {"smalltown.safetensors", "smalltown.md"}


def test_the_wheel_works_outside_the_checkout(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("criticalpile-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "interp/zoo/smalltown/model.safetensors" in names
    for part in ("templates/report.html.j2", "bundles/plotly-cartesian.min.js.gz", "bundles/LICENSE.plotly"):
        assert f"analyses/report/{part}" in names
    assert {name.split("/")[0] for name in names} == {"interp", "analyses", "criticalpile-0.1.0.dist-info"}
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import sys, interp, analyses.cli\nassert 'site' in interp.__file__, interp.__file__\n"
    code += "sys.argv = ['interp', 'lens', '--out', 'lens.html']\nanalyses.cli.main()"
    out = python(
        code, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    )
    assert "Figure: lens.html" in out
    assert 4e5 < (tmp_path / "lens.html").stat().st_size < 1e6
