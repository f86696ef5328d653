"""Compute only what a classification needs of a padded batch; the objective and prediction use it.

About a fifth of a padded batch is padding, because the lengths of its texts and views differ. All
parts of a layer except attention work token by token. The layers therefore get the real tokens of
all texts in one row, and the attention function (:mod:`xlt_ray.encoders.attention`) lays them out
as a padded batch. The head reads only the first token, so the last layer computes only that token's
output. Losses and gradients do not change.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from xlt_ray.encoders.attention import attend, attention_modules


class TokenPacking:
    """Packs the forward passes of a classifier in the blocks of :meth:`of`.

    An encoder allows it if its layers are one module between embeddings and head, go through
    transformers' attention interface, and give the same logits either way, which is tried once,
    here. Others are left as they are. Use :meth:`on` to make one.

    Args:
        classifier: A sequence classification model; its attention implementation is set to
            :mod:`xlt_ray.encoders.attention`'s.
    """

    def __init__(self, classifier: PreTrainedModel) -> None:
        self._tokens: Tensor | None = None
        self._first: Tensor | None = None
        self._shape = (0, 0)
        self._first_only = False
        self.supported = False
        """Whether :meth:`of` has an effect."""
        base = classifier.base_model
        stack = getattr(base, "encoder", None) or getattr(base, "transformer", None)
        if not isinstance(stack, nn.Module) or not classifier._supports_attention_backend:
            return
        for module in attention_modules(classifier):
            module.token_packing = self  # type: ignore[assignment]
        stack.register_forward_pre_hook(self._before_layers, with_kwargs=True)
        stack.register_forward_hook(self._after_layers)
        self.supported = True
        self.supported = self._changes_nothing(classifier)
        last = _last_bert_layer(stack)
        if self.supported and last is not None:
            whole = last.forward
            last.forward = functools.partial(self._last_layer, last, whole)
            if not self._changes_nothing(classifier):
                # Its head reads more than the first token.
                last.forward = whole

    @classmethod
    def on(cls, classifier: PreTrainedModel) -> TokenPacking:
        """The classifier's packing, made at the first call."""
        if not isinstance(getattr(classifier, "token_packing", None), cls):
            classifier.token_packing = cls(classifier)  # type: ignore[assignment]
        return classifier.token_packing  # type: ignore[return-value]

    @contextlib.contextmanager
    def of(self, tokens: Tensor | None, attention_mask: Tensor) -> Iterator[None]:
        """Pack the forward pass of a batch.

        Only the logits of the model's output are valid in this block.

        Args:
            tokens: Positions of the real tokens in the flattened batch, rising (real tokens,), as
                of :func:`xlt_ray.data.batching.pad_inputs`; None: do not pack.
            attention_mask: The mask that the model is given (batch, tokens), 1 for the first
                tokens of each text, 0 for the padding after them.
        """
        if tokens is not None and self.supported:
            ends = attention_mask.sum(1).cumsum(0)
            self._first = torch.cat([ends.new_zeros(1), ends[:-1]])
            self._tokens, self._shape = tokens, (attention_mask.size(0), attention_mask.size(1))
        try:
            yield
        finally:
            self._tokens = self._first = None
            self._first_only = False

    @property
    def active(self) -> bool:
        """Whether a packed forward pass is under way."""
        return self._tokens is not None

    def pack(self, padded: Tensor) -> Tensor:
        """Take out the real tokens: (batch, tokens, ...) to (1, real tokens, ...)."""
        return _Pack.apply(padded.flatten(0, 1), self._tokens).unsqueeze(0)

    def unpack(self, packed: Tensor) -> Tensor:
        """Lay out the real tokens: (1, real tokens, ...) to (batch, tokens, ...), 0 in padding."""
        rows = self._shape[0] * self._shape[1]
        padded = _Unpack.apply(packed.squeeze(0), self._tokens, rows)
        return padded.unflatten(0, self._shape)

    def unpack_heads(self, packed: Tensor) -> Tensor:
        """Likewise of queries, keys or values: (1, heads, real tokens, size) to (batch, ...)."""
        return self.unpack(packed.transpose(1, 2)).transpose(1, 2)

    def _before_layers(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not self.active:
            return None
        if arguments:
            return (self.pack(arguments[0]), *arguments[1:]), named
        return arguments, {**named, "hidden_states": self.pack(named["hidden_states"])}

    def _after_layers(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        if self._first_only:
            # A batch of texts of one token each, as far as the head can tell.
            output.last_hidden_state = output.last_hidden_state.transpose(0, 1)
        elif self.active:
            output.last_hidden_state = self.unpack(output.last_hidden_state)
        return output

    def _last_layer(
        self,
        layer: Any,
        whole: Callable[..., Tensor],
        hidden: Tensor,
        attention_mask: Tensor | None = None,
        *given: Any,
        **named: Any,
    ) -> Tensor:
        """The last layer's output, of the first tokens alone: (1, batch, hidden)."""
        attention = layer.attention.self
        recorder = getattr(attention, "attention_recorder", None)
        if not self.active or (recorder is not None and recorder.enabled):
            return whole(hidden, attention_mask, *given, **named)
        self._first_only = True
        assert self._first is not None
        first = hidden.index_select(1, self._first)
        heads = (-1, attention.attention_head_size)
        query = attention.query(first).transpose(0, 1).unflatten(-1, heads).transpose(1, 2)
        key, value = (
            self.unpack(projected(hidden)).unflatten(-1, heads).transpose(1, 2)
            for projected in (attention.key, attention.value)
        )
        context = attend(
            attention,
            query,
            key,
            value,
            None if attention_mask is None else attention_mask[:, :, :1],
            attention.dropout.p if attention.training else 0.0,
            attention.scaling,
        )
        attended = layer.attention.output(context.flatten(2).transpose(0, 1), first)
        output: Tensor = layer.output(layer.intermediate(attended), attended)
        return output

    @torch.no_grad()
    def _changes_nothing(self, classifier: PreTrainedModel) -> bool:
        """Whether a batch of two lengths gets the same logits packed."""
        device = next(classifier.parameters()).device
        mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=device)
        pad = classifier.config.pad_token_id or 0
        word = pad + 1 if pad + 1 < classifier.config.vocab_size else 0
        inputs = {"input_ids": torch.where(mask == 1, word, pad), "attention_mask": mask}
        training = classifier.training
        classifier.eval()
        try:
            expected = classifier(**inputs).logits
            with self.of(mask.flatten().nonzero().squeeze(1), mask):
                found = classifier(**inputs).logits
        except Exception:
            # Layers that know of positions fail on a row of another length in many ways.
            return False
        finally:
            classifier.train(training)
        return found.shape == expected.shape and torch.allclose(
            found, expected, rtol=1e-3, atol=1e-4
        )


def _last_bert_layer(stack: nn.Module) -> Any:
    """The last layer, if it is made of BERT's parts, as XLM-R's is too; else None."""
    layers = getattr(stack, "layer", None)
    last = layers[-1] if isinstance(layers, nn.ModuleList) and len(layers) else None
    parts = (
        *(f"attention.self.{name}" for name in ("query", "key", "value", "dropout")),
        *("attention.output", "intermediate", "output"),
    )
    try:
        for part in parts:
            assert last is not None
            last.get_submodule(part)
    except (AssertionError, AttributeError):
        return None
    return last


class _Pack(torch.autograd.Function):
    """Select rows; as each is selected once, the gradient is copied, not added."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.rows = len(padded)
        return padded.index_select(0, tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (tokens,) = ctx.saved_tensors
        whole = gradient.new_zeros(ctx.rows, *gradient.shape[1:])
        return whole.index_copy_(0, tokens, gradient), None


class _Unpack(torch.autograd.Function):
    """The reverse of :class:`_Pack`."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, tokens: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(tokens)
        return packed.new_zeros(rows, *packed.shape[1:]).index_copy_(0, tokens, packed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (tokens,) = ctx.saved_tensors
        return gradient.index_select(0, tokens), None, None
