from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from search_agents.learning import rl_module
from search_agents.learning.packing import pack_rows
from search_agents.learning.rl_module import ACTION_MASK, ENTROPIES, INPUT_IDS, LOGPROBS, LLMModule, pack, unpack

from search_env.errors import ModelError

#        prompt | sampled | documents | sampled
MASK = [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1]
DOCUMENTS = slice(6, 10)


@pytest.fixture
def wrap(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LLMModule]:
    """Makes the RLlib module of a model that is in memory already."""

    def build(model: Any, *, inference_only: bool = False, **settings: Any) -> LLMModule:
        monkeypatch.setattr(rl_module, "load_pretrained", lambda name, dtype: (model, None))
        defaults = {"model": "x", "dtype": "auto", "autocast": False, "temperature": 1.0, "reference": False}
        defaults |= {"packing": True, "gradient_checkpointing": False, "lora": None, "seed": 0}
        return LLMModule(inference_only=inference_only, model_config=defaults | settings)

    return build


def make_batch(rows: int = 3, padding: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 200, (rows, len(MASK) + padding), generator=generator)
    mask = torch.tensor([MASK + [0] * padding] * rows, dtype=torch.bool)
    mask[0, 10:] = False
    return {INPUT_IDS: ids, ACTION_MASK: mask}


def expected(model: Any, batch: dict[str, torch.Tensor], temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and entropies from the model's own logits at every position."""
    logs = (model(input_ids=batch[INPUT_IDS]).logits.float()[:, :-1] / temperature).log_softmax(-1)
    chosen = logs.gather(-1, batch[INPUT_IDS][:, 1:, None])[..., 0]
    predicted = batch[ACTION_MASK][:, 1:]
    return chosen[predicted], -(logs.exp() * logs).sum(-1)[predicted]


def tiny(kind: str) -> Any:
    import transformers

    torch.manual_seed(1)
    common = {
        "vocab_size": 200,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    own: dict[str, dict[str, Any]] = {
        "Llama": {"tie_word_embeddings": True},
        "Qwen2": {"tie_word_embeddings": False},
        "Gemma2": {"final_logit_softcapping": 3.0, "sliding_window": 64},
        "Granite": {"logits_scaling": 3.0},
        "Cohere": {"logit_scale": 0.25},
    }
    config = getattr(transformers, f"{kind}Config")(**(common | own[kind]))
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Gemma2", "Granite", "Cohere"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_models_own_logits(
    kind: str, temperature: float, wrap: Callable[..., LLMModule]
) -> None:
    model, batch = tiny(kind), make_batch()
    output = wrap(model, temperature=temperature).forward_train(batch)
    logprobs, entropies = expected(model, batch, temperature)
    assert output[LOGPROBS].shape == (13,) and output[LOGPROBS].dtype == torch.float32
    torch.testing.assert_close(output[LOGPROBS], logprobs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output[ENTROPIES], entropies, rtol=1e-4, atol=1e-4)
    assert output[LOGPROBS].requires_grad and not output[ENTROPIES].requires_grad


def test_a_model_with_logits_of_its_own_kind_is_refused(
    wrap: Callable[..., LLMModule], make_model: Callable[..., Any]
) -> None:
    model = make_model()
    forward = model.forward

    def doubled(**inputs: Any) -> Any:
        output = forward(**inputs)
        output.logits = output.logits * 2
        return output

    model.forward = doubled
    with pytest.raises(ModelError, match="LlamaForCausalLM computes its logits in a way"):
        wrap(model)


def test_chunks_give_the_same_values_and_gradients_and_bound_the_logits(
    wrap: Callable[..., LLMModule], make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, sizes = [], []
    for per_chunk in (1 << 24, 4 * 400):
        model = make_model()
        model.get_output_embeddings().register_forward_hook(lambda _, __, out: sizes.append(len(out)))
        module = wrap(model)
        sizes.clear()
        monkeypatch.setattr(rl_module, "LOGITS_PER_CHUNK", per_chunk)
        output = module.forward_train(make_batch())
        output[LOGPROBS].sum().backward()
        results.append([output[LOGPROBS].detach(), output[ENTROPIES], *(p.grad for p in model.parameters())])
    assert max(sizes) <= 5 and sum(sizes) == 2 * 13, "in chunks, each computed again for the gradient"
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(whole, chunked, rtol=1e-4, atol=1e-5)


def test_padding_on_the_right_changes_nothing(wrap: Callable[..., LLMModule], make_model: Callable[..., Any]) -> None:
    module, batch = wrap(make_model()), make_batch(padding=7)
    short = {name: column[:, : len(MASK)] for name, column in batch.items()}
    torch.testing.assert_close(
        module.forward_train(batch)[LOGPROBS], module.forward_train(short)[LOGPROBS], rtol=1e-5, atol=1e-5
    )


def test_no_gradient_enters_where_a_document_token_is_predicted(
    wrap: Callable[..., LLMModule], make_model: Callable[..., Any]
) -> None:
    model, batch = make_model(), make_batch()
    states, logit_rows = [], []

    def keep(_: Any, __: Any, output: Any) -> None:
        output.last_hidden_state.retain_grad()
        states.append(output.last_hidden_state)

    module = wrap(model)
    model.base_model.register_forward_hook(keep)
    model.get_output_embeddings().register_forward_hook(lambda _, __, out: logit_rows.append(len(out)))
    (module.forward_train(batch)[LOGPROBS] * torch.linspace(1, 2, 13)).sum().backward()
    grad = states[0].grad.abs().sum(-1)[0]
    predicts_sampled = pack_rows(batch[INPUT_IDS], batch[ACTION_MASK]).predicts
    assert (grad[~predicts_sampled] == 0).all(), "exactly zero, documents and prompt alike"
    assert (grad[predicts_sampled] > 0).all()
    assert logit_rows == [13], "no logits are even computed at the other positions"


def test_which_document_token_was_to_be_predicted_changes_neither_loss_nor_gradient(
    wrap: Callable[..., LLMModule], make_model: Callable[..., Any]
) -> None:
    results = []
    for other in (False, True):
        model, batch = make_model(tie_word_embeddings=False), make_batch()
        with torch.no_grad():  # ids 250 and 251 read the same, so as inputs they are equal, as targets they differ
            model.get_input_embeddings().weight[251] = model.get_input_embeddings().weight[250]
        batch[INPUT_IDS][:, DOCUMENTS] = 251 if other else 250
        logprobs = wrap(model).forward_train(batch)[LOGPROBS]
        logprobs.sum().backward()
        results.append([logprobs.detach(), *(p.grad for p in list(model.parameters())[1:])])
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_dropout_stays_off_in_training(wrap: Callable[..., LLMModule], make_model: Callable[..., Any]) -> None:
    module = wrap(make_model(attention_dropout=0.5))
    first, second = (module.forward_train(make_batch())[LOGPROBS] for _ in range(2))
    assert torch.equal(first, second) and not module.model.training


def test_autocast_computes_in_bfloat16_and_keeps_weights_and_gradients_in_float32(
    wrap: Callable[..., LLMModule], make_model: Callable[..., Any]
) -> None:
    model = make_model(initializer_range=0.05)
    exact = wrap(model).forward_train(make_batch())[LOGPROBS].detach()
    rounded = wrap(model, autocast=True).forward_train(make_batch())[LOGPROBS]
    rounded.sum().backward()
    assert 0 < (rounded - exact).abs().max() < 0.05 and rounded.dtype == torch.float32
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())


def test_a_state_holds_every_weight_once_in_its_own_format(
    wrap: Callable[..., LLMModule], make_model: Callable[..., Any]
) -> None:
    tied = make_model(tie_word_embeddings=True).bfloat16()
    state = wrap(tied).get_state()
    assert "lm_head.weight" not in state and "model.embed_tokens.weight" in state
    assert {packed.dtype for packed in state.values()} == {"bfloat16"}
    other = make_model(tie_word_embeddings=True, seed=9).bfloat16()
    wrap(other).set_state(state)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, tied.state_dict()[name]), name
    assert other.lm_head.weight is other.model.embed_tokens.weight


def test_weights_of_another_model_are_refused(wrap: Callable[..., LLMModule], make_model: Callable[..., Any]) -> None:
    state = wrap(make_model(num_hidden_layers=1)).get_state()
    with pytest.raises(ModelError, match="weights are those of another model"):
        wrap(make_model()).set_state(state)


def test_the_reference_is_frozen_and_no_part_of_the_policy(
    wrap: Callable[..., LLMModule], make_model: Callable[..., Any]
) -> None:
    model, batch = make_model(), make_batch()
    module = wrap(model, reference=True)
    before = module.compute_logprobs(batch, reference=True)
    torch.testing.assert_close(before, expected(model, batch)[0].detach(), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        model.lm_head.weight += torch.randn(model.lm_head.weight.shape)
    assert torch.equal(module.compute_logprobs(batch, reference=True), before) and not before.requires_grad
    assert len(list(module.parameters())) == len(list(model.parameters()))
    assert wrap(model, reference=True, inference_only=True)._reference is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_packed_tensors_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    for tensor in (torch.linspace(-3, 3, 6).to(dtype).view(2, 3).T, torch.tensor(2.5).to(dtype)):
        again = unpack(pack(tensor))
        assert again.dtype is dtype and torch.equal(again, tensor)
