"""`HookedTransformer` on a model of ours."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

import interp
from interp.errors import ConfigError, HookError, TokenError
from interp.loading.devices import device_there
from interp.names import Selection
from interp.prompts import as_ids
from interp.tokenizer import PAD, Tokenizer
from interp.transformer_lens.cache import ActivationCache
from interp.transformer_lens.config import HookedTransformerConfig, dtype_of
from interp.transformer_lens.loading import WITHOUT_BOS, apart, freeze_fixed, initialised, only, processed, source_of
from interp.transformer_lens.points import TOKENS, HookFunction, WithHooks, checked_pairs
from interp.transformer_lens.slices import Slice, SliceInput
from interp.transformer_lens.states import WithStates
from interp.transformer_lens.texts import Side, Texts, WithTexts
from interp.transformer_lens.utils import get_device, lm_cross_entropy_loss
from interp.transformer_lens.weights import WithWeights
from interp.whole_numbers import whole_number, whole_numbers

Returned = Literal["logits", "loss", "both"]
Input = Texts | Tensor


class Output(NamedTuple):
    """What a run with `return_type="both"` returns."""

    logits: Tensor
    loss: Tensor


class HookedTransformer(WithStates, WithHooks, WithTexts, WithWeights):
    """A model with TransformerLens' names, defaults and return values.

    Args:
        cfg: of a fresh model: its fields, or a dictionary of them.
        tokenizer: for text: an `interp.Tokenizer`, one of the `tokenizers` library, or a fast one of `transformers`.
        move_to_device: put the weights on `cfg.device`.
        default_padding_side: where shorter rows of texts are filled.

    Attributes:
        core: the model of ours that runs; its weights are these.

    Raises:
        ConfigError: a configuration that our model does not have.
    """

    def __init__(
        self,
        cfg: HookedTransformerConfig | dict[str, Any],
        tokenizer: object = None,
        move_to_device: bool = True,
        default_padding_side: Side = "right",
    ) -> None:
        cfg = cfg if isinstance(cfg, HookedTransformerConfig) else HookedTransformerConfig.from_dict(cfg)
        given = None if tokenizer is None else Tokenizer.of(tokenizer)
        if cfg.d_vocab == -1:
            if given is None:
                raise ConfigError("HookedTransformerConfig.d_vocab is needed where there is no tokenizer.")
            cfg.d_vocab = len(given)
            cfg.d_vocab_out = cfg.d_vocab if cfg.d_vocab_out == -1 else cfg.d_vocab_out
        core = interp.Transformer(cfg.architecture(), tokenizer=given, name=cfg.model_name, seed=0)
        if cfg.init_weights:
            initialised(core, cfg.initializer_range, cfg.seed)
        fixed = (".ln", "ln_final") if cfg.normalization_type in ("LNPre", "RMSPre") else ()
        freeze_fixed(core, (*fixed, "mlp.gate.bias"))
        self._fill(core.to(cfg.dtype), cfg, default_padding_side)
        if move_to_device:
            self.to(cfg.device)

    def _fill(self, core: interp.Transformer, cfg: HookedTransformerConfig, side: Side) -> None:
        super().__init__()
        self.core, self.cfg, self.default_padding_side = core, cfg, side
        if core.tokenizer is not None:
            self.set_tokenizer(core.tokenizer)
        self.open_points()

    @classmethod
    def from_pretrained(
        cls,
        model_name: object,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        refactor_factored_attn_matrices: bool = False,
        hf_model: object = None,
        device: torch.device | str | None = None,
        tokenizer: object = None,
        fold_value_biases: bool = True,
        default_prepend_bos: bool | None = None,
        default_padding_side: Side = "right",
        dtype: torch.dtype | str = torch.float32,
        revision: str | None = None,
        **others: Any,
    ) -> "HookedTransformer":
        """A model with its weights processed, in evaluation mode; its parameters require gradients.

        Args:
            model_name: a name of TransformerLens' (`gpt2-small`), or anything that `interp.load` takes, or a model of ours.
            fold_ln, center_writing_weights, center_unembed, fold_value_biases: see `interp.processing`; what would change the model is
                left out, with a warning.
            hf_model: a `transformers` model in memory, whose weights are taken instead.
            device: None is the accelerator where there is one.
            default_prepend_bos: whether texts begin with BOS; None is what theirs do: yes, but for GPT-NeoX (Pythia), Qwen 2 and 3.
            dtype: of the weights, or its name.
            others: `n_devices=1`, `move_to_device=True` and the like may be said.

        Raises:
            CheckpointError: as `interp.load`. ConfigError: `refactor_factored_attn_matrices`, which is not done here; an option that is
                none, or not done here; a device that is not there.
        """
        dtype = dtype_of(others.pop("torch_dtype", dtype))
        only(
            "from_pretrained",
            others,
            n_devices=1,
            move_to_device=True,
            checkpoint_index=None,
            checkpoint_value=None,
            first_n_layers=None,
        )
        if refactor_factored_attn_matrices:
            raise ConfigError("from_pretrained: refactor_factored_attn_matrices is not done here; leave it False.")
        source = source_of(model_name) if hf_model is None else hf_model
        found = (
            source
            if isinstance(source, interp.Transformer)
            else interp.load(source, revision=revision, tokenizer=tokenizer)
        )
        if isinstance(source, interp.Transformer) and tokenizer is not None:
            found = apart(found)
            found.tokenizer = Tokenizer.of(tokenizer)
        place = get_device() if device is None else str(device_there(device, ConfigError))
        core, folded = processed(
            apart(found).float() if found.dtype in (torch.float16, torch.bfloat16) else found,
            fold_ln=fold_ln,
            center_writing_weights=center_writing_weights,
            center_unembed=center_unembed,
            fold_value_biases_too=fold_value_biases,
        )
        name = model_name if isinstance(model_name, str) else found.name
        cfg = HookedTransformerConfig.of(
            found.config, name, device=place, dtype=dtype,
            default_prepend_bos=found.format not in WITHOUT_BOS if default_prepend_bos is None else default_prepend_bos,
        )  # fmt: skip
        cfg.normalization_type = f"{cfg.normalization_type}Pre" if folded else cfg.normalization_type
        freeze_fixed(core, (".ln1.", ".ln2.", "ln_final.") if folded else ())
        made = cls.__new__(cls)
        made._fill(core.to(dtype), cfg, default_padding_side)
        return made.to(place).eval()

    @classmethod
    def from_pretrained_no_processing(cls, model_name: object, **options: Any) -> "HookedTransformer":
        """As `from_pretrained`, the weights as they are in the checkpoint."""
        off = dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False)
        return cls.from_pretrained(model_name, **(off | options))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.core.device

    def to(self, *where: Any, print_details: bool = True, **options: Any) -> "HookedTransformer":
        """To a device, a dtype, or both, as of any module of torch's; `print_details` is taken, and nothing is printed.

        Raises:
            ConfigError: a device that is not there.
        """
        for place in (*where, options.get("device")):
            if isinstance(place, (str, torch.device)):
                device_there(place, ConfigError)
        super().to(*where, **options)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> "HookedTransformer":
        """What `to`, `cuda` and the like go through; the configuration follows."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.cfg.device, self.cfg.dtype = str(self.core.device), self.core.dtype
        return self

    def _read(
        self, input: Input, prepend_bos: bool | None, padding_side: Side | None, attention_mask: Tensor | None
    ) -> tuple[Tensor, Bool[Tensor, "batch position"] | None]:
        """The ids of an input, and where a token stands (None: everywhere).

        Padding on the right is run as the tokens that it is, which no position before it sees; padding on the left is not seen.
        """
        left = self._side(padding_side) == "left" and self.core.tokenizer is not None
        if isinstance(input, Tensor):
            tokens = as_ids(input[None] if input.ndim == 1 else input).to(self.core.device)
            real = self._beyond_padding(tokens, prepend_bos) if left and attention_mask is None else None
        else:
            rows = self._rows(input, prepend_bos, padding_side).to(self.core.device)
            tokens, real = rows.masked_fill(rows == PAD, self.pad_id), rows != PAD if left else None
        real = real if attention_mask is None else self._mask(attention_mask, tokens)
        if tokens.ndim == 2 and tokens.numel() and int(tokens.max()) >= self.cfg.d_vocab:
            raise TokenError(
                f"token id {int(tokens.max())} is out of range: the model has ids 0 to {self.cfg.d_vocab - 1}."
            )
        return tokens, None if real is None or bool(real.all()) else real

    def _mask(self, given: Any, rows: Tensor) -> Bool[Tensor, "batch position"]:
        """Where a token stands, of a mask [batch, position]. Raises TokenError for another shape."""
        if not isinstance(given, Tensor) or given.shape != rows.shape[:2]:
            found = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise TokenError(f"attention_mask must be a tensor of shape {tuple(rows.shape[:2])}, got {found}.")
        return given.bool().to(self.core.device)

    def _beyond_padding(self, tokens: Tensor, prepend_bos: bool | None) -> Tensor:
        """False at ids of padding before a row's first other one; where BOS is the same id, the last of them is BOS."""
        real = (tokens != self.pad_id).cumsum(1) > 0
        if self._prepends(prepend_bos) and self.bos_id == self.pad_id:
            real = real | torch.cat([real[:, 1:], torch.ones_like(real[:, :1])], dim=1)
        return real

    def _layers(self, start_at_layer: int | None, stop_at_layer: int | None) -> tuple[int, int]:
        """The first block that runs, and the one after the last; negative ones count from the end, as in a slice."""
        given = [
            None if one is None else whole_number(one, "a layer", ConfigError)
            for one in (start_at_layer, stop_at_layer)
        ]
        start, stop, _ = slice(*given).indices(self.cfg.n_layers)
        return start, stop

    def forward(
        self,
        input: Input,
        return_type: Returned | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        start_at_layer: int | None = None,
        tokens: Tensor | None = None,
        attention_mask: Tensor | None = None,
        stop_at_layer: int | None = None,
        **others: Any,
    ) -> Any:
        """Run the model.

        Args:
            input: a text, several, or ids, -1 where there is no token; with `start_at_layer` the stream that enters that block.
            return_type: `logits` [batch, position, d_vocab_out], `loss`, `both`, or None for nothing.
            loss_per_token: [batch, position - 1] instead of the mean.
            prepend_bos, padding_side: see `to_tokens`; nothing is prepended to ids.
            tokens: with `start_at_layer`, what the loss is of.
            attention_mask: 0 at padding, which nobody sees and where the logits are NaN, as at ids of -1.
            stop_at_layer: return the stream that enters that block (after the last: the number of layers).

        Raises:
            TokenError, ConfigError: what the model cannot take, such as `past_kv_cache`.
        """
        only("forward", others, past_kv_cache=None, past_left_pos_offset=None, shortformer_pos_embed=None)
        if return_type not in ("logits", "loss", "both", None):
            raise ConfigError(f"return_type must be 'logits', 'loss', 'both' or None, got {return_type!r}.")
        real = None
        if start_at_layer is None:
            tokens, real = self._read(input, prepend_bos, padding_side, attention_mask)
            ids = tokens if real is None else tokens.masked_fill(~real, PAD)
            real = self.core.check_tokens(ids)
            if self.cfg.use_hook_tokens:
                ids = self.core.hook_points[TOKENS](ids)
                real = self.core.check_tokens(ids)
            residual = self.core.embed(ids)
        elif isinstance(input, Tensor) and input.is_floating_point():
            residual, real = input, None if attention_mask is None else self._mask(attention_mask, input)
        else:
            raise TokenError(
                "start_at_layer: the input must be the stream [batch, position, d_model] that enters that block."
            )
        start, stop = self._layers(start_at_layer, stop_at_layer)
        residual = self.core.run_blocks(residual, start_at_layer=min(start, stop), stop_at_layer=stop, real=real)
        self._runs += 1
        if stop_at_layer is not None:
            return residual
        normed = self.core.ln_final(residual)
        if return_type is None:
            return None
        logits = self.core.to_logits(normed, slice(0, self.cfg.d_vocab_out))
        logits = logits if real is None else logits.masked_fill(~real[..., None], torch.nan)
        if return_type == "logits":
            return logits
        if tokens is None:
            raise TokenError("return_type: a loss with start_at_layer needs tokens=.")
        loss = lm_cross_entropy_loss(logits, tokens, real, loss_per_token)
        if return_type == "loss":
            return loss
        return Output(logits, loss)

    def loss_fn(
        self, logits: Tensor, tokens: Tensor, attention_mask: Tensor | None = None, per_token: bool = False
    ) -> Tensor:
        """See `utils.lm_cross_entropy_loss`."""
        return lm_cross_entropy_loss(logits, tokens.to(logits.device), attention_mask, per_token)

    def _reached(self, start_at_layer: int | None = None, stop_at_layer: int | None = None, **_: Any) -> list[str]:
        """The hook points that a run with these layers reaches."""
        start, stop = self._layers(start_at_layer, stop_at_layer)
        return [name for name in self.hook_dict if self._reaches(name, start_at_layer, start, stop_at_layer, stop)]

    @staticmethod
    def _reaches(name: str, started: int | None, start: int, stopped: int | None, stop: int) -> bool:
        if name.startswith("blocks."):
            return start <= int(name.split(".")[1]) < stop
        return stopped is None if name.startswith("ln_final.") else started is None

    def run_with_cache(
        self,
        *args: Any,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        names_filter: Selection = None,
        device: torch.device | str | None = None,
        incl_bwd: bool = False,
        pos_slice: SliceInput = None,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, ActivationCache | dict[str, Tensor]]:
        """What `forward` returns, and the activations by name, detached.

        Args:
            return_cache_object: False is a dictionary of them.
            remove_batch_dim: of a single row.
            names_filter: names, globs, a list or a predicate; None is all that the run reaches.
            device: where to keep them.
            incl_bwd: run backward from what is returned (a loss), and keep gradients as `..._grad` too.
            pos_slice: only these positions (of attention, queries).
            reset_hooks_end: is taken: what looks for the cache always leaves, and hooks that were added stay.
            clear_contexts: empty what hooks kept at their points.

        Raises:
            HookError: a filter that matches nothing; `remove_batch_dim` of several rows.
        """
        names = self.names(names_filter, "run_with_cache", self._reached(**kwargs))
        place = None if device is None else device_there(device, HookError)
        slopes: dict[str, Tensor] = {}

        def keep(gradient: Tensor, hook: interp.HookPoint) -> None:
            slopes[f"{hook.name}_grad"] = gradient.detach()

        with ExitStack() as stack:
            if incl_bwd:
                stack.enter_context(self.core.backward_hooks([(self.with_gradients(names), keep)]))
            with self.core.capture(names) as values:
                out = self(*args, **kwargs)
            if incl_bwd:
                if not isinstance(out, Tensor) or out.numel() != 1:
                    raise HookError(
                        "run_with_cache: incl_bwd needs one number to run backward from: return_type='loss'."
                    )
                out.backward()  # type: ignore[no-untyped-call]
        kept = {name: values[name].detach() for name in names if name in values} | slopes
        at = Slice(pos_slice)
        kept = {name: at.apply(value, self._position_axis(name)) for name, value in kept.items()}
        kept = {name: value if place is None else value.to(place) for name, value in kept.items()}
        cache = ActivationCache(kept, self)
        cache = cache.remove_batch_dim() if remove_batch_dim else cache
        if clear_contexts:
            self.clear_contexts()
        return out, cache if return_cache_object else cache.cache_dict

    def _position_axis(self, name: str) -> int:
        axes = self.core.hook_points[name.removesuffix("_grad")].axes
        return axes.index("query" if "query" in axes else "position")

    def run_with_hooks(
        self,
        *args: Any,
        fwd_hooks: Sequence[tuple[Selection, HookFunction]] = (),
        bwd_hooks: Sequence[tuple[Selection, HookFunction]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **kwargs: Any,
    ) -> Any:
        """What `forward` returns with hooks attached while it runs.

        Args:
            fwd_hooks, bwd_hooks: pairs of names (or a predicate) and a function, see `add_hook`.
            reset_hooks_end: take them away afterwards; for hooks on gradients, which come later, False or a `with model.hooks(...)`.

        Raises:
            HookError: a name that is none or that this run does not reach, a hook that was never called.
        """
        reached = self._reached(**kwargs)
        fwd, bwd = (
            [
                (self.names(selection, "run_with_hooks", reached), function)
                for selection, function in checked_pairs(given)
            ]
            for given in (fwd_hooks, bwd_hooks)
        )
        bwd = [(self.with_gradients(names), function) for names, function in bwd]
        with self.hooks(fwd, bwd, reset_hooks_end, clear_contexts):
            return self(*args, **kwargs)

    def generate(
        self,
        input: Input = "",
        max_new_tokens: int = 10,
        stop_at_eos: bool = True,
        eos_token_id: int | Sequence[int] | None = None,
        do_sample: bool = True,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float = 1.0,
        freq_penalty: float = 0.0,
        use_past_kv_cache: bool = True,
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        return_type: Literal["input", "str", "tokens"] = "input",
        verbose: bool = True,
    ) -> Any:
        """Continue prompts.

        Draws are seeded by torch's global generator (`torch.manual_seed`). Rows that have ended are filled with the end-of-text token,
        shorter prompts on their left.

        Args:
            do_sample: False takes the most probable token.
            return_type: text (without special tokens), ids, or as the input was.
            verbose: is taken, and nothing is printed.

        Raises:
            ConfigError: `freq_penalty`, which is not done here. TokenError: a text beyond the context, or no token to stop at.
        """
        if freq_penalty:
            raise ConfigError("generate: freq_penalty is not done here; leave it 0.")
        if return_type not in ("input", "str", "tokens"):
            raise ConfigError(f"generate: return_type must be 'input', 'str' or 'tokens', got {return_type!r}.")
        if isinstance(input, Tensor):
            left = self._side(padding_side) == "left" and self.core.tokenizer is not None
            tokens, real = self._read(input, prepend_bos, padding_side if left else "right", None)
            rows = tokens if real is None else tokens.masked_fill(~real, PAD)
        else:
            rows = self._rows(input, prepend_bos, "left").to(self.core.device)
        stops = self._stops(eos_token_id) if stop_at_eos else []
        seed = int(torch.randint(2**31, ()))
        steps = self.core.stream(
            rows, max_new_tokens=max_new_tokens, temperature=temperature if do_sample else 0.0, top_k=top_k, top_p=top_p,
            seed=seed, stop=stops, use_cache=use_past_kv_cache,
        )  # fmt: skip
        whole = torch.cat([rows, *(step[:, None] for step in steps)], dim=1)
        self._runs += 1
        if bool((whole == PAD).any()) and (stops or self.core.tokenizer is not None):
            whole = whole.masked_fill(whole == PAD, stops[0] if stops else self.pad_id)
        if return_type == "tokens" or (return_type == "input" and isinstance(input, Tensor)):
            return whole
        tokenizer = self.core.need_tokenizer()
        special = {i for i in (tokenizer.bos, tokenizer.eos, tokenizer.opening, *stops) if i is not None}
        texts = [tokenizer.decode([i for i in row if i not in special]) for row in whole.tolist()]
        return texts[0] if len(texts) == 1 and not isinstance(input, list) else texts

    def _stops(self, given: int | Sequence[int] | Tensor | None) -> list[int]:
        if given is not None:
            return whole_numbers(given, "generate: eos_token_id")
        eos = None if self.core.tokenizer is None else self.core.tokenizer.eos
        if eos is None:
            raise TokenError(
                "generate: there is no end-of-text token to stop at; give eos_token_id=, or stop_at_eos=False."
            )
        return [eos]
