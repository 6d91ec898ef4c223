"""The body of a model over rows, packed: every token that is computed is one that was read or sampled.

Rows of different lengths lie one behind the other in a single row, with positions that
begin anew, and attention stays within each of them. Nothing behind a row's last sampled
token is computed, for no log-prob depends on it. On a CPU, what all rows begin with (an
instruction, worked examples, the question of a group) is computed once, and each row
attends to it: the same log-probs and gradients from fewer tokens.

On a CPU attention runs row by row on the causal kernels, which is about six times as fast
as one kernel over all rows with a block-diagonal mask (9 heads of 64, rows of 200 to 2000
tokens, one thread). On a GPU it is one call of FlashAttention's kernel for
rows of different lengths, where flash-attn is installed and the format is 16 bits wide.

Rows that are padded are the other way, for models whose attention cannot be handed packed
ones, and for models of a few million parameters, which do better with few large products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_2_available

from search_agents.learning.attention import blockwise_attention, training_attention

__all__ = ["PackedRows", "pack_rows", "packed_states", "padded_states", "shared_beginning", "takes_packed_rows"]

_Attention = Callable[[], AbstractContextManager[None]]

_NAME = "search_agents_packed"  # in the registry of transformers; a name without a mask function gets no mask


class PackedRows(NamedTuple):
    """Rows, one behind the other. Let T be their tokens that are computed, and N those that are predicted."""

    input_ids: torch.Tensor
    """[1, T]"""
    position_ids: torch.Tensor
    """[1, T]"""
    shared: int
    """Tokens at the front that all rows begin with."""
    lengths: list[int]
    """Tokens of each row behind those, none of them 0."""
    predicts: torch.Tensor
    """True where the next token of the row was sampled, [T]."""
    targets: torch.Tensor
    """Those next tokens, [N]."""


def shared_beginning(input_ids: torch.Tensor, action_mask: torch.Tensor) -> int:
    """How many tokens all rows begin with that need to be computed only once.

    None of them is sampled or predicts a sampled one, so each row keeps a token of its own. On a GPU the kernel for
    packed rows takes no shared tokens: 0.

    Args:
        input_ids: [rows, tokens].
        action_mask: True where the policy sampled the token, [rows, tokens].
    """
    if input_ids.device.type != "cpu" or len(input_ids) < 2:
        return 0
    own = (input_ids != input_ids[0]).any(dim=0)
    own[:-1] |= action_mask[:, 1:].any(dim=0)
    own[-1] = True
    return int(own.int().argmax())


def pack_rows(input_ids: torch.Tensor, action_mask: torch.Tensor) -> PackedRows:
    """Pack rows that are padded on the right.

    Args:
        input_ids: [rows, tokens].
        action_mask: True where the policy sampled the token, [rows, tokens].

    Returns:
        The rows up to their last sampled token; of a row without one, the first token behind what all begin with.
    """
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    shared = shared_beginning(input_ids, action_mask)
    lengths = (action_mask * places).amax(dim=1).clamp(min=shared + 1)  # the last sampled token is never read
    computed = (places < lengths[:, None]) & (places >= shared)
    computed[0, :shared] = True
    predicted = action_mask[:, 1:]
    return PackedRows(
        input_ids=input_ids[computed][None],
        position_ids=places.expand_as(input_ids)[computed][None],
        shared=shared,
        lengths=(lengths - shared).tolist(),
        predicts=torch.nn.functional.pad(predicted, (0, 1))[computed],
        targets=input_ids[:, 1:][predicted],
    )


def takes_packed_rows(model: Any, longest: int) -> bool:
    """Whether a model's attention can be handed packed rows of at most so many tokens."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
    window = getattr(config, "sliding_window", None)
    if not kinds <= {"full_attention", "sliding_attention"} or (window and longest > window):
        return False
    return bool(model._supports_attention_backend and model.config._attn_implementation == "sdpa")


def packed_states(model: Any, rows: PackedRows, *, gradient_checkpointing: bool = False) -> torch.Tensor:
    """The last hidden states of a causal language model that reads packed rows.

    Args:
        model: The model; see `takes_packed_rows`.
        rows: What it reads.
        gradient_checkpointing: Whether each layer keeps its input only and is computed again in the backward pass.

    Returns:
        [T, hidden size].
    """
    implementation, options = _packed_attention(model, rows)
    attention = partial(_attention, model, implementation)
    inputs = {"input_ids": rows.input_ids, "position_ids": rows.position_ids, **options}
    return _states(model, inputs, attention, gradient_checkpointing=gradient_checkpointing)[0]


def padded_states(model: Any, input_ids: torch.Tensor, *, gradient_checkpointing: bool = False) -> torch.Tensor:
    """The last hidden states of a causal language model that reads rows padded on the right.

    What stands behind a row's end cannot reach it, so plain causal attention is right.

    Args:
        model: The model.
        input_ids: [rows, tokens].
        gradient_checkpointing: See `packed_states`.

    Returns:
        [rows, tokens, hidden size].
    """
    attention = partial(training_attention, model)
    return _states(model, {"input_ids": input_ids}, attention, gradient_checkpointing=gradient_checkpointing)


def _states(model: Any, inputs: dict[str, Any], attention: _Attention, *, gradient_checkpointing: bool) -> torch.Tensor:
    with attention(), _checkpointed_layers(model, attention, enabled=gradient_checkpointing):
        states: torch.Tensor = model.base_model(**inputs, use_cache=False).last_hidden_state
    return states


def _packed_attention(model: Any, rows: PackedRows) -> tuple[str, dict[str, Any]]:
    """The name of the attention in the registry of transformers, and what the model's forward has to tell it."""
    device = rows.input_ids.device
    half = torch.is_autocast_enabled(device.type) or model.dtype in (torch.bfloat16, torch.float16)
    if device.type == "cuda" and half and is_flash_attn_2_available():
        lengths = torch.tensor([0, *rows.lengths], device=device)
        bounds, longest = lengths.cumsum(0).int(), max(rows.lengths)
        names = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
        return "flash_attention_2", dict(zip(names, (bounds, bounds, longest, longest), strict=True))
    return _NAME, {"shared": rows.shared, "row_lengths": rows.lengths}


@contextmanager
def _attention(model: Any, implementation: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.config._attn_implementation = implementation
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _row_by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    shared: int,
    row_lengths: list[int],
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row and to what all begin with; shapes as in `blockwise_attention`, a batch of 1."""
    parts = (tensor.split([shared, *row_lengths], dim=2) for tensor in (query, key, value))
    beginning, *rows = zip(*parts, strict=True)
    if shared:
        _, keys, values = beginning
        rows = [(q, torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)) for q, k, v in rows]
        rows.insert(0, beginning)
    return torch.cat([blockwise_attention(module, q, k, v, None, **kwargs)[0] for q, k, v in rows], dim=1), None


@contextmanager
def _checkpointed_layers(model: Any, attention: _Attention, *, enabled: bool) -> Iterator[None]:
    """Within the block every layer is a checkpoint; what is computed again later has the same attention.

    That of transformers would need the model in training mode, with dropout.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not (enabled and torch.is_grad_enabled()):
        layers = []
    for layer in layers:
        layer.forward = partial(checkpoint, partial(_forward, layer.forward, attention), use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(forward: Callable[..., Any], attention: _Attention, *args: Any, **kwargs: Any) -> Any:
    with attention():
        return forward(*args, **kwargs)


ALL_ATTENTION_FUNCTIONS.register(_NAME, _row_by_row)
