from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from search_agents.engines.base import SamplingParams, ScoredText, ScoringRequest
from search_agents.engines.scripted import ScriptedEngine
from search_agents.engines.transformers import TransformersEngine
from search_agents.methods import Setting, make_method
from search_agents.methods.longllmlingua import RESTRICTION
from search_agents.methods.longllmlingua.compress import (
    contrast,
    dynamic_ratios,
    segments,
    strongest,
    within_budget,
)
from search_agents.methods.longllmlingua.recovery import CompressedText, recover

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError
from search_env.types import Document, Hit, Question, Transcript

QUESTION = Question(id="q", text="Who directed <b> it?", answers=("Ann Lee",))
DOCUMENTS = tuple(
    Document(id=str(number), title=f"Film {number}", text=" ".join(f"{letter}{word}" for word in range(18)))
    for number, letter in enumerate("abc")
)


class Fixed:
    """Finds the same documents whatever is asked."""

    fingerprint = "fixed"

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents
        self.queries: list[str] = []

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        self.queries += queries
        return [tuple(Hit(document=document, score=1.0) for document in self.documents[:top_k])] * len(queries)


class Bench:
    """The method over one question, and all that it asked of the model."""

    def __init__(
        self,
        score: Callable[[str, str], Sequence[float]],
        reply: str = "Ann Lee",
        documents: Sequence[Document] = DOCUMENTS,
        engine: Any = None,
        **options: Any,
    ) -> None:
        self.scored: list[ScoringRequest] = []
        self.results: list[ScoredText] = []
        self.prompts: list[str] = []
        self.engine = engine or ScriptedEngine(self._reply, score=score)
        self._said, inner = reply, self.engine.score
        self.engine.score = lambda requests: self._watch(requests, inner(requests))
        dataset = Dataset(name="tiny", split="dev", questions=(QUESTION,), documents=DOCUMENTS)
        self.retriever = Fixed(documents)
        env = SearchQAVectorEnv(1, dataset=dataset, retriever=self.retriever, prompt="base", top_k=3)
        sampling = SamplingParams(max_tokens=20)
        setting = Setting(engine=self.engine, env=env, sampling=sampling, max_tokens=4000, chat=False)
        self.method = make_method({"name": "longllmlingua", **options}, setting)

    def run(self) -> Transcript:
        (transcript,) = self.method.run([QUESTION])
        return transcript

    def passages(self) -> list[str]:
        return re.findall(r"^Passage \d+: (.*)$", self.prompts[-1], re.M)

    def _reply(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self._said

    def _watch(self, requests: Sequence[ScoringRequest], results: list[ScoredText]) -> list[ScoredText]:
        self.scored += requests
        self.results += results
        return results


def by_film(*losses: float) -> Callable[[str, str], list[float]]:
    """The question is as unlikely after each film as told; of every text the odd words are made likely by it."""

    def score(context: str, text: str) -> list[float]:
        words = text.split()
        if text.endswith(RESTRICTION):
            return [-losses[int(context[5])]] * len(words)
        asked = context.startswith("Who directed")
        return [-1.0 if asked and re.search(r"[13579]$", word) else -2.0 for word in words]

    return score


def notes(transcript: Transcript, purpose: str) -> list[str]:
    return [call.text for turn in transcript.turns for call in turn.calls if call.purpose == purpose]


def test_documents_are_ranked_by_the_likelihood_of_the_question_and_the_fixed_sentence_after_each() -> None:
    bench = Bench(by_film(3.0, 1.0, 2.0), rate=1.0, dynamic_ratio=0.0)
    transcript = bench.run()
    asked = f" Who directed ‹b› it? {RESTRICTION}"
    assert [(each.context[:7], each.text) for each in bench.scored[:3]] == [
        (f"Film {number}:", asked) for number in range(3)
    ]
    assert [passage[:7] for passage in bench.passages()] == ["Film 1:", "Film 2:", "Film 0:"]
    (ranking,) = notes(transcript, "documents")
    assert [line[:5] for line in ranking.splitlines()] == ["1.000", "2.000", "3.000"]


def test_documents_stay_up_to_the_one_that_exceeds_the_budget_in_either_order() -> None:
    # 20 words each; 0.4 * 60 + 10 = 34 tokens are exceeded by the second.
    options = {"rate": 0.4, "context_budget": 10, "dynamic_ratio": 0.0}
    sorted_, original = Bench(by_film(3, 2, 1), **options), Bench(by_film(3, 2, 1), order="original", **options)
    sorted_.run()
    original.run()
    first = [[re.findall(r"([abc])\d+", each)[0] for each in bench.passages()] for bench in (sorted_, original)]
    assert first == [["c", "b"], ["b", "c"]]


def test_the_tokens_stay_that_the_question_makes_likelier() -> None:
    bench = Bench(by_film(1, 2, 3), rate=0.45, context_budget=1000, dynamic_ratio=0.0)
    bench.run()
    for passage, letter in zip(bench.passages(), "abc", strict=True):
        assert passage.split() == [f"{letter}{number}" for number in range(1, 18, 2)]  # 9 of 20


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.55, 0.8, 1.0])
@pytest.mark.parametrize("segment_tokens", [5, 200])
def test_no_more_tokens_stay_than_the_budget_has(rate: float, segment_tokens: int) -> None:
    bench = Bench(by_film(2, 3, 1), rate=rate, segment_tokens=segment_tokens)
    bench.run()
    assert 0 < sum(len(passage.split()) for passage in bench.passages()) <= int(rate * 60)


def test_better_documents_keep_more_of_their_tokens() -> None:
    bench = Bench(by_film(3, 1, 2), rate=0.5, context_budget=1000, dynamic_ratio=0.3)
    bench.run()
    assert [len(passage.split()) for passage in bench.passages()] == [16, 10, 4]  # 0.8, 0.5, 0.2 of 20


def test_each_segment_is_weighed_after_what_is_left_of_those_before() -> None:
    bench = Bench(by_film(1, 2, 3), rate=0.5, context_budget=1000, dynamic_ratio=0.0, segment_tokens=10)
    bench.run()
    pairs = bench.scored[3:]
    assert len(pairs) == 2 * 6
    for plain, asked in zip(pairs[::2], pairs[1::2], strict=True):
        assert plain.text == asked.text and asked.context == f"Who directed ‹b› it?\n{plain.context}"
    contexts = [each.context for each in pairs[::2]]
    assert contexts[0] == ""
    assert contexts[1].split() == ["Film", "a1", "a3", "a5", "a7"]  # of the first ten words five stay
    kept = bench.passages()
    assert contexts[2].strip() == kept[0] and contexts[4].splitlines() == kept[:2]


def test_it_takes_one_search_one_text_a_score_a_document_and_two_a_segment() -> None:
    bench = Bench(by_film(1, 2, 3), context_budget=1000, segment_tokens=7)  # 20 words are 3 segments
    transcript = bench.run()
    assert bench.retriever.queries == [QUESTION.text]
    assert len(bench.prompts) == 1 and len(bench.scored) == 3 + 2 * 9
    purposes = [call.purpose for turn in transcript.turns for call in turn.calls]
    assert [purposes.count(each) for each in ("document score", "token scores", "answer")] == [3, 18, 1]
    assert transcript.answer == "Ann Lee"


def test_on_a_language_model_the_scores_are_the_difference_of_two_losses(
    tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    model = make_model()
    engine = TransformersEngine(model, tokenizer)
    documents = [Document(id="1", title="Oslo", text="the capital of Norway is Oslo. " * 3)]
    bench = Bench(lambda context, text: [], engine=engine, documents=documents, rate=0.4, segment_tokens=20)

    def losses(context: str, text: str) -> np.ndarray[Any, Any]:
        before = engine.encode_observation(context) or [tokenizer.eos_token_id]
        ids = before + engine.encode_observation(text)
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
        return -logprobs[range(len(before) - 1, len(ids) - 1), ids[len(before) :]].numpy()

    transcript = bench.run()
    pairs = list(zip(bench.scored[1::2], bench.scored[2::2], bench.results[1::2], bench.results[2::2], strict=True))
    kept, total, target = "", 0, int(0.4 * bench.results[0].context_tokens)
    assert len(pairs) > 1
    for plain, asked, plain_result, asked_result in pairs:
        assert plain.context == kept
        expected = losses(plain.context, plain.text) - losses(asked.context, asked.text)
        found = contrast(plain_result.logprobs, asked_result.logprobs)
        assert found == pytest.approx(expected, abs=2e-4)
        marks = strongest(found, min(int(target / bench.results[0].context_tokens * len(found)), target - total))
        kept += "".join(piece for piece, stays in zip(plain_result.tokens, marks, strict=True) if stays)
        total += sum(marks)
    assert total <= target
    (compression,) = notes(transcript, "compression")
    assert compression.startswith(f"{total} of ")


def test_what_grows_together_to_a_tag_is_inert() -> None:
    def score(context: str, text: str) -> list[float]:
        asked = context.startswith("Who")
        return [-1.0 if asked and word in ("<", "/answer>") else -2.0 for word in text.split()]

    document = Document(id="1", title="t", text="<\u00a0cut cut cut cut /answer> cut cut")
    grown = CompressedText(("<", " cut", "/answer>"), (True, False, True))
    assert grown.text == "</answer>"
    bench = Bench(score, documents=[document], rate=0.3, dynamic_ratio=0.0)
    bench.run()
    assert "</answer>" not in bench.prompts[0]


def test_where_nothing_is_found_the_model_answers_all_the_same() -> None:
    bench = Bench(by_film(), documents=[])
    assert bench.run().answer == "Ann Lee"
    assert "No passage was found." in bench.prompts[0] and bench.scored == []


def test_the_answer_is_recovered_unless_that_is_off() -> None:
    def score(context: str, text: str) -> list[float]:
        asked = context.startswith("Who")
        return [-1.0 if asked and word in ("by", "Ann", "Lee.") else -2.0 for word in text.split()]

    document = Document(id="1", title="Oslo", text="It was made by Ann Mary Lee. Many saw it then.")
    on, off = (Bench(score, "Ann Lee.", [document], rate=0.3, recover=recovers) for recovers in (True, False))
    transcript = on.run()
    assert "Ann Lee." in on.passages()[0]
    assert (transcript.answer, off.run().answer) == ("Ann Mary Lee.", "Ann Lee.")
    assert notes(transcript, "recovery") == ["Ann Lee. -> Ann Mary Lee."]


def test_an_engine_that_cannot_score_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs an engine that can score"):
        Bench(None)  # type: ignore[arg-type]


# --- arithmetic ---


def test_ratios_fall_linearly_with_the_rank_and_stay_within_bounds() -> None:
    assert dynamic_ratios(3, 0.5, 0.3) == pytest.approx([0.8, 0.5, 0.2])
    assert dynamic_ratios(4, 0.9, 0.3) == pytest.approx([1.0, 1.0, 0.8, 0.6])
    assert dynamic_ratios(1, 0.5, 0.3) == [0.5]
    assert dynamic_ratios(0, 0.5, 0.3) == []


def test_the_document_that_exceeds_the_budget_is_the_last_one() -> None:
    assert within_budget([2, 0, 1], [10, 10, 10], 19) == [2, 0]
    assert within_budget([2, 0, 1], [10, 10, 10], 20) == [2, 0, 1]
    assert within_budget([2, 0, 1], [10, 10, 10], 0) == [2]


def test_segments_join_to_the_text() -> None:
    text = " one two  three four five "
    for tokens, size, count in ((5, 200, 1), (5, 2, 3), (500, 1, 6)):
        parts = segments(text, tokens, size)
        assert "".join(parts) == text and len(parts) == count
    assert segments("word", 1000, 10) == ["word"]


def test_of_equal_scores_the_earlier_counts() -> None:
    assert strongest(np.array([1.0, 2.0, 1.0, 1.0]), 2) == (True, True, False, False)
    assert strongest(np.array([1.0]), 0) == (False,)


# --- recovery ---


def compressed(*pieces: str) -> CompressedText:
    """Pieces, those in brackets left out."""
    return CompressedText(tuple(piece.strip("[]") for piece in pieces), tuple("[" not in piece for piece in pieces))


@pytest.mark.parametrize(
    ("response", "recovered"),
    [
        ("Ann Lee", "Ann Mary Lee"),
        ("it was Ann Lee indeed", "it was Ann Mary Lee indeed"),
        ("Lee home", "Lee went home"),
        ("Ann", "Ann"),
        ("nothing of it", "nothing of it"),
        ("nn Le", "nn Le"),  # no whole words
        ("", ""),
    ],
)
def test_runs_of_words_get_back_what_was_cut_out(response: str, recovered: str) -> None:
    assert recover(response, [compressed("Ann", "[ Mary]", " Lee", "[ went]", " home", ".")]) == recovered


def test_a_mutilated_word_is_recovered_whole() -> None:
    assert recover("in 209", [compressed("in", "[ May]", " 20", "[0]", "9", ",")]) == "in May 2009"
    assert recover("209", [compressed("in", "[ May]", " 20", "[0]", "9", ",")]) == "2009"
    assert recover("unov", [compressed("[Sand]", "unov", " left")]) == "Sandunov"


def test_the_shortest_original_counts_and_far_neighbours_are_none() -> None:
    long = compressed("Ann", "[ x]", "[ y]", " Lee")
    short = compressed("Ann", "[ z]", " Lee")
    assert recover("Ann Lee", [long, short]) == "Ann z Lee"
    far = compressed("Ann", *["[ x]"] * 11, " Lee")
    assert recover("Ann Lee", [far]) == "Ann Lee"
