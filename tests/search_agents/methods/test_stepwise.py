"""Methods written as steps: batching never shows in what a question is told, and nothing that was done is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from search_agents.config.sections import Section
from search_agents.engines.base import Capability, GenerationRequest, SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import Setting, check_method, make_method
from search_agents.methods.steps import Steps, generate_all, note, retrieve, retrieve_all, score_all, side_by_side
from search_agents.methods.stepwise import StepwiseMethod

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError, RetrieverUnavailable
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import Document, Prompt, Question, StopReason, Transcript

DOCUMENTS = tuple(
    Document(id=str(number), title=name, text=f"{name} is a town.")
    for number, name in enumerate(("Aba", "Bebe", "Coco"))
)
QUESTIONS = tuple(Question(id=name, text=f"Where is {name}?", answers=("x",)) for name in ("Aba", "Bebe", "Coco"))


class Watched(InMemoryRetriever):
    def __init__(self) -> None:
        super().__init__(DOCUMENTS)
        self.batches: list[tuple[list[str], int]] = []
        self.fails_for = ""

    def search(self, queries: Sequence[str], top_k: int) -> Any:
        self.batches.append((list(queries), top_k))
        if self.fails_for and any(self.fails_for in query for query in queries):
            raise RetrieverUnavailable("gone")
        return super().search(queries, top_k)


class Counting(ScriptedEngine):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.batches: list[list[GenerationRequest]] = []

    def generate(self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int) -> list[Any]:
        self.batches.append(list(requests))
        return super().generate(requests, chat=chat, max_tokens=max_tokens)


def setting(engine: ScriptedEngine, retriever: Watched | None = None, slots: int = 2, **more: Any) -> Setting:
    dataset = Dataset(name="towns", split="dev", questions=QUESTIONS, documents=DOCUMENTS)
    env = SearchQAVectorEnv(
        slots, dataset=dataset, retriever=retriever or Watched(), dialect="r1-searcher", prompt="base", top_k=2
    )
    given: dict[str, Any] = {"sampling": SamplingParams(max_tokens=20), "max_tokens": 300, "chat": False} | more
    return Setting(engine=engine, env=env, **given)


class Twofold(StepwiseMethod):
    """Searches as often as the name of the town has letters, and asks two things at once after each search."""

    name = "twofold"

    def answer(self, question: Question) -> Steps[str]:
        said = ""
        for round_ in range(len(question.id)):
            yield from retrieve(f"{question.id} {round_}", top_k=1 + round_ % 2)
            first, second = yield from generate_all("pair", [Prompt(user=question.text), Prompt(user="and?")])
            said = first.text + second.text
        yield from note("sum", said)
        return said


def by_id(transcripts: Sequence[Transcript]) -> dict[str, Transcript]:
    return {transcript.question.id: transcript for transcript in transcripts}


def echo(prompt: str) -> str:
    return prompt[-6:]


def test_what_several_questions_ask_for_is_one_batch_and_slots_are_filled_again() -> None:
    engine, retriever = Counting(echo), Watched()
    found = list(Twofold(setting(engine, retriever)).run(QUESTIONS))
    assert [transcript.question.id for transcript in found] == ["Aba", "Bebe", "Coco"]
    assert len(engine.batches[0]) == 4 and retriever.batches[0] == (["Aba 0", "Bebe 0"], 1)
    # Aba is done after 3 rounds; Coco takes its slot while Bebe is in its fourth.
    assert (["Coco 0"], 1) in retriever.batches and (["Bebe 3"], 2) in retriever.batches
    assert sum(map(len, engine.batches)) == 2 * (3 + 4 + 4)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_transcript_is_the_same_whatever_is_played_beside_it(slots: int) -> None:
    alone = by_id(list(Twofold(setting(Counting(echo))).run(QUESTIONS, skip={0, 1})))
    together = by_id(list(Twofold(setting(Counting(echo), slots=slots)).run(QUESTIONS)))
    assert together["Coco"] == alone["Coco"] and len(together) == 3


def test_seeds_differ_by_question_and_call_and_come_from_the_settings() -> None:
    def seeds(base: int, skip: set[int]) -> list[int]:
        engine = Counting(echo)
        list(Twofold(setting(engine, seed=base)).run(QUESTIONS, skip=skip))
        return [request.seed for batch in engine.batches for request in batch]

    assert len(set(seeds(0, set()))) == 22
    assert set(seeds(0, {0, 1})) < set(seeds(0, set())) and not set(seeds(1, set())) & set(seeds(0, set()))


def test_a_transcript_holds_searches_calls_and_notes_in_order() -> None:
    transcript = by_id(list(Twofold(setting(Counting(echo))).run(QUESTIONS)))["Aba"]
    assert transcript.queries == ("Aba 0", "Aba 1", "Aba 2")
    assert [len(turn.hits) for turn in transcript.turns] == [1, 1, 1, 0]  # one document has the word
    assert [len(turn.calls) for turn in transcript.turns] == [0, 2, 2, 3]
    *_, last, noted = transcript.turns[-1].calls
    assert (last.prompt, last.text, last.prompt_tokens, last.tokens) == ("and?", "and?", 4, 5)
    assert (noted.purpose, noted.text, noted.prompt_tokens) == ("sum", transcript.answer, 0)
    assert transcript.turns[0].observation == "Passage 1, Aba: Aba is a town."
    assert transcript.stop_reason is StopReason.ANSWERED and transcript.format.ok


def test_a_search_that_failed_makes_the_questions_of_its_batch_invalid_and_no_others() -> None:
    retriever = Watched()
    retriever.fails_for = "Bebe"
    found = by_id(list(Twofold(setting(Counting(echo), retriever, slots=1)).run(QUESTIONS)))
    assert found["Bebe"].stop_reason is StopReason.RETRIEVER_UNAVAILABLE and found["Bebe"].answer is None
    assert found["Aba"].stop_reason is found["Coco"].stop_reason is StopReason.ANSWERED


def test_a_prompt_without_room_ends_the_question_without_an_answer() -> None:
    found = list(Twofold(setting(Counting(echo), max_tokens=5)).run(QUESTIONS[:1]))
    assert found[0].stop_reason is StopReason.MAX_TOKENS and found[0].answer is None and not found[0].format.ok


def test_a_step_may_lower_the_budget_and_change_the_temperature_but_never_raise_the_budget() -> None:
    class Wordy(StepwiseMethod):
        name = "wordy"

        def answer(self, question: Question) -> Steps[str]:
            yield from generate_all("a", [Prompt(user="q")], max_tokens=1000, temperature=0.5, stop=("x",))
            yield from generate_all("b", [Prompt(user="q")], max_tokens=3)
            return ""

    engine = Counting(echo)
    (transcript,) = Wordy(setting(engine)).run(QUESTIONS[:1])
    params = [batch[0].sampling for batch in engine.batches]
    assert params[0] == SamplingParams(max_tokens=20, temperature=0.5, stop=("x",))
    assert params[1] == SamplingParams(max_tokens=3, temperature=1.0)
    assert transcript.answer == "" and transcript.format.problems == ("the answer is empty",)


def test_branches_run_side_by_side_and_return_in_order() -> None:
    def branch(letter: str, rounds: int) -> Steps[str]:
        said = []
        for round_ in range(rounds):
            hits = yield from retrieve(f"{letter}{round_}")
            said.append(str(len(hits)))
        return letter + "".join(said)

    class Branches(StepwiseMethod):
        name = "branches"

        def answer(self, question: Question) -> Steps[str]:
            empty = yield from side_by_side([])
            parts = yield from side_by_side([branch("a", 2), branch("b", 0), branch("c", 3)])
            await_all = yield from retrieve_all(["Aba", "town"])
            return " ".join([*empty, *parts, str([len(hits) for hits in await_all])])

    retriever = Watched()
    (transcript,) = Branches(setting(Counting(echo), retriever)).run(QUESTIONS[:1])
    assert [queries for queries, _ in retriever.batches] == [["a0", "c0"], ["a1", "c1"], ["c2"], ["Aba", "town"]]
    assert transcript.answer == "a00 b c000 [1, 2]"


def test_scores_are_counted_as_calls() -> None:
    class Likely(StepwiseMethod):
        name = "likely"
        needs = frozenset({Capability.SCORE})

        def answer(self, question: Question) -> Steps[str]:
            (scored,) = yield from score_all("likelihood", [("some context", "two words")])
            return f"{scored.tokens} {sum(scored.logprobs)}"

    engine = ScriptedEngine(echo, score=lambda context, text: [-1.0] * len(text.split()))
    (transcript,) = Likely(setting(engine)).run(QUESTIONS[:1])
    assert transcript.answer == "('two', ' words') -2.0"
    assert transcript.turns[-1].calls[0].prompt_tokens == 4 and engine.capabilities >= Likely.needs


# --- the registry ---


def test_a_method_that_needs_more_than_the_engine_can_says_so_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    from search_agents.methods import naive

    monkeypatch.setattr(naive.NaiveGeneration, "needs", frozenset({Capability.SCORE, Capability.GENERATE}))
    with pytest.raises(ConfigError, match="needs an engine that can score, and scripted cannot: it can generate"):
        make_method("naive-generation", setting(ScriptedEngine(echo)))


def test_a_spec_with_options_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    from search_agents.methods import naive

    class Options(Section):
        rounds: int = 3

    monkeypatch.setattr(naive.NaiveGeneration, "Options", Options)
    made = make_method({"name": "naive-generation", "rounds": 2}, setting(ScriptedEngine(echo)))
    assert made.options.rounds == 2  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"rounds: .*integer.* Its options: rounds"):
        check_method({"name": "naive-generation", "rounds": "many"})
    with pytest.raises(ConfigError, match="Its options: rounds"):
        check_method({"name": "naive-generation", "round": 2})
    with pytest.raises(ConfigError, match="'oracle' has no options; got k"):
        check_method({"name": "oracle", "k": 2})
    with pytest.raises(ConfigError, match="mapping with the key 'name'"):
        check_method({"rounds": 2})
