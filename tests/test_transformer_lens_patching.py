"""`interp.transformer_lens.patching`: grids in one wave, against a run for each cell."""

import pytest
import torch
from test_transformer_lens_layer import fresh, some_tokens

from interp.errors import ConfigError
from interp.transformer_lens import patching


def mean_difference(logits):
    return (logits[:, -1, 3] - logits[:, -1, 4]).mean()


def every_loss(logits):
    return logits.log_softmax(-1)[:, :, 3].mean()


def often_right(logits):
    return (logits[:, 2:4].argmax(-1) == 3).float().mean()


NAMES = {name: value for name, value in vars(patching).items() if name.startswith("get_act_patch")}


@pytest.mark.parametrize("name", NAMES)
def test_patching_in_one_wave_equals_a_run_for_each_cell(name):
    model, clean, corrupt = fresh(), some_tokens(2, 4), some_tokens(2, 4, seed=1)
    _, cache = model.run_with_cache(clean)
    waves = NAMES[name](model, corrupt, cache, mean_difference)
    ran = []
    model.add_hook(
        "hook_embed", lambda value, hook: ran.append(1)
    )  # with a hook attached each cell is a run of its own
    cells = NAMES[name](model, corrupt, cache, mean_difference)
    model.reset_hooks()
    assert len(ran) >= waves.numel()
    torch.testing.assert_close(waves, cells, atol=1e-5, rtol=1e-4)
    assert (waves != mean_difference(model(corrupt))).any()


def test_which_positions_a_metric_reads():
    model, tokens = fresh(), some_tokens()
    logits = model(tokens).detach()
    for metric, read in (
        (mean_difference, [5]),
        (every_loss, [0, 1, 2, 3, 4, 5]),
        (often_right, [0, 1, 2, 3, 4, 5]),  # a largest logit, which noise may leave where it was
        (lambda x: float(x[0, 2, 3]), [2]),
        (lambda x: x[:, 1, 3].mean().item(), [1]),
        (lambda x: 1.0 if x[0, 2, 3].item() > 0 else 0.0, [0, 1, 2, 3, 4, 5]),
        (lambda x: x.detach().numpy()[:, 3].sum(), [0, 1, 2, 3, 4, 5]),
        (lambda x: 7.0, [5]),
    ):
        assert patching.positions_read(metric, logits) == read
    _, cache = model.run_with_cache(some_tokens(seed=1))
    for metric in (every_loss, often_right):
        found = patching.get_act_patch_resid_pre(model, tokens, cache, metric)
        for layer, position in ((0, 2), (1, 5)):

            def put(value, hook, position=position):
                value[:, position] = cache[hook.name][:, position]

            expected = metric(model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", put)]))
            torch.testing.assert_close(found[layer, position], expected.detach(), atol=1e-5, rtol=1e-4)


def test_patching_with_a_table_and_a_setter_of_ones_own():
    model, tokens = fresh(), some_tokens()
    _, cache = model.run_with_cache(some_tokens(seed=1))

    def both(value, index, clean):
        value[:, : index[1] + 1] = clean[:, : index[1] + 1]
        return value

    table = patching.make_df_from_ranges([2, 3], ["layer", "pos"])
    values, same = patching.generic_activation_patch(
        model, tokens, cache, mean_difference, both, "resid_pre", index_df=table, return_index_df=True
    )
    assert same is table
    assert values.shape == (6,)

    def put(value, hook):
        value[:, :3] = cache["resid_pre", 1][:, :3]

    expected = mean_difference(model.run_with_hooks(tokens, fwd_hooks=[("blocks.1.hook_resid_pre", put)]))
    torch.testing.assert_close(values[-1], expected.detach(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="one of the two"):
        patching.generic_activation_patch(model, tokens, cache, mean_difference, both, "resid_pre")
