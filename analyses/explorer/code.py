"""A view as Python: the library's own calls, which give the numbers that the page shows."""

from collections.abc import Iterator

from analyses.explorer.asked import Asked
from analyses.explorer.changes import point_of
from analyses.explorer.figures import EDGES
from analyses.explorer.measures import TOP
from analyses.explorer.state import Change, State
from interp.model import Transformer

HEAD = """\
import torch

import analyses
import interp
from interp.geometry import seen
from interp.metrics import kl_divergence, log_probabilities
from interp.sweep import Add, Intervention, Patch, Row, Set
from interp.sweep.readouts import Logits
"""

ALONG = '''
def along(vector, stream, times):
    """A vector brought to so many times the length of the stream at each position."""
    vector = seen(model.config, vector.double())
    size = seen(model.config, stream).norm(dim=-1, keepdim=True)
    return times * size * (vector / vector.norm()).to(stream)


def drawn(seed):
    """A random direction [1, d_model]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, model.config.d_model, generator=generator, dtype=torch.float64)


def unembedded(token):
    """The direction [d_model] of a token's logit."""
    return model.W_U[:, model.to_single_token(token)]

'''


def as_python(
    model: Transformer, asked: Asked, state: State, *, shipped: bool, steps: int = 0, circuit: bool = False
) -> str:
    """Code that measures what the page shows of a state.

    Args:
        shipped: whether a tuned lens comes with the package for this model.
        steps: of the sampled texts; 0 leaves them out.
        circuit: whether every edge was patched.
    """
    parts = [_views(asked, state, shipped), _circuit(circuit), _changed(model, asked, state), _sampled(state, steps)]
    return "\n".join([HEAD, *(line for part in parts for line in part)]) + "\n"


def _views(asked: Asked, state: State, shipped: bool) -> Iterator[str]:
    two = bool(state.corrupt)
    yield f"model = interp.load({state.model!r})"
    yield f"clean = {state.clean!r}"
    if two:
        yield f"corrupt = {state.corrupt!r}"
    yield f"answer = {_token(state.answer, asked.answer)}"
    if asked.wrong is not None:
        yield f"wrong = {_token(state.wrong, asked.wrong)}"
    texts = {"": "clean"} | ({"_corrupt": "corrupt"} if two else {})
    yield ""
    for suffix, text in texts.items():
        yield f"lens{suffix} = analyses.logit_lens(model, {text}, top_k=min({TOP}, model.config.d_vocab))"
        if shipped:
            yield f"tuned{suffix} = analyses.tuned_lens(model, {text})"
        yield f"attention{suffix} = analyses.attention_patterns(model, {text})"
        yield f"pattern{suffix} = attention{suffix}['pattern'][0].sel(layer={state.layer}, head={state.head})"
    compared = "answer=answer" + ("" if asked.wrong is None else ", wrong=wrong")
    if two and asked.wrong is not None and asked.aligned:
        how = "noising" if state.base == "clean" else "denoising"
        yield "patching = analyses.activation_patching("
        yield f"    model, clean, corrupt, {compared}, site={state.site!r}, direction={how!r}"
        yield ")"
    yield f"attribution = analyses.direct_logit_attribution(model, clean, {compared})"


def _circuit(computed: bool) -> Iterator[str]:
    if computed:
        yield "edges = analyses.edge_patching(model, clean, corrupt, answer=answer, wrong=wrong)"
        yield f"circuit = analyses.Circuit.from_scores(edges, count=min({EDGES}, edges.sizes['edge']))"


def _token(text: str, token: int) -> str:
    return repr(text) if text else f"{token}"


def _changed(model: Transformer, asked: Asked, state: State) -> Iterator[str]:
    base, other = state.base, "clean" if state.base == "corrupt" else "corrupt"
    if not state.changes:
        return
    yield ALONG
    yield f"tokens = model.to_tokens({base})  # of the run that is changed"
    patched = sorted({point_of(one) for one in state.changes if one.kind == "patch"})
    added = sorted({point_of(one) for one in state.changes if one.spreads})
    if patched:
        yield f"there = model.run_with_cache(model.to_tokens({other}), names={patched!r})[1]"
    if added:
        yield f"here = model.run_with_cache(tokens, names={added!r})[1]"
    yield "changes = ["
    yield from (f"    {_intervention(one)},  # {_comment(one)}" for one in state.changes)
    yield "]"
    yield f"on = {[number for number, one in enumerate(state.changes) if one.on]!r}"
    yield "rows = [Row([one]) for one in changes] + [Row([changes[number] for number in on])]"
    yield "swept = interp.sweep(model, tokens, rows, Logits())"
    yield "log_p = log_probabilities(swept.values)  # [row, vocab]: each change alone, then those that are on together"
    compared = " - log_p[:, model.to_single_token(wrong)]" if asked.wrong is not None else ""
    yield f"metric = log_p[:, model.to_single_token(answer)]{compared}"
    yield "kl = kl_divergence(log_probabilities(swept.base).expand_as(log_p), log_p)"
    spread = [one for one in state.changes if one.kind == "inject" and one.on]
    if spread:
        one = spread[-1]
        options = f"dose={one.amount!r}, layer={one.layer}, directions=drawn({one.seed}), n_directions=1, positions=[{one.position}]"
        yield f"cone = analyses.cascade.light_cone(model, {base}, {options})"
        yield f"gain = analyses.cascade.gain(model, {base}, {options})"


def _intervention(one: Change) -> str:
    name = point_of(one)
    place = "" if one.position is None else f", {one.position}"
    if one.kind == "ablate":
        return f"Intervention({name!r}, Set(0.0){place}, heads={one.head})"
    if one.kind == "patch":
        head = f", heads={one.head}" if one.site == "z" else ""
        return f"Intervention({name!r}, Patch(there[{name!r}][0]){place}{head})"
    vector = f"drawn({one.seed})[0]"
    if one.kind == "steer":
        vector = f"unembedded({one.toward!r})" + (f" - unembedded({one.away!r})" if one.away else "")
    stream = f"here[{name!r}][0]" + ("" if one.position is None else f"[{one.position}]")
    return f"Intervention({name!r}, Add(along({vector}, {stream}, {one.amount!r})){place})"


def _comment(one: Change) -> str:
    """In words on one line, whatever a token holds."""
    return one.named.encode("unicode_escape").decode() + ("" if one.on else "; off")


def _sampled(state: State, steps: int) -> Iterator[str]:
    if steps and state.corrupt:
        yield "texts = analyses.cascade.coupled("
        yield "    model, clean, analyses.cascade.Replace([corrupt]),"
        yield f"    seeds=1, steps={steps}, temperature={state.temperature!r}, seed={state.seed},"
        yield ")"
