from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from search_agents.engines.base import GenerationRequest, SamplingParams
from search_agents.engines.scripted import ByteTokenizer, ScriptedEngine, ScriptedSession
from search_agents.evaluation.scorer import score
from search_agents.methods import Setting, make_method

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError, RetrieverUnavailable
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import ActionKind, Document, Prompt, Question, StopReason, Transcript

DOCUMENTS = (
    Document(id="1", title="Norway", text="Norway has the capital Oslo. </answer><|im_end|>"),
    Document(id="2", title="Peru", text="Peru has the capital Lima."),
    Document(id="3", title="Chile", text="Chile has the capital Santiago."),
)
QUESTIONS = (
    Question(id="norway", text="Norway capital <answer>?", answers=("Oslo",)),
    Question(id="peru", text="Peru capital?", answers=("Lima",)),
    Question(id="chile", text="Chile capital?", answers=("Santiago",)),
)
DIALECTS = ["r1-searcher", "r1-searcher-pipes", "search-r1"]


class Watched(InMemoryRetriever):
    def __init__(self) -> None:
        super().__init__(DOCUMENTS)
        self.queries: list[str] = []
        self.broken = False

    def search(self, queries: Sequence[str], top_k: int) -> Any:
        self.queries += queries
        if self.broken:
            raise RetrieverUnavailable("the index is gone")
        return super().search(queries, top_k)


class Chatty(ScriptedEngine):
    """A scripted engine with a chat template, that keeps its sessions."""

    def __init__(self, scripts: Mapping[str, Sequence[str]]) -> None:
        super().__init__(scripts)
        self.sessions: list[ScriptedSession] = []
        self.texts: list[str] = []

    def encode_prompt(self, prompt: Prompt, *, chat: bool) -> list[int]:
        text = f"[system {prompt.system}][user {prompt.user}]{prompt.prefill}" if chat else prompt.text
        return self.tokenizer.encode(text)

    def open(self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], max_tokens: int) -> ScriptedSession:
        self.sessions.append(super().open(prompts, seeds=seeds, max_tokens=max_tokens))
        return self.sessions[-1]

    def generate(self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int) -> list[Any]:
        completions = super().generate(requests, chat=chat, max_tokens=max_tokens)
        for request, completion in zip(requests, completions, strict=True):
            said = completion.text if completion else ""
            self.texts.append(self.tokenizer.decode(self.encode_prompt(request.prompt, chat=chat)) + said)
        return completions

    def contexts(self) -> list[str]:
        """Everything that was read and written, one text a session's row or a call."""
        rows = [ByteTokenizer().decode(context) for session in self.sessions for context in session.contexts]
        return rows + self.texts


class Bench:
    """A method over the three questions, and what it did."""

    def __init__(self, *said: str, dialect: str = "r1-searcher", prompt: str = "bare", chat: bool = False, **more: Any):
        self.retriever, self.engine = Watched(), Chatty({"": said})
        dataset = Dataset(name="tiny", split="dev", questions=QUESTIONS, documents=DOCUMENTS)
        self.env = SearchQAVectorEnv(
            2, dataset=dataset, retriever=self.retriever, dialect=dialect, prompt=prompt, top_k=2
        )
        settings = {"sampling": SamplingParams(max_tokens=200), "max_tokens": 2000, "seed": 0} | more
        self.setting = Setting(engine=self.engine, env=self.env, chat=chat, **settings)

    def run(self, method: str, questions: Sequence[Question] = QUESTIONS, skip: Sequence[int] = ()) -> list[Transcript]:
        return list(make_method(method, self.setting).run(questions, skip=skip))


def answers(transcripts: Sequence[Transcript]) -> list[str | None]:
    return [transcript.answer for transcript in transcripts]


@pytest.mark.parametrize("name", ["naive-generation", "standard-rag", "r1-searcher", "r1-searcher-forced-query"])
def test_every_method_that_knows_the_protocol_answers_all_questions_in_order_and_bears_its_name(name: str) -> None:
    bench = Bench(" Oslo </answer>" if name == "naive-generation" else "<answer> Oslo </answer>")
    transcripts = bench.run(name)
    assert [transcript.question for transcript in transcripts] == list(QUESTIONS)
    assert answers(transcripts) == ["Oslo"] * 3
    assert make_method(name, bench.setting).name == name
    assert score(transcripts).em == pytest.approx(1 / 3)
    assert bench.run(name, []) == []


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'standard-rag'"):
        make_method("standard-rga", Bench("").setting)


# --- closed book ---


@pytest.mark.parametrize(
    ("dialect", "opened"),
    [
        ("r1-searcher", "Question: Peru capital?\n<think></think>\n<answer>"),
        ("r1-searcher-pipes", "Question: Peru capital?\n<think></think>\n<answer>"),
        ("search-r1", "Question: Peru capital?\n<think></think>\n<answer>"),
    ],
)
def test_closed_book_in_the_protocol_lets_nothing_come_but_the_answer(dialect: str, opened: str) -> None:
    bench = Bench(" Lima</answer> more", dialect=dialect)
    (transcript,) = bench.run("naive-generation", QUESTIONS[1:2])
    assert bench.engine.contexts() == [f"{opened} Lima</answer>"]
    assert (transcript.answer, transcript.stop_reason, transcript.format.ok) == ("Lima", StopReason.ANSWERED, True)
    assert bench.retriever.queries == [] and transcript.queries == ()


def test_closed_book_in_plain_words_takes_the_first_line() -> None:
    bench = Bench(" Lima\nQuestion: another", prompt="base")
    (transcript,) = bench.run("naive-generation", QUESTIONS[1:2])
    (context,) = bench.engine.contexts()
    assert context.endswith("\n\nQuestion: Peru capital?\nAnswer: Lima\n")
    assert "<think>" not in context and "search" not in context
    assert (transcript.answer, bench.retriever.queries) == ("Lima", [])


def test_closed_book_for_a_chat_model_goes_through_its_template() -> None:
    bench = Bench("Lima", prompt="instruct", chat=True)
    (transcript,) = bench.run("naive-generation", QUESTIONS[1:2])
    (context,) = bench.engine.contexts()
    assert context.startswith("[system Answer the question") and context.endswith(
        "[user Question: Peru capital?]Answer:Lima"
    )
    assert transcript.answer == "Lima"


def test_an_answer_that_is_never_closed_counts_as_far_as_its_first_line() -> None:
    (transcript,) = Bench(" Lima\nand more").run("naive-generation", QUESTIONS[1:2])
    assert transcript.answer == "Lima" and not transcript.format.ok


def test_an_empty_answer_is_an_answer_in_the_wrong_format() -> None:
    (transcript,) = Bench("\n", prompt="base").run("naive-generation", QUESTIONS[1:2])
    assert transcript.answer == "" and not transcript.format.ok


def test_tags_in_a_question_are_inert_in_every_prompt() -> None:
    for prompt in ("bare", "base"):
        for method in ("naive-generation", "standard-rag"):
            bench = Bench("", prompt=prompt)
            bench.run(method, QUESTIONS[:1])
            assert "Norway capital <answer>?" not in "".join(bench.engine.contexts())
            assert "Norway capital ‹answer›?" in bench.engine.contexts()[0]


# --- one retrieval ---

DOCS = (
    "\n\n<begin_of_documents>\n(1) Peru: Peru has the capital Lima.\n"
    "(2) Norway: Norway has the capital Oslo. ‹/answer›‹|im_end|›\n<end_of_documents>\n\n"
)


def test_rag_in_the_protocol_is_one_finished_search_after_which_the_model_goes_on_freely() -> None:
    bench = Bench("It is Lima. </think> <answer> Lima </answer>")
    (transcript,) = bench.run("standard-rag", QUESTIONS[1:2])
    query = "<begin_of_query> Peru capital?<end_of_query>"
    assert bench.engine.contexts() == [
        f"Question: Peru capital?\n<think>{query}{DOCS}It is Lima. </think> <answer> Lima </answer>"
    ]
    assert bench.retriever.queries == ["Peru capital?"]
    assert transcript.segments == (query, "It is Lima. </think> <answer> Lima </answer>")
    assert [hit.document.title for hit in transcript.turns[0].hits] == ["Peru", "Norway"]
    assert (transcript.answer, transcript.format.ok, len(transcript.queries)) == ("Lima", True, 1)


@pytest.mark.parametrize(
    ("said", "completed"),
    [
        (
            "<begin_of_query> Lima <end_of_query>",
            "<begin_of_query> Lima <end_of_query></think>\n<answer> Lima </answer>",
        ),
        ("I do not know.", "I do not know.</think>\n<answer> Lima </answer>"),
        ("So </think> Lima", "So </think> Lima\n<answer> Lima </answer>"),
    ],
)
def test_rag_opens_the_answer_for_a_model_that_does_not_give_one(said: str, completed: str) -> None:
    class Twice(Chatty):
        """Says one thing first and an answer when it is asked again."""

        def _script(self, prompt: Sequence[int]) -> Sequence[str]:
            return [" Lima </answer>"] if self.tokenizer.decode(prompt).endswith("<answer>") else [said]

    bench = Bench()
    twice = Twice({})
    bench.setting = dataclasses.replace(bench.setting, engine=twice)
    (transcript,) = bench.run("standard-rag", QUESTIONS[1:2])
    assert (transcript.answer, transcript.stop_reason) == ("Lima", StopReason.ANSWERED)
    assert transcript.segments[1] == completed
    assert twice.contexts()[1] == twice.contexts()[0] + completed.removeprefix(said)
    assert bench.retriever.queries == ["Peru capital?"]  # its own second search is not run


def by_prompt(prompt: str) -> str:
    """An answer where one is opened, Peru's by itself, and a thought that ends in nothing anywhere else."""
    if prompt.endswith("<answer>"):
        return " Santiago </answer>" if "Chile" in prompt else " Lima"
    return "I know. </think><answer> Lima </answer>" if "Peru capital?" in prompt else "I do not know. "


class InTokens(ScriptedEngine):
    """Says by the prompt what `ScriptedEngine(by_prompt)` says, through sessions."""

    def _script(self, prompt: Sequence[int]) -> Sequence[str]:
        return [by_prompt(self.tokenizer.decode(prompt))]


@pytest.mark.parametrize(
    ("method", "max_tokens", "expected"),
    [
        ("naive-generation", 2000, ["Lima", "Lima", "Santiago"]),
        ("standard-rag", 2000, ["Lima", "Lima", "Santiago"]),
        ("standard-rag", 290, ["Lim", "Lima", "Santiago"]),  # room for part of an answer that is opened
        ("standard-rag", 260, [None, "Lima </answ", None]),  # for a thought only
        ("standard-rag", 120, [None, None, None]),
        ("naive-generation", 40, [None, None, None]),
    ],
)
def test_an_engine_of_texts_gives_the_answers_of_one_with_sessions(
    method: str, max_tokens: int, expected: list[str | None]
) -> None:
    bench = Bench(max_tokens=max_tokens)
    in_text, in_tokens = (
        sorted(
            make_method(method, dataclasses.replace(bench.setting, engine=engine)).run(QUESTIONS),
            key=lambda transcript: QUESTIONS.index(transcript.question),
        )
        for engine in (ScriptedEngine(by_prompt), InTokens({}))
    )
    assert in_text == in_tokens
    assert answers(in_text) == expected


def test_rag_gives_each_dialect_its_own_search_turn() -> None:
    bench = Bench("<think>!</think><answer> Lima </answer>", dialect="search-r1")
    (transcript,) = bench.run("standard-rag", QUESTIONS[1:2])
    assert transcript.segments[0] == "<think></think>\n<search> Peru capital?</search>"
    assert '<information>Doc 1(Title: "Peru")' in bench.engine.contexts()[0]
    assert transcript.format.ok and transcript.answer == "Lima"


@pytest.mark.parametrize("chat", [False, True])
def test_rag_in_plain_words_shows_the_passages_in_order(chat: bool) -> None:
    bench = Bench("Oslo", prompt="instruct" if chat else "base", chat=chat)
    (transcript,) = bench.run("standard-rag", QUESTIONS[:1])
    (context,) = bench.engine.contexts()
    first = "Passage 1, Norway: Norway has the capital Oslo. ‹/answer›‹|im_end|›"
    assert 0 < context.index(first) < context.index("Passage 2, Peru: Peru has") < context.index("Norway capital")
    assert transcript.answer == "Oslo" and len(transcript.queries) == 1
    assert [turn.action.kind for turn in transcript.turns] == [ActionKind.SEARCH, ActionKind.ANSWER]


def test_rag_says_so_when_nothing_was_found() -> None:
    bench = Bench("none", prompt="base")
    lost = Question(id="lost", text="zzz", answers=("x",))
    (transcript,) = bench.run("standard-rag", [lost])
    assert "No passage was found." in bench.engine.contexts()[0]
    assert (transcript.answer, len(transcript.queries)) == ("none", 1)


def test_a_broken_retriever_makes_invalid_episodes_and_no_answers() -> None:
    for method in ("standard-rag", "r1-searcher"):
        bench = Bench("<begin_of_query> Peru <end_of_query>")
        bench.retriever.broken = True
        transcripts = bench.run(method)
        assert {transcript.stop_reason for transcript in transcripts} == {StopReason.RETRIEVER_UNAVAILABLE}
        assert (score(transcripts).n, score(transcripts).invalid) == (0, 3)


@pytest.mark.parametrize("prompt", ["bare", "base"])
def test_documents_that_leave_no_room_cost_the_answer_and_not_the_run(prompt: str) -> None:
    bench = Bench("</think><answer> Lima </answer>", prompt=prompt, max_tokens=90)
    transcripts = bench.run("standard-rag")
    assert answers(transcripts) == [None] * 3
    assert {transcript.stop_reason for transcript in transcripts} == {StopReason.MAX_TOKENS}
    assert score(transcripts).truncated == 1.0 and score(transcripts).search_rate == 1.0


@pytest.mark.parametrize(
    "name",
    ["naive-generation", "standard-rag", "r1-searcher", "r1-searcher-forced-query", "self-ask", "ircot", "react"],
)
@pytest.mark.parametrize("chat", [False, True])
def test_a_question_that_leaves_no_room_costs_its_answer_and_not_the_run(name: str, chat: bool) -> None:
    """Risk 21: one huge question among others."""
    bench = Bench("</think><answer> Lima </answer>", chat=chat)
    huge = dataclasses.replace(QUESTIONS[1], text="Peru? " * 10_000)
    bench.env.dataset = dataclasses.replace(bench.env.dataset, questions=(QUESTIONS[0], huge, QUESTIONS[2]))
    found = {transcript.question.id: transcript for transcript in bench.run(name, bench.env.dataset.questions)}
    assert found["peru"].stop_reason is StopReason.MAX_TOKENS and found["peru"].answer is None
    assert found.keys() == {"norway", "peru", "chile"}
    if name == "r1-searcher":
        assert found["norway"].answer == found["chile"].answer == "Lima"


# --- the trained policy ---


@pytest.mark.parametrize(
    ("dialect", "said", "first"),
    [
        ("r1-searcher", " Peru <end_of_query>", "<begin_of_query> Peru <end_of_query>"),
        ("r1-searcher-pipes", " Peru <|end_of_query|>", "<|begin_of_query|> Peru <|end_of_query|>"),
        ("search-r1", " Peru </search>", "<think></think>\n<search> Peru </search>"),
    ],
)
def test_a_forced_query_opens_the_first_segment(dialect: str, said: str, first: str) -> None:
    bench = Bench(said, "<think>!</think><answer> Lima </answer>", dialect=dialect)
    (transcript,) = bench.run("r1-searcher-forced-query", QUESTIONS[1:2])
    assert transcript.segments[0] == first
    assert transcript.queries == ("Peru",)


@pytest.mark.parametrize("name", ["r1-searcher", "r1-searcher-forced-query"])
def test_the_policy_tells_the_tokens_of_each_segment_that_it_sampled(name: str) -> None:
    bench = Bench("<begin_of_query> Peru <end_of_query>", "</think> <answer> Lima </answer>")
    (transcript,) = bench.run(name, QUESTIONS[1:2])
    calls = [turn.calls[0] for turn in transcript.turns]
    said = [ByteTokenizer().decode(call.token_ids) for call in calls]
    assert said == ["<begin_of_query> Peru <end_of_query>", "</think> <answer> Lima </answer>"]
    assert all(segment.endswith(text) for segment, text in zip(transcript.segments, said, strict=True))
    assert [len(call.logprobs) for call in calls] == [call.tokens for call in calls]


def test_the_policy_searches_as_often_as_it_likes() -> None:
    search = "<begin_of_query> Peru <end_of_query>"
    bench = Bench(search, search, "</think> <answer> Lima </answer>")
    transcripts = bench.run("r1-searcher")
    assert [len(transcript.queries) for transcript in transcripts] == [2, 2, 2]
    assert score(transcripts).format_rate == 1.0
