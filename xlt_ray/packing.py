"""Run an encoder's layers on the real tokens of a batch alone.

A padded batch spends a fifth of its arithmetic on padding: texts of a bucket differ a little in
length, and a text and its virtual view do. All that a layer does but attention is done token by
token, so the layers are given the real tokens of all texts in one row, and only the attention
function, which is ours anyway, lays them out as a padded batch. Losses and gradients stay as they
are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from xlt_ray.attention import attention_modules


class TokenPacking:
    """Packs the forward passes in its ``with`` block, where the encoder allows it.

    An encoder allows it if its layers are a module ``encoder`` between embeddings and head, go
    through transformers' attention interface, and give the same logits either way, which is tried
    once, here. Others are left as they are, and ``supported`` is false.

    Args:
        classifier: A sequence classification model; its attention implementation is set to
            :mod:`xlt_ray.attention`'s.
    """

    def __init__(self, classifier: PreTrainedModel) -> None:
        self._tokens: Tensor | None = None
        self._shape = (0, 0)
        self.supported = False
        """Whether ``of`` has an effect."""
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

    @contextlib.contextmanager
    def of(self, tokens: Tensor | None, attention_mask: Tensor) -> Iterator[None]:
        """Pack the forward pass of a batch.

        Args:
            tokens: Positions of the real tokens in the flattened batch, rising (real tokens,), as
                of :func:`real_tokens`; None: do not pack.
            attention_mask: The mask that the model is given (batch, tokens).
        """
        if self.supported:
            self._tokens, self._shape = tokens, tuple(attention_mask.shape)  # type: ignore[assignment]
        try:
            yield
        finally:
            self._tokens = None

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
        return _Unpack.apply(packed.squeeze(0), self._tokens, rows).unflatten(0, self._shape)

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
        if self.active:
            output.last_hidden_state = self.unpack(output.last_hidden_state)
        return output

    @torch.no_grad()
    def _changes_nothing(self, classifier: PreTrainedModel) -> bool:
        """Whether a batch of two lengths gets the same logits packed."""
        device = next(classifier.parameters()).device
        pad = classifier.config.pad_token_id or 0
        mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=device)
        word = pad + 1 if pad + 1 < classifier.config.vocab_size else 0
        inputs = {"input_ids": torch.where(mask == 1, word, pad), "attention_mask": mask}
        training = classifier.training
        classifier.eval()
        try:
            expected = classifier(**inputs).logits
            with self.of(real_tokens(mask), mask):
                found = classifier(**inputs).logits
        except Exception:
            # Layers that know of positions fail on a row of another length in many ways.
            return False
        finally:
            classifier.train(training)
        return bool(torch.allclose(found, expected, rtol=1e-3, atol=1e-4))


def real_tokens(attention_mask: Tensor) -> Tensor:
    """Positions of a batch's real tokens.

    Args:
        attention_mask: 1 for real tokens, 0 for padding (batch, tokens). On a GPU this waits for
            the device; call it where the batch is made.

    Returns:
        Positions in the flattened batch, rising (real tokens,).
    """
    return attention_mask.flatten().nonzero().squeeze(1)


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
