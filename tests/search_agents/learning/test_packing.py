"""Packed rows against the plain model, row by row and padded: the same values and gradients, fewer tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from search_agents.learning import attention, packing
from search_agents.learning.packing import pack_rows, packed_states, padded_states, takes_packed_rows

LENGTHS = [9, 1, 70, 4, 33]


def make_rows(empty: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids and mask of rows that end in a sampled token, but for one that ends in five others."""
    generator = torch.Generator().manual_seed(3)
    input_ids = torch.randint(3, 200, (5, 80), generator=generator)
    action_mask = torch.zeros(5, 80, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        action_mask[row, 1 : length + 1] = torch.rand(length, generator=generator) < 0.5
        action_mask[row, length] = not empty
    return input_ids, action_mask


def run(model: Any, states: torch.Tensor) -> list[torch.Tensor]:
    """The states and the gradients of a sum over them."""
    model.zero_grad()
    (states * torch.linspace(-1, 1, states.numel()).view(states.shape)).sum().backward()
    return [states.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def assert_close(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs) > 5
    for mine, wanted in zip(ours, theirs, strict=True):
        assert (mine - wanted).norm() <= 1e-5 * wanted.norm()


def test_packing_leaves_out_padding_and_what_follows_the_last_sampled_token() -> None:
    input_ids = torch.tensor([[5, 6, 7, 8, 9], [1, 2, 3, 4, 0], [4, 4, 4, 4, 4]])
    action_mask = torch.tensor([[0, 0, 1, 0, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    rows = pack_rows(input_ids, action_mask)
    assert rows.lengths == [4, 2, 1]
    assert rows.input_ids.tolist() == [[5, 6, 7, 8, 1, 2, 4]]
    assert rows.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 0]]
    assert rows.predicts.int().tolist() == [0, 1, 0, 1, 1, 1, 0]
    assert rows.targets.tolist() == [7, 9, 2, 3]


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_packed_rows_give_the_values_and_gradients_of_padded_ones(
    make_model: Callable[..., Any], gradient_checkpointing: bool
) -> None:
    model = make_model(max_position_embeddings=128)
    input_ids, action_mask = make_rows()
    rows = pack_rows(input_ids, action_mask)
    assert rows.lengths == LENGTHS
    computed = torch.arange(80) < torch.tensor(LENGTHS)[:, None]
    padded = run(model, model.base_model(input_ids=input_ids).last_hidden_state[computed])
    again = run(model, padded_states(model, input_ids, gradient_checkpointing=gradient_checkpointing)[computed])
    assert_close(again, padded)
    packed = run(model, packed_states(model, rows, gradient_checkpointing=gradient_checkpointing))
    assert_close(packed, padded)
    assert model.config._attn_implementation == "sdpa"
    assert all("forward" not in vars(module) for module in model.modules())


def rows_that_begin_alike(beginning: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of `make_rows` behind tokens that none of them sampled."""
    input_ids, action_mask = make_rows()
    alike = torch.arange(3, 3 + beginning).expand(len(input_ids), -1)
    return torch.cat([alike, input_ids], dim=1), torch.nn.functional.pad(action_mask, (beginning, 0))


def test_what_all_rows_begin_with_is_there_once() -> None:
    input_ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 3, 0], [5, 6, 7, 8, 4]])
    action_mask = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    rows = pack_rows(input_ids, action_mask)
    assert (rows.shared, rows.lengths) == (2, [2, 1, 2])  # 7 predicts a sampled token, so each row has its own
    assert rows.input_ids.tolist() == [[5, 6, 7, 8, 7, 7, 8]]
    assert rows.position_ids.tolist() == [[0, 1, 2, 3, 2, 2, 3]]
    assert rows.predicts.int().tolist() == [0, 0, 1, 1, 1, 0, 1]
    assert rows.targets.tolist() == [8, 9, 3, 4]


@pytest.mark.parametrize("sampled", [[[0, 1, 0], [0, 1, 0]], [[0, 0, 0], [0, 1, 0]]])
def test_a_token_that_predicts_a_sampled_one_is_not_shared(sampled: list[list[int]]) -> None:
    input_ids = torch.tensor([[5, 6, 7], [5, 6, 7]])
    assert pack_rows(input_ids, torch.tensor(sampled, dtype=torch.bool)).shared == 0
    assert pack_rows(input_ids, torch.zeros(2, 3, dtype=torch.bool)).shared == 2
    assert pack_rows(input_ids[:1], torch.tensor([[0, 0, 1]], dtype=torch.bool)).shared == 0


@pytest.mark.parametrize("beginning", [1, 2, 90])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("longest", [2048, 0], ids=["in blocks", "SDPA"])
def test_rows_that_begin_alike_give_the_values_and_gradients_of_padded_ones(
    make_model: Callable[..., Any],
    beginning: int,
    autocast: bool,
    gradient_checkpointing: bool,
    longest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "_MAX_LENGTH", longest)
    model = make_model(max_position_embeddings=256)
    input_ids, action_mask = rows_that_begin_alike(beginning)
    rows = pack_rows(input_ids, action_mask)
    assert rows.shared >= beginning - 1 and rows.input_ids.shape[1] < sum(LENGTHS) + 2 * beginning + len(LENGTHS)
    predicted = action_mask[:, 1:]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        padded = run(model, padded_states(model, input_ids)[:, :-1][predicted].float())
        states = packed_states(model, rows, gradient_checkpointing=gradient_checkpointing)
        packed = run(model, states[rows.predicts].float())
    tolerance = 2e-2 if autocast else 1e-5
    for ours, theirs in zip(packed, padded, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize(
    "settings", [{"_attn_implementation": "eager"}, {"layer_types": ["chunked_attention"] * 2}, {"sliding_window": 40}]
)
def test_a_model_whose_attention_is_of_another_kind_takes_no_packed_rows(
    make_model: Callable[..., Any], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(max_position_embeddings=128)
    assert takes_packed_rows(model, 70)
    for name, value in settings.items():
        monkeypatch.setattr(model.config, name, value, raising=False)
    assert not takes_packed_rows(model, 70)
    assert takes_packed_rows(model, 40) is ("sliding_window" in settings)


def test_no_row_sees_another(make_model: Callable[..., Any]) -> None:
    model = make_model(max_position_embeddings=128)
    input_ids, action_mask = make_rows()
    before = packed_states(model, pack_rows(input_ids, action_mask)).split(LENGTHS)
    input_ids[2] = input_ids[2].flip(0)
    after = packed_states(model, pack_rows(input_ids, action_mask)).split(LENGTHS)
    changed = [not torch.equal(one, two) for one, two in zip(before, after, strict=True)]
    assert changed == [False, False, True, False, False]


def test_only_as_many_tokens_are_computed_as_there_are(make_model: Callable[..., Any]) -> None:
    model = make_model(max_position_embeddings=128)
    shapes: list[tuple[int, ...]] = []
    model.base_model.layers[0].mlp.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[:2])))
    packed_states(model, pack_rows(*make_rows()))
    assert shapes == [(1, sum(LENGTHS))]


def test_gradient_checkpointing_keeps_less_and_computes_each_layer_twice(make_model: Callable[..., Any]) -> None:
    kept, calls = [], []
    for enabled in (False, True):
        model = make_model(max_position_embeddings=128)
        model.base_model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: (s.append(t.numel()), t)[1], lambda t: t):
            states = packed_states(model, pack_rows(*make_rows()), gradient_checkpointing=enabled)
        run(model, states)
        kept.append(sum(saved))
        calls.append(-1)
    assert kept[1] < kept[0] / 4
    assert calls == [1, -1, 1, 1, -1]


def test_nothing_is_checkpointed_where_no_gradient_is_wanted(make_model: Callable[..., Any]) -> None:
    model = make_model(max_position_embeddings=128, attention_dropout=0.5)
    with torch.no_grad():
        one, two = (packed_states(model, pack_rows(*make_rows()), gradient_checkpointing=on) for on in (True, False))
    assert torch.equal(one, two)


def test_dropout_stays_off_under_gradient_checkpointing(make_model: Callable[..., Any]) -> None:
    model = make_model(max_position_embeddings=128, attention_dropout=0.5)
    one, two = (packed_states(model, pack_rows(*make_rows()), gradient_checkpointing=True) for _ in range(2))
    assert torch.equal(one, two) and not model.training


def test_flash_attention_is_told_where_rows_begin(
    make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel needs a GPU; what it is told is checked by one on the CPU that reads nothing else."""
    model = make_model(max_position_embeddings=128).bfloat16()
    rows = pack_rows(*make_rows())
    monkeypatch.setattr(packing, "is_flash_attn_2_available", lambda: True)
    on_gpu = rows._replace(input_ids=type("OnGPU", (), {"device": torch.device("cuda")})())
    monkeypatch.setattr(torch, "tensor", lambda values, device=None, tensor=torch.tensor: tensor(values))
    name, options = packing._packed_attention(model, on_gpu)
    assert name == "flash_attention_2"
    assert options["cu_seq_lens_q"].tolist() == options["cu_seq_lens_k"].tolist() == [0, 9, 10, 80, 84, 117]
    assert options["cu_seq_lens_q"].dtype == torch.int32
    assert options["max_length_q"] == options["max_length_k"] == 70
    assert packing._packed_attention(model.float(), on_gpu)[0] != name, "the kernel takes 16 bits only"
