"""The attention map of one layer, while every other layer stays on the fast path.

A transformers model that returns attentions runs all layers on the eager path and keeps every map.
The attention function registered here uses `sdpa` for all layers except the recorded one, which
computes its probabilities itself. It also lays out packed tokens for attention
(:mod:`xlt_ray.encoders.packing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from xlt_ray.encoders.dropout import dropout as drop

if TYPE_CHECKING:
    from xlt_ray.encoders.packing import TokenPacking

_IMPLEMENTATION = "xlt_ray_one_map"
_calls: list[nn.Module] | None = None


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend by `sdpa`, or with recorded probabilities where a recorder sits on the module."""
    if _calls is not None:
        _calls.append(module)
    packing: TokenPacking | None = getattr(module, "token_packing", None)
    if packing is not None and packing.active:
        query, key, value = (packing.unpack_heads(part) for part in (query, key, value))
    recorder: AttentionRecorder | None = getattr(module, "attention_recorder", None)
    if recorder is not None and recorder.wants_this_call():
        output = recorder.attend(query, key, value, attention_mask, dropout, scaling)
    else:
        output = attend(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    return output if packing is None or not packing.active else packing.pack(output), None


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    **kwargs: Any,
) -> Tensor:
    """Attend by `sdpa`; with dropout on a CPU by what it would compute, but faster.

    Torch's CPU kernels know no dropout: `sdpa` then computes in float32 and draws slowly.

    Args:
        module: The attention module.
        query: (batch, heads, queries, size).
        key: (batch, heads, tokens, size).
        value: (batch, heads, tokens, size).
        attention_mask: Boolean, true where attention goes, or added to the scores.
        dropout: Probability that a weight is dropped, in [0, 1].
        scaling: Factor of the scores; None: 1 / √size.
        kwargs: Further arguments of the attention interface of transformers.

    Returns:
        The attention's output (batch, queries, heads, size).
    """
    if dropout and query.device.type == "cpu" and _is_plain(module, kwargs):
        return _weighted_sum(_probabilities(query, key, attention_mask, scaling), value, dropout)
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return output


def _probabilities(
    query: Tensor, key: Tensor, attention_mask: Tensor | None, scaling: float | None
) -> Tensor:
    """Return the softmax probabilities, float32 (batch, heads, tokens, tokens)."""
    key = _for_each_head(key, query.size(1))
    scores = (query * (scaling or query.size(-1) ** -0.5)) @ key.transpose(-2, -1)
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + attention_mask
    return scores.softmax(dim=-1, dtype=torch.float32)


def _weighted_sum(probabilities: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Return the attention's output (batch, tokens, heads, size)."""
    weights = probabilities.to(value.dtype)
    if dropout:
        weights = drop(weights, dropout)
    value = _for_each_head(value, weights.size(1))
    return (weights @ value).transpose(1, 2).contiguous()


def _for_each_head(states: Tensor, heads: int) -> Tensor:
    """Repeat keys or values that groups of query heads share: (batch, heads, tokens, size)."""
    groups = heads // states.size(1)
    return states if groups == 1 else states.repeat_interleave(groups, dim=1)


def _is_plain(module: nn.Module, further: dict[str, Any]) -> bool:
    """Whether the mask alone says what attends to what, and each head has keys of its own."""
    return (
        getattr(module, "num_key_value_groups", 1) == 1
        and getattr(module, "is_causal", True) is False
        and not further.get("is_causal")
        and further.get("position_bias") is None
    )


AttentionInterface.register(_IMPLEMENTATION, _attention)
AttentionMaskInterface.register(_IMPLEMENTATION, sdpa_mask)


class AttentionRecorder:
    """Keeps the attention probabilities of one layer, for a forward pass in its ``with`` block.

    Outside of such a block, as in evaluation, that layer too is on the fast path.

    Models outside transformers' attention interface (DeBERTa, for example) have no such hook; for
    them ``native`` is true. The map is then what the layer's attention dropout gets, and where no
    dropout gets maps, the caller has to ask the model for all attentions.

    Args:
        encoder: The model; its attention implementation is changed in place.
        layer: Which self-attention layer, counted from 0 in the order of the forward pass.

    Raises:
        IndexError: If the encoder has no such layer.
    """

    def __init__(self, encoder: PreTrainedModel, layer: int) -> None:
        self.layer = layer
        self.enabled = False
        # Layers that share their weights (ALBERT) are calls of one module.
        self._call, self._wanted_call, self._calls_per_pass = 0, 0, 1
        self.native = not encoder._supports_attention_backend
        self.probabilities: Tensor | None = None
        """Softmax probabilities before dropout, float32 (batch, heads, tokens, tokens)."""
        if self.native:
            if layer >= encoder.config.num_hidden_layers:
                raise IndexError(
                    f"layer {layer} of an encoder with {encoder.config.num_hidden_layers} layers"
                )
            encoder.set_attn_implementation("eager")
            for module in encoder.modules():
                if isinstance(module, nn.Dropout):
                    module.register_forward_pre_hook(self._see)
            return
        modules = attention_modules(encoder)
        if layer >= len(modules):
            raise IndexError(f"layer {layer} of an encoder with {len(modules)} layers")
        self._wanted_call = modules[:layer].count(modules[layer])
        self._calls_per_pass = modules.count(modules[layer])
        modules[layer].attention_recorder = self  # type: ignore[assignment]

    def __enter__(self) -> AttentionRecorder:
        self.enabled = True
        self._call = 0
        return self

    def __exit__(self, *exception: object) -> None:
        self.enabled = False

    def _see(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Keep what a dropout gets if it is the map of the layer."""
        if not self.enabled:
            return
        shape = inputs[0].shape
        # ConvBERT has fewer heads than its configuration says.
        if len(shape) == 4 and shape[2] == shape[3]:
            if self._call == self.layer:
                self.probabilities = inputs[0]
            self._call += 1

    def wants_this_call(self) -> bool:
        """Return whether to record the module's current call; called once per call."""
        if not self.enabled:
            return False
        call, self._call = self._call, (self._call + 1) % self._calls_per_pass
        return call == self._wanted_call

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float,
        scaling: float | None,
    ) -> Tensor:
        """Attend as `sdpa` does, and keep the probabilities.

        Returns:
            The attention's output (batch, tokens, heads, size).
        """
        self.probabilities = _probabilities(query, key, attention_mask, scaling)
        return _weighted_sum(self.probabilities, value, dropout)

    def take(self, all_maps: Sequence[Tensor] | None = None) -> Tensor:
        """Return the last forward pass's map and release it.

        Args:
            all_maps: The maps of all layers that a ``native`` model returned, which serve if none
                was recorded.
        """
        probabilities, self.probabilities = self.probabilities, None
        if probabilities is None and self.native:
            assert all_maps is not None, "the model returned no maps"
            return all_maps[self.layer]
        assert probabilities is not None, "no forward pass was recorded"
        return probabilities


def attention_modules(encoder: PreTrainedModel) -> list[nn.Module]:
    """Set an encoder's attention to this module's and return its attention modules.

    Returns:
        The self-attention modules in the order in which a forward pass calls them.
    """
    global _calls
    encoder.set_attn_implementation(_IMPLEMENTATION)
    training = encoder.training
    device = next(encoder.parameters()).device
    _calls = []
    try:
        with torch.no_grad():
            encoder.eval()
            tokens = torch.zeros((1, 2), dtype=torch.long, device=device)
            encoder(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        return _calls
    finally:
        _calls = None
        encoder.train(training)
