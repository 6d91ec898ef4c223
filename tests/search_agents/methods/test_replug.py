"""What several documents answer together: tokens of the shipped model, and answers of a scripted one."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import search_agents
from search_agents.engines.base import Completion, Engine, FinishReason, GenerationRequest, SamplingParams
from search_agents.engines.mixture import MixtureRequest, generate_mixtures
from search_agents.engines.scripted import ScriptedEngine
from search_agents.engines.transformers import TransformersEngine
from search_agents.methods import Setting, make_method
from search_agents.methods.prompts import passages, short_answer_prompt
from search_agents.methods.replug import document_weights, likelihood, vote
from search_agents.methods.standard_rag import READ_AND_ANSWER

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError, ModelError
from search_env.types import Call, Document, Hit, Prompt, Question, StopReason, Transcript

DOCUMENTS = tuple(
    Document(id=str(number), title=f"Page {number}", text=f"Page {number} is of the year {1900 + number}.")
    for number in range(5)
)
QUESTIONS = tuple(
    Question(id=str(number), text=f"Which year is Page {number} of <answer>?", answers=("x",)) for number in range(3)
)


class Ranked:
    """A retriever that finds the given documents with the given scores, whatever is asked."""

    fingerprint = "ranked"

    def __init__(self, scores: Sequence[float], documents: Sequence[Document] = DOCUMENTS):
        self.hits = tuple(
            Hit(document=document, score=score) for document, score in zip(documents, scores, strict=False)
        )
        self.asked: list[int] = []

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        self.asked.append(len(queries))
        return [self.hits[:top_k] for _ in queries]


class Sure(ScriptedEngine):
    """Answers by the passage in its prompt, every token of an answer with the given probability."""

    def __init__(self, said: dict[str, tuple[str, float]]):
        super().__init__(lambda prompt: f" {self._said(prompt)[0]}\n")
        self.said, self.temperatures = said, set[float]()

    def encode_prompt(self, prompt: Prompt, *, chat: bool) -> list[int]:
        return self.tokenizer.encode(prompt.text)

    def generate(self, requests: Sequence[GenerationRequest], **more: Any) -> list[Completion | None]:
        self.temperatures |= {request.sampling.temperature for request in requests}
        texts = super().generate(requests, **more)
        told = [self._said(request.prompt.text)[1] for request in requests]
        return [
            text and dataclasses.replace(text, logprobs=(*[math.log(each)] * (text.tokens - 1), -50.0))
            for text, each in zip(texts, told, strict=True)
        ]

    def _said(self, prompt: str) -> tuple[str, float]:
        found = re.search(r"Passage 1, (Page \d)", prompt)
        return self.said[found[1] if found else ""]


@pytest.fixture(scope="module")
def tiny() -> TransformersEngine:
    folder = Path(search_agents.__file__).parent / "models" / "fictional-wiki"
    return TransformersEngine.from_pretrained(folder, dtype="float32")


def make_setting(engine: Engine, retriever: Ranked, top_k: int = 3, **more: Any) -> Setting:
    dataset = Dataset(name="tiny", split="dev", questions=QUESTIONS, documents=DOCUMENTS)
    env = SearchQAVectorEnv(4, data=dataset, dataset="custom", retriever=retriever, top_k=top_k, prompt="base")
    settings = {"sampling": SamplingParams(temperature=0.0, max_tokens=12), "max_tokens": 400, "chat": False} | more
    return Setting(engine=engine, env=env, **settings)


def run(
    setting: Setting, questions: Sequence[Question] = QUESTIONS, method: str = "replug", **options: Any
) -> list[Transcript]:
    found = list(make_method({"name": method} | options, setting).run(questions))
    return sorted(found, key=lambda transcript: transcript.question.id)


def calls(transcript: Transcript) -> list[Call]:
    return [call for turn in transcript.turns for call in turn.calls]


# --- mixing tokens ---


def test_tokens_come_from_the_mixture_over_one_prompt_a_document(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[MixtureRequest] = []
    written: list[Completion | None] = []

    def watched(engine: Any, requests: Sequence[MixtureRequest], **more: Any) -> list[Completion | None]:
        seen.extend(requests)
        written.extend(generate_mixtures(engine, requests, **more))
        return written

    monkeypatch.setattr("search_agents.engines.mixture.generate_mixtures", watched)
    scores = (9.0, 6.0, 3.0)
    retriever = Ranked(scores)
    (transcript,) = run(make_setting(tiny, retriever), QUESTIONS[:1], score_temperature=4.0)
    parts = [math.exp(score / 4.0) for score in scores]
    weights = [part / sum(parts) for part in parts]
    (request,), (expected,) = seen, written
    assert request.weights == pytest.approx(weights)
    assert request.sampling == SamplingParams(temperature=0.0, max_tokens=12, stop=("\n",))
    assert request.prompts == tuple(
        short_answer_prompt(
            f"{READ_AND_ANSWER}\n\n{passages([hit])}\n", "Which year is Page 0 of ‹answer›?", chat=False
        )
        for hit in retriever.hits[:3]
    )
    assert expected is not None and expected.text.strip()
    note, call = calls(transcript)
    assert (note.purpose, note.text) == ("weights of the documents", ", ".join(f"{each:.3f}" for each in weights))
    assert (call.purpose, call.text, call.tokens) == ("answer", expected.text, expected.tokens)
    assert call.prompt_tokens == expected.prompt_tokens
    assert [call.prompt.count(f"Passage 1, Page {number}") for number in range(4)] == [1, 1, 1, 0]
    assert transcript.answer == expected.text.strip().splitlines()[0].strip()
    assert transcript.queries == (QUESTIONS[0].text,)


def test_one_document_is_standard_rag_with_that_document(tiny: TransformersEngine) -> None:
    for temperature in (0.0, 1.0):
        sampling = SamplingParams(temperature=temperature, max_tokens=12)
        setting = make_setting(tiny, Ranked([3.0]), sampling=sampling)
        single, rag = run(setting), run(setting, method="standard-rag")
        assert [each.answer for each in single] == [each.answer for each in rag]
        assert any(each.answer for each in rag)


def test_the_same_document_several_times_is_that_document(tiny: TransformersEngine) -> None:
    once = run(make_setting(tiny, Ranked([3.0])))
    thrice = run(make_setting(tiny, Ranked([9.0, 3.0, 1.0], [DOCUMENTS[0]] * 3)))
    assert [each.answer for each in thrice] == [each.answer for each in once]


def test_the_order_in_which_documents_are_found_does_not_matter(tiny: TransformersEngine) -> None:
    scores = (3.0, 2.0, 1.0)
    one = run(make_setting(tiny, Ranked(scores)))
    other = run(make_setting(tiny, Ranked(scores[::-1], DOCUMENTS[2::-1])))
    assert [each.answer for each in one] == [each.answer for each in other]


def test_all_questions_in_play_are_one_search_and_one_session(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    real = tiny.open

    def watched(prompts: Any, **more: Any) -> Any:
        opened.append(len(prompts))
        return real(prompts, **more)

    monkeypatch.setattr(tiny, "open", watched)
    retriever = Ranked([3.0, 2.0, 1.0])
    together = run(make_setting(tiny, retriever))
    assert (opened, retriever.asked) == ([9], [3])
    alone = [run(make_setting(tiny, retriever), [question])[0] for question in QUESTIONS]
    assert [each.answer for each in alone] == [each.answer for each in together]


def test_nothing_found_is_one_branch_that_says_so(tiny: TransformersEngine) -> None:
    (transcript,) = run(make_setting(tiny, Ranked([])), QUESTIONS[:1])
    note, call = calls(transcript)
    assert note.text == "1.000" and "No passage was found." in call.prompt
    assert transcript.stop_reason is StopReason.ANSWERED


def test_a_document_that_leaves_no_room_costs_the_answer_and_not_the_run(tiny: TransformersEngine) -> None:
    transcripts = run(make_setting(tiny, Ranked([3.0, 2.0]), max_tokens=30))
    assert {each.stop_reason for each in transcripts} == {StopReason.MAX_TOKENS}
    assert [each.answer for each in transcripts] == [None] * 3


def test_an_engine_without_distributions_is_sent_to_the_other_mode() -> None:
    with pytest.raises(ConfigError, match="mode: answer"):
        make_method("replug", make_setting(Sure({}), Ranked([])))


# --- mixing answers ---


@pytest.mark.parametrize(
    ("said", "scores", "answer"),
    [
        # the first document counts e times the second, and e*e times the third
        ({"Page 0": ("Oslo", 0.5), "Page 1": ("Lima", 0.5), "Page 2": ("Lima", 0.5)}, (2, 1, 0), "Oslo"),
        ({"Page 0": ("Oslo", 0.2), "Page 1": ("Lima", 0.5), "Page 2": ("Lima", 0.5)}, (2, 1, 0), "Lima"),
        ({"Page 0": ("Oslo", 0.5), "Page 1": ("Lima", 0.5), "Page 2": ("Lima", 0.5)}, (0, 0, 0), "Lima"),
        ({"Page 0": ("Oslo", 0.9), "Page 1": ("Lima", 0.4), "Page 2": ("Lima", 0.4)}, (0, 0, 0), "Oslo"),
        ({"Page 0": ("The Oslo!", 0.4), "Page 1": ("Lima", 0.7), "Page 2": ("oslo", 0.4)}, (0, 0, 0), "The Oslo!"),
        ({"Page 0": ("Oslo", 0.5), "Page 1": ("Lima", 0.5), "Page 2": ("Kyiv", 0.5)}, (0, 0, 0), "Oslo"),
        ({"Page 0": ("a very long answer indeed", 0.6), "Page 1": ("Lima", 0.5)}, (0, 0), "a very long answer indeed"),
    ],
)
def test_answers_weigh_by_document_and_likelihood(said: Any, scores: Sequence[float], answer: str) -> None:
    engine = Sure(said)
    sampling = SamplingParams(temperature=1.0, max_tokens=100)
    setting = make_setting(engine, Ranked(scores), max_tokens=2000, sampling=sampling)
    (transcript,) = run(setting, QUESTIONS[:1], mode="answer", score_temperature=1.0)
    assert transcript.answer == answer
    assert engine.temperatures == {0.0}
    purposes = [call.purpose for call in calls(transcript)]
    assert purposes == ["weights of the documents", *["answer to one document"] * len(scores), "weights of the answers"]


@pytest.mark.parametrize("chat", [True, False])
def test_what_a_model_says_after_its_answer_is_not_weighed(chat: bool) -> None:
    engine = Sure({"Page 0": ("Oslo\nIt is said there.", 0.5), "Page 1": ("Lima", 0.4)})
    (transcript,) = run(
        make_setting(engine, Ranked([1.0, 1.0]), max_tokens=2000, chat=chat), QUESTIONS[:1], mode="answer"
    )
    assert [call.text for call in calls(transcript)[1:3]] == [" Oslo\n", " Lima\n"]
    assert calls(transcript)[-1].text == "0.250 Oslo\n0.200 Lima"


def test_the_weights_of_the_answers_are_in_the_transcript() -> None:
    engine = Sure({"Page 0": ("Oslo", 0.5), "Page 1": ("Lima", 0.25), "Page 2": ("oslo", 0.75)})
    setting = make_setting(engine, Ranked([1.0, 1.0, 1.0]), max_tokens=2000)
    (transcript,) = run(setting, QUESTIONS[:1], mode="answer")
    assert calls(transcript)[-1].text == "0.417 Oslo\n0.083 Lima"


@pytest.mark.parametrize(
    ("logprobs", "finish", "mean"),
    [
        ((-1.0, -3.0, -9.0), FinishReason.EOS, -2.0),
        ((-1.0, -3.0, -9.0), FinishReason.STOP, -2.0),
        ((-1.0, -3.0, -5.0), FinishReason.LENGTH, -3.0),
        ((-9.0,), FinishReason.EOS, -9.0),
    ],
)
def test_the_ending_of_an_answer_is_no_part_of_its_likelihood(logprobs: Any, finish: Any, mean: float) -> None:
    assert likelihood(Completion(text="x", finish=finish, logprobs=logprobs)) == pytest.approx(math.exp(mean))


def test_an_ending_that_a_server_leaves_out_is_not_taken_off_an_answer() -> None:
    told = Completion(text="x", finish=FinishReason.EOS, logprobs=(-1.0, -3.0), tells_ending=False)
    assert likelihood(told) == pytest.approx(math.exp(-2.0))
    assert likelihood(Completion(text="", finish=FinishReason.EOS, tells_ending=False)) == 0.0


def test_an_engine_that_tells_no_log_probs_is_named() -> None:
    with pytest.raises(ModelError, match="log-probs"):
        likelihood(Completion(text="x", finish=FinishReason.EOS))


def test_votes_for_the_same_answer_add_up_whatever_the_order() -> None:
    votes = [("Oslo", 0.2), ("Lima", 0.3), ("the oslo.", 0.25)]
    assert vote(*zip(*votes, strict=True)) == pytest.approx({"Oslo": 0.45, "Lima": 0.3})
    assert vote(*zip(*votes[::-1], strict=True)) == pytest.approx({"the oslo.": 0.45, "Lima": 0.3})


# --- the weights of documents ---


def test_weights_are_a_softmax_with_a_temperature() -> None:
    assert document_weights([2.0, 1.0], 1.0) == pytest.approx((math.e / (1 + math.e), 1 / (1 + math.e)))
    assert document_weights([20.0, 10.0], 10.0) == pytest.approx(document_weights([2.0, 1.0], 1.0))
    assert document_weights([5000.0, 0.0], 1.0) == (1.0, 0.0)
    assert document_weights([7.0], 6.0) == (1.0,)
    assert sum(document_weights([45.8, 35.6, 30.7, 28.6, 26.9], 6.0)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("options", [{"mode": "logit"}, {"score_temperature": 0.0}, {"top_k": 0}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"replug.*{next(iter(options))}"):
        make_method({"name": "replug"} | options, make_setting(Sure({}), Ranked([])))
