"""One model in several threads and tasks at once: each hears its own hooks only, and every number is that of a run by itself."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
import torch
from conftest import random_tokens, tiny
from torch import Tensor

import analyses
import interp
from interp import Intervention, Row, Set, Transformer
from interp.errors import HookError
from interp.hooks import attached_hooks
from interp.sweep.readouts import Logits

NAME = "blocks.1.hook_resid_pre"
ROUNDS = 12

Work = Callable[[Transformer], Tensor]


def zeroed(model: Transformer, number: int) -> Tensor:
    """A run in which one position is taken out, by where the hook is told that it stands."""

    def zero(value: Tensor, hook: interp.HookPoint) -> Tensor:
        return value * (hook.positions != number)[..., None]

    with model.hooks({NAME: zero}):
        return model(random_tokens(1, 10, number))


def patched(model: Transformer, number: int) -> Tensor:
    tokens = random_tokens(2, 6, number)
    found = analyses.activation_patching(
        model, tokens[:1], tokens[1:], answer=3, wrong=4, layers=[1], smallest_gap=1e-9
    )
    return torch.tensor(found["effect"].to_numpy())


def slope(model: Transformer, number: int) -> Tensor:
    seen = []
    with torch.enable_grad(), model.backward_hooks({NAME: lambda gradient, hook: seen.append(gradient.clone())}):
        model(random_tokens(1, 10, number))[0, -1, 3].backward()
    return seen[0]


def generated(model: Transformer, number: int) -> Tensor:
    with model.hooks({NAME: lambda value, hook: value * (hook.positions % 3 != number % 3)[..., None]}):
        return model.generate(random_tokens(1, 4, number), max_new_tokens=6, seed=number)


def swept(model: Transformer, number: int) -> Tensor:
    rows = [Row([Intervention(NAME, Set(0.0), [at])]) for at in range(4)]
    return interp.sweep(model, random_tokens(1, 6, number), rows, Logits()).values


def explicit(model: Transformer, number: int) -> Tensor:
    """A derivative with a rule of vmap, which fused attention has not."""
    with model.explicit_attention():
        streams = torch.stack([model.embed(random_tokens(1, 6, number + more)) for more in range(2)])
        return torch.func.vmap(model.run_blocks)(streams)


def doses(model: Transformer, number: int) -> Tensor:
    return torch.tensor(
        analyses.cascade.dose_response(
            model, random_tokens(1, 5, number), directions="isotropic", n_directions=2, doses=[0.01, 0.1, 0.3]
        )["kl"].to_numpy()
    )


WORK: dict[str, Callable[[Transformer, int], Tensor]] = {
    "plain": lambda model, number: model(random_tokens(1, 10, number)),
    "hooks": zeroed,
    "cache": lambda model, number: model.run_with_cache(random_tokens(1, 10, number))[1]["z", 2],
    "gradients": lambda model, number: interp.gradients(
        model, random_tokens(1, 10, number), lambda logits: logits[0, -1, 3], NAME
    )[2]["resid_pre", 1],
    "backward": slope,
    "patching": patched,
    "sweep": swept,
    "generate": generated,
    "recorded": lambda model, number: model.generate_with_cache(random_tokens(1, 4, number), max_new_tokens=4)[1][
        "resid_post", 0
    ],
    "explicit": explicit,
    "doses": doses,
}


def check(model: Transformer, expected: dict[tuple[str, int], Tensor], names: list[str], rounds: int) -> int:
    wrong = 0
    for number in range(rounds):
        for name in names:
            wrong += not WORK[name](model, number % 3).equal(expected[name, number % 3])
    return wrong


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, int], Tensor]:
    model = tiny()
    return {(name, number): work(model, number) for name, work in WORK.items() for number in range(3)}


def together(expected: dict[tuple[str, int], Tensor], rounds: int) -> None:
    model, names = tiny(), list(WORK)
    orders = [names, names[::-1], names[5:] + names[:5], names[3:] + names[:3]]
    with ThreadPoolExecutor(len(orders)) as pool:
        assert list(pool.map(lambda order: check(model, expected, order, rounds), orders)) == [0] * len(orders)
    assert attached_hooks(model) == []
    assert not any(point._listeners for point in model.hook_points.values())


def test_everything_in_a_thread_pool(expected):
    together(expected, 3)


@pytest.mark.slow
def test_everything_in_a_thread_pool_for_long(expected):
    together(expected, 60)


@pytest.mark.parametrize("beside", ["plain", "cache", "gradients", "sweep"])
def test_what_runs_while_hooks_are_attached_elsewhere(expected, beside):
    """Not by chance: the other thread runs in the middle of our block, and we in the middle of its run."""
    model, attached, done = tiny(), threading.Event(), threading.Event()
    heard: list[str] = []

    def hooked() -> None:
        with model.hooks({"*": lambda value, hook: heard.append(threading.current_thread().name)}):
            attached.set()
            done.wait(60)
            model(random_tokens())

    thread = threading.Thread(target=hooked, name="hooked")
    thread.start()
    assert attached.wait(60)
    assert attached_hooks(model) == []
    assert not model.hook_points[NAME].active
    found = WORK[beside](model, 1)
    done.set()
    thread.join()
    assert torch.equal(found, expected[beside, 1])
    assert set(heard) == {"hooked"}


def test_where_the_values_stand_is_each_threads_own():
    model, at = tiny(), threading.Barrier(2, timeout=60)
    seen: dict[int, list[list[int]]] = {}

    def run(length: int) -> None:
        def note(value: Tensor, hook: interp.HookPoint) -> None:
            at.wait()
            seen.setdefault(length, []).append(hook.positions.tolist()[0])

        with model.hooks({"blocks.*.hook_resid_pre": note}):
            model(random_tokens(1, length))

    threads = [threading.Thread(target=run, args=(length,)) for length in (4, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {length: [list(range(length))] * 3 for length in (4, 7)}


def test_a_run_within_a_hook_leaves_the_outer_runs_positions():
    model, seen = tiny(), []

    def run_inside(value: Tensor, hook: interp.HookPoint) -> None:
        if value.shape[1] == 8:
            model(random_tokens(1, 3))

    hooks = {
        "blocks.0.hook_mlp_out": run_inside,
        NAME: lambda value, hook: seen.append((value.shape[1], hook.positions.shape[1])),
    }
    with model.hooks(hooks):
        model(random_tokens(1, 8))
    assert seen == [(3, 3), (8, 8)]
    assert all(point.positions is None for point in model.hook_points.values())


def test_tasks(expected):
    model, tokens = tiny(), random_tokens(1, 10, 1)

    async def hooked(number: int) -> Tensor:
        with model.hooks({NAME: lambda value, hook: value * (hook.positions != number)[..., None]}):
            await asyncio.sleep(0.001)
            found = model(random_tokens(1, 10, number))
            await asyncio.sleep(0.001)
            return found

    async def plain() -> Tensor:
        await asyncio.sleep(0.0015)
        return model(tokens)

    async def main() -> None:
        for _ in range(ROUNDS):
            found = await asyncio.gather(*(hooked(number) for number in range(3)), plain(), plain())
            for number in range(3):
                assert torch.equal(found[number], expected["hooks", number])
            assert all(torch.equal(logits, expected["plain", 1]) for logits in found[3:])
            with model.hooks({NAME: lambda value, hook: value * (hook.positions != 2)[..., None]}):
                inside = await asyncio.to_thread(model, random_tokens(1, 10, 2))  # a copy of the context
            assert torch.equal(inside, expected["hooks", 2])
        assert attached_hooks(model) == []

    asyncio.run(main())


def test_a_thread_of_a_pool_hears_no_hooks_and_the_block_says_so(expected):
    model = tiny()
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(HookError, match="never fired. The model was not run inside the block, or in another thread"),
        model.hooks({NAME: lambda value, hook: value * 0}),
    ):
        found = pool.submit(model, random_tokens(1, 10, 1)).result()
    assert torch.equal(found, expected["plain", 1])


def steps(model: Transformer, factor: float) -> Iterator[Tensor]:
    """A generator that suspends within its block."""
    with model.hooks({NAME: lambda value, hook: value * factor}):
        for _ in range(3):
            yield model(random_tokens())


def test_suspended_generators_end_in_any_order():
    model = tiny()
    plain = model(random_tokens())
    first, second = steps(model, 0.0), steps(model, 0.5)
    alone = next(first)
    assert not torch.equal(alone, plain)
    next(second)
    first.close()
    assert attached_hooks(model) == [NAME]  # the second's
    with model.hooks({NAME: lambda value, hook: value * 2}):
        torch.testing.assert_close(model(random_tokens()), plain)
    second.close()
    assert torch.equal(model(random_tokens()), plain)


def test_a_generator_that_goes_on_in_another_context_is_named():
    model = tiny()
    expected = next(steps(model, 0.5))
    with ThreadPoolExecutor(1) as pool:
        generator = steps(model, 0.5)
        assert torch.equal(next(generator), expected)
        with pytest.raises(HookError, match="a generator attached hooks in one thread or task and now runs the model"):
            pool.submit(next, generator).result()
        generator = steps(model, 0.5)
        context = copy_context()
        assert torch.equal(context.run(next, generator), expected)
        with pytest.raises(HookError, match="Run all its steps in the same"):
            next(generator)
        generator = steps(model, 0.5)
        assert torch.equal(context.run(next, generator), expected)
        assert torch.equal(pool.submit(context.run, next, generator).result(), expected)  # the same context moves along
        with pytest.raises(StopIteration):
            [context.run(next, generator) for _ in range(2)]
        generator = steps(model, 0.5)
        pool.submit(next, generator).result()  # left there, and collected here
        del generator
        gc.collect()
        assert not any(point._listeners for point in model.hook_points.values())
        assert torch.equal(pool.submit(model, random_tokens()).result(), model(random_tokens()))


def test_a_generator_of_tokens_in_threads(smalltown):
    """One whose hooks stand around the iteration, each step in whatever thread comes."""
    expected = smalltown.generate("Once upon a time", max_new_tokens=6, seed=3)[0, -6:].tolist()
    with ThreadPoolExecutor(3) as pool:
        stream = smalltown.stream("Once upon a time", max_new_tokens=6, seed=3)
        assert [int(pool.submit(next, stream).result()) for _ in range(6)] == expected


def test_a_gradient_that_comes_in_another_thread_is_heard(expected):
    model, seen = tiny(), []

    def note(gradient: Tensor, hook: interp.HookPoint) -> None:
        seen.append((gradient.clone(), hook.positions.tolist(), attached_hooks(model)))

    with torch.enable_grad(), model.backward_hooks({NAME: note}):
        loss = model(random_tokens(1, 10, 1))[0, -1, 3]
        model(random_tokens(1, 3))  # a later run stands elsewhere
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
    ((gradient, positions, attached),) = seen
    assert torch.equal(gradient, expected["backward", 1])
    assert positions == [list(range(10))]
    assert attached == [NAME]


def test_a_copy_of_a_model_has_no_hooks_of_its_own():
    from copy import deepcopy

    model = tiny()
    with model.hooks({NAME: lambda value, hook: value * 0}):
        copied = deepcopy(model)
        model(random_tokens())
        assert attached_hooks(copied) == []
        assert torch.equal(copied(random_tokens()), tiny()(random_tokens()))
    with copied.hooks({NAME: lambda value, hook: value * 0}):
        assert not torch.equal(copied(random_tokens()), model(random_tokens()))


@pytest.mark.parametrize("change", [lambda v: v.resize_(1), lambda v: v.unsqueeze_(0), lambda v: v.transpose_(0, 1)])
def test_a_shape_changed_in_place_is_named(change):
    model = tiny()

    def hook(value: Tensor, point: interp.HookPoint) -> None:
        change(value)

    with pytest.raises(HookError, match=rf"the hook at {NAME} returned shape"), model.hooks({NAME: hook}):
        model(random_tokens())
