from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from search_agents.engines.base import SamplingParams, ScoredText, ScoringRequest
from search_agents.engines.scripted import ScriptedEngine
from search_agents.engines.transformers import TransformersEngine
from search_agents.methods import Setting, make_method
from search_agents.methods import selective_context as module
from search_agents.methods.selective_context import dropped, regex_phrases, unit_information

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError, MissingDependencyError
from search_env.retrieval import InMemoryRetriever
from search_env.types import Document, Question, Transcript

DOCUMENTS = (
    Document(id="1", title="Oslo", text="Oslo 9 is 1 the 1 capital 7 of 1 Norway 8. Rain 2 falls 3 there 4."),
    Document(id="2", title="Lima", text="Lima 9 is 1 a 1 capital 6 too 2."),
)
QUESTIONS = (
    Question(id="1", text="capital Oslo Lima?", answers=("Oslo",)),
    Question(id="2", text="is Lima Oslo there?", answers=("no",)),
)


def by_number(context: str, text: str) -> list[float]:
    """The loss of a word is the number after it, if there is one, and a number's own is itself."""
    words = text.split()
    following = [*words[1:], ""]
    numbers = [word if word.strip(".").isdigit() else after for word, after in zip(words, following, strict=True)]
    return [-float(number.strip(".")) if number.strip(".").isdigit() else -5.0 for number in numbers]


class Bench:
    def __init__(self, engine: Any = None, documents: Sequence[Document] = DOCUMENTS, **options: Any) -> None:
        self.prompts: list[str] = []
        self.scored: list[ScoringRequest] = []
        self.results: list[ScoredText] = []
        engine = engine or ScriptedEngine(self._reply, score=by_number)
        inner = engine.score
        engine.score = lambda requests: self._watch(requests, inner(requests))
        dataset = Dataset(name="tiny", split="dev", questions=QUESTIONS, documents=tuple(documents))
        env = SearchQAVectorEnv(2, dataset=dataset, retriever=InMemoryRetriever(documents), prompt="base", top_k=2)
        sampling = SamplingParams(max_tokens=20)
        setting = Setting(engine=engine, env=env, sampling=sampling, max_tokens=4000, chat=False)
        self.method = make_method({"name": "selective-context", **options}, setting)

    def run(self, questions: Sequence[Question] = QUESTIONS[:1]) -> list[Transcript]:
        return list(self.method.run(questions))

    def passages(self, number: int = 0) -> list[str]:
        return [line for line in self.prompts[number].splitlines() if line.startswith("Passage ")]

    def _reply(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return "Oslo"

    def _watch(self, requests: Sequence[ScoringRequest], results: list[ScoredText]) -> list[ScoredText]:
        self.scored += requests
        self.results += results
        return results


def test_the_sentences_with_the_least_information_are_dropped() -> None:
    bench = Bench(unit="sentence", ratio=0.35)
    (transcript,) = bench.run()
    # Means: the first sentence 4.69, the second 3, the third 4.
    assert bench.passages() == [
        "Passage 1: Oslo: Oslo 9 is 1 the 1 capital 7 of 1 Norway 8.",
        "Passage 2: Lima: Lima 9 is 1 a 1 capital 6 too 2.",
    ]
    assert transcript.answer == "Oslo"


def test_tokens_are_dropped_over_all_documents_at_once() -> None:
    bench = Bench(unit="token", ratio=0.5)
    bench.run()
    assert bench.passages() == [
        "Passage 1: Oslo: Oslo 9 capital 7 Norway 8. falls 3 there 4.",
        "Passage 2: Lima: Lima 9 capital 6",
    ]


def test_it_takes_one_search_one_text_and_a_score_a_sentence_without_context() -> None:
    bench = Bench(unit="token")
    (transcript,) = bench.run()
    assert [(each.context, each.text[:6]) for each in bench.scored] == [("", "Oslo: "), ("", " Rain "), ("", "Lima: ")]
    purposes = [call.purpose for turn in transcript.turns for call in turn.calls]
    assert purposes == ["self-information"] * 3 + ["compression", "answer"]
    assert len(bench.prompts) == len(transcript.queries) == 1


def test_what_is_dropped_does_not_depend_on_the_question() -> None:
    bench = Bench(unit="token")
    bench.run(QUESTIONS)
    assert bench.passages(0) == bench.passages(1) and bench.prompts[0] != bench.prompts[1]


@pytest.mark.parametrize("unit", ["token", "sentence", "regex-phrase"])
def test_exactly_the_units_below_the_percentile_go_and_more_of_them_with_the_ratio(unit: str) -> None:
    before: set[str] | None = None
    for ratio in (0.0, 0.2, 0.5, 0.8, 0.95):
        bench = Bench(unit=unit, ratio=ratio)
        (transcript,) = bench.run()
        units = [part for result in bench.results for part in bench.method._cut(result)]
        information = [v for result in bench.results for v in unit_information(result, bench.method._cut(result))]
        threshold = np.nanpercentile(information, 100 * ratio)
        kept = [part for part, value in zip(units, information, strict=True) if not value < threshold]
        read = "".join(passage.split(": ", 1)[1] for passage in bench.passages())
        assert read.replace(" ", "") == "".join(kept).replace(" ", "")
        told = next(call.text for turn in transcript.turns for call in turn.calls if call.purpose == "compression")
        assert told.startswith(f"{len(kept)} of {len(units)} units ({unit})")
        gone = {
            f"{number} {part}"
            for number, (part, value) in enumerate(zip(units, information, strict=True))
            if value < threshold
        }
        assert before is None or before <= gone
        before = gone
    assert before


def test_on_a_language_model_self_information_is_the_loss_within_the_sentence(
    tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    model = make_model()
    engine = TransformersEngine(model, tokenizer)
    bench = Bench(engine, unit="token")
    bench.run()
    assert len(bench.results) == 3
    for request, result in zip(bench.scored, bench.results, strict=True):
        ids = [tokenizer.eos_token_id, *engine.encode_observation(request.text)]
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
        losses = -logprobs[range(len(ids) - 1), ids[1:]]
        assert unit_information(result, list(result.tokens)) == pytest.approx(losses.tolist(), abs=1e-4)
        (mean,) = unit_information(result, [request.text])
        assert mean == pytest.approx(losses.mean().item(), abs=1e-4)


def test_a_unit_has_the_mean_of_the_tokens_that_end_in_it() -> None:
    score = ScoredText(tokens=("An", "n", " Lee", " 🦜", "", " ate", "."), logprobs=(-1.0, -3.0, -5.0, -2, -4, -7, -9))
    assert unit_information(score, ["Ann Lee", " 🦜", " ate", "."]) == [3.0, 3.0, 7.0, 9.0]
    assert np.isnan(unit_information(score, ["An", "", "n Lee 🦜 ate."])[1])


def test_a_unit_without_tokens_stays() -> None:
    assert dropped([1.0, float("nan"), 3.0, 4.0], 0.5) == [True, False, False, False]
    assert dropped([1.0, 1.0], 0.9) == [False, False]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("The old film by Hans von Herwig.", ["The old", " film", " by", " Hans von Herwig", "."]),
        (" (born 3 May 1990) ", [" (", "born", " 3", " May", " 1990", ")", " "]),
        ("the C. L. Franklin of old fame", ["the C. L. Franklin", " of", " old", " fame"]),
        ("  ", ["  "]),
        ("Zoë's naïve — 🦜", ["Zoë's", " naïve", " —", " 🦜"]),
    ],
)
def test_regex_phrases_are_names_and_words_with_their_articles(text: str, phrases: list[str]) -> None:
    assert regex_phrases(text) == phrases and "".join(phrases) == text


def test_tags_that_grow_together_are_inert() -> None:
    class Close(ScriptedEngine):
        """Pieces have no blank before them."""

        def score(self, requests: Sequence[ScoringRequest]) -> list[ScoredText]:
            return [
                ScoredText(tokens=("Oslo:", "<", "cut", "/answer>"), logprobs=(-9.0, -9.0, -1.0, -9.0))
                for _ in requests
            ]

    bench = Bench(documents=[Document(id="1", title="Oslo", text="<cut/answer>")], unit="token", ratio=0.2)
    close = Close(bench._reply, score=by_number)
    bench.method.setting = dataclasses.replace(bench.method.setting, engine=close)
    bench.run()
    assert bench.passages() == ["Passage 1: Oslo:‹/answer›"]


def test_where_nothing_is_found_or_left_the_model_is_told_so() -> None:
    bench = Bench(unit="token")
    bench.run([Question(id="1", text="zzz", answers=("x",))])
    assert "No passage was found." in bench.prompts[0] and bench.scored == []
    assert module.shown(["", " "]) == "No passage was found."


# --- noun chunks ---


def fake_spacy(monkeypatch: pytest.MonkeyPatch, load: Callable[[str], Any]) -> None:
    spacy = ModuleType("spacy")
    spacy.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    module._spacy_pipeline.cache_clear()
    monkeypatch.setattr(module, "_spacy_pipeline", module._spacy_pipeline.__wrapped__)


class Pipeline:
    """Merges `the` with the word after it, once the component is added."""

    def __init__(self) -> None:
        self.pipes: list[str] = []

    def add_pipe(self, name: str) -> None:
        self.pipes.append(name)

    def __call__(self, text: str) -> list[Any]:
        assert self.pipes == ["merge_noun_chunks"]
        tokens, start = [], 0
        for word in text.replace("the ", "the_").split():
            start = text.replace("the ", "the_").index(word, start)
            tokens.append(SimpleNamespace(idx=start, text=text[start : start + len(word)], is_space=False))
            start += len(word)
        return tokens


def test_noun_chunks_are_kept_or_dropped_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    fake_spacy(monkeypatch, lambda name: asked.append(name) or Pipeline())
    document = Document(id="1", title="Oslo", text="is 1 the 4 rain 8")
    bench = Bench(documents=[document], ratio=0.5)
    bench.run()
    assert asked == ["en_core_web_sm"]
    # Oslo: 5, is 1, 1 1, the 4 4, rain 8, 8 8
    assert bench.passages() == ["Passage 1: Oslo: rain 8"]


def test_phrases_without_spacy_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    module._spacy_pipeline.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"pip install spacy && python -m spacy download en_core_web_sm"):
        Bench()


def test_phrases_without_the_pipeline_name_its_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise OSError(f"[E050] Can't find model {name!r}")

    fake_spacy(monkeypatch, absent)
    with pytest.raises(MissingDependencyError, match=r"python -m spacy download en_core_web_md\. Or take another unit"):
        Bench(spacy_model="en_core_web_md")


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ConfigError, match="unit"):
        Bench(unit="word")
