"""Log-probabilities of given texts: exact, the same in any company, and told for pieces that join to the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from search_agents.engines.base import ScoringRequest
from search_agents.engines.scripted import ScriptedEngine
from search_agents.engines.transformers import TransformersEngine

from search_env.errors import ModelError

REQUESTS = [
    ScoringRequest(context="the capital of Norway", text=" is Oslo"),
    ScoringRequest(context="", text="the capital of Norway is Oslo and the end of it all"),
    ScoringRequest(context="the answer of the query is", text=" x"),
    ScoringRequest(context="a", text="\n Zoë 🦜 naïve <|im_end|> <answer>\t"),
    ScoringRequest(context="of Norway " * 12, text="�"),
]


def forced(model: Any, context: list[int], text: list[int]) -> list[float]:
    """Log-probs of a text by one plain forward pass over the joined ids."""
    ids = [*context, *text]
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
    return [logprobs[position - 1, ids[position]].item() for position in range(len(context), len(ids))]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_they_equal_those_of_a_forward_pass_over_the_joined_ids(
    tokenizer: Any, make_model: Callable[..., Any], kind: str, attention: str
) -> None:
    model = make_model(kind)
    model.set_attn_implementation(attention)
    engine = TransformersEngine(model, tokenizer)
    for request, scored in zip(REQUESTS, engine.score(REQUESTS), strict=True):
        context = engine.encode_observation(request.context) or [tokenizer.eos_token_id]
        expected = forced(model, context, engine.encode_observation(request.text))
        assert scored.logprobs == pytest.approx(expected, abs=1e-4)
        assert scored.context_tokens == len(context)


@pytest.mark.parametrize("prefill_tokens", [1, 30, 10_000])
def test_a_text_scores_the_same_alone_and_in_any_company(
    tokenizer: Any, make_model: Callable[..., Any], prefill_tokens: int
) -> None:
    engine = TransformersEngine(make_model(), tokenizer, prefill_tokens=prefill_tokens)
    together = engine.score(REQUESTS[::-1])[::-1]
    for request, scored in zip(REQUESTS, together, strict=True):
        (alone,) = engine.score([request])
        assert scored.tokens == alone.tokens
        assert scored.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    assert engine.score([]) == []


def test_the_pieces_join_to_the_text_whatever_is_spread_over_tokens(
    tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    engine = TransformersEngine(make_model(), tokenizer)
    for request, scored in zip(REQUESTS, engine.score(REQUESTS), strict=True):
        assert "".join(scored.tokens) == request.text
        assert len(scored.tokens) == len(scored.logprobs) == len(engine.encode_observation(request.text))
    parrot = engine.score(REQUESTS)[3].tokens
    assert parrot.count("🦜") == 1 and "" in parrot  # four bytes of it are four tokens


def test_the_pieces_join_to_the_text_where_the_tokenizer_normalises(make_model: Callable[..., Any]) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(byte_fallback=True))
    bpe.normalizer = normalizers.NFKC()
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["</s>", *bytes_], show_progress=False)
    bpe.train_from_iterator(["the capital of Norway is Oslo"] * 3, trainer)
    sentencepiece = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>")
    engine = TransformersEngine(make_model(vocab_size=len(sentencepiece), eos_token_id=0), sentencepiece)
    for text in ("Oslo", " Oslo ﬁ 🦜 is ", "é\u0301 ½"):
        (scored,) = engine.score([ScoringRequest(context="the", text=text)])
        assert "".join(scored.tokens) == text
        assert len(scored.tokens) == len(scored.logprobs)


def test_pieces_do_not_depend_on_the_context(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    engine = TransformersEngine(make_model(), tokenizer)
    text = " of Norway"
    scored = engine.score([ScoringRequest(context=context, text=text) for context in ("", "the capital", "x ")])
    assert len({each.tokens for each in scored}) == 1
    assert len({each.logprobs for each in scored}) == 3


def test_scoring_leaves_the_model_in_training_mode(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    model = make_model(attention_dropout=0.5)
    engine = TransformersEngine(model, tokenizer)
    expected = engine.score(REQUESTS)
    model.train()
    assert engine.score(REQUESTS) == expected
    assert model.training


def test_an_empty_text_is_refused_and_one_that_is_too_long_has_no_score(
    tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    engine = TransformersEngine(make_model(), tokenizer)
    long = [ScoringRequest(context="the " * 600, text="x"), ScoringRequest(context="", text="Norway" * 600)]
    assert engine.score([long[0], REQUESTS[0], long[1]]) == [None, *engine.score(REQUESTS[:1]), None]
    with pytest.raises(ModelError, match="empty text"):
        engine.score([REQUESTS[0], ScoringRequest(context="some context", text="")])


def test_without_a_token_to_begin_with_an_empty_context_is_refused(
    tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    engine = TransformersEngine(make_model(), tokenizer)
    engine.codec.eos_ids = frozenset()
    assert len(engine.score([REQUESTS[0]])) == 1
    with pytest.raises(ModelError, match="neither a token that begins"):
        engine.score([REQUESTS[1]])


def test_a_script_that_scores_too_few_words_is_refused() -> None:
    engine = ScriptedEngine({}, score=lambda context, text: [-1.0, -2.0])
    (scored,) = engine.score([ScoringRequest(context="a b c", text=" two words")])
    assert (scored.tokens, scored.logprobs, scored.context_tokens) == ((" two", " words"), (-1.0, -2.0), 3)
    with pytest.raises(ModelError, match="the 3 words of ' now three words' with 2"):
        engine.score([ScoringRequest(context="", text=" now three words")])
