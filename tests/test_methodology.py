"""The same grid by several methods."""

import numpy as np
import pytest
from conftest import random_tokens, tiny
from scipy import stats

import analyses
from analyses.patching.methodology import METHODS, rank_correlation
from interp.errors import InterpError


def test_each_method_is_the_grid_patched_by_itself():
    model, clean, corrupt = tiny(), random_tokens(4, 5, seed=1), random_tokens(4, 5, seed=2)
    both = {"answer": 3, "wrong": 4, "smallest_gap": 0.0}
    result = analyses.compare_patching(model, clean, corrupt, **both)
    assert list(result["variant"].to_numpy()) == [" · ".join(method) for method in METHODS]
    for number, (direction, replacement, metric) in enumerate(METHODS):
        alone = analyses.activation_patching(
            model, clean, corrupt, **both, site="z", direction=direction, replacement=replacement, metric=metric
        )
        moved = alone["effect"] if direction == "denoising" else 1 - alone["effect"]
        np.testing.assert_allclose(result["moved"][number], moved, rtol=1e-9)
        np.testing.assert_allclose(result["moved_mean"][number], moved.mean("prompt"), rtol=1e-9)
        np.testing.assert_allclose(result["clean_baseline"][number], alone["clean_baseline"])
        for other in range(len(METHODS)):
            means = (result["moved"][at].mean("prompt").to_numpy().ravel() for at in (number, other))
            expected = stats.spearmanr(*means).statistic
            assert result["rank_correlation"][number, other].item() == pytest.approx(expected)


def test_a_rank_correlation_by_hand():
    rows = np.array([[1.0, 2.0, 3.0], [10.0, 30.0, 20.0], [3.0, 2.0, 1.0], [5.0, 5.0, 5.0]])
    found = rank_correlation(rows)
    np.testing.assert_allclose(found[:3, :3], [[1, 0.5, -1], [0.5, 1, -0.5], [-1, -0.5, 1]])
    assert np.isnan(found[3]).all()
    assert np.isnan(found[:, 3]).all()


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([], "at least two methods, each once; got none"),
        ([METHODS[0]], "at least two"),
        ([METHODS[0], METHODS[0]], "each once"),
        ([METHODS[0], ("noising", "mean", "logits")], "unknown metric 'logits'"),
        ([METHODS[0], ("nosing", "mean", "logit")], "unknown direction"),
    ],
)
def test_requests_that_cannot_be(methods, message):
    with pytest.raises(InterpError, match=message):
        analyses.compare_patching(
            tiny(), random_tokens(1), random_tokens(1, seed=1), answer=3, wrong=4, methods=methods
        )
