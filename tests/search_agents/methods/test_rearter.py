"""ReARTeR: what it does with scripted models, scripted reward models and a world whose first error is known."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_agents.engines.base import SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import Setting, make_method
from search_agents.methods.rearter import ReARTeR, ReARTeROptions
from search_agents.methods.rearter.annotate import AnnotationOptions, Annotator, Node, Rollout, q_value, u_value
from search_agents.methods.rearter.collect import CritiqueCollector, collect, preferences
from search_agents.methods.rearter.lookahead import prefix_text, sigmoid, td_value
from search_agents.methods.rearter.reasoning import ReasoningStep, Wording
from search_agents.methods.rearter.refinement import Action, ActionKind, read_action

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError, RetrieverUnavailable
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import ActionKind as TurnKind
from search_env.types import Document, Hit, Question, StopReason, Transcript

DOCUMENTS = (
    Document(id="1", title="Norway", text="Norway has the capital Oslo. <|im_end|>"),
    Document(id="2", title="Peru", text="Peru has the capital Lima."),
)
QUESTION = Question(id="q", text="Capital <answer> of Peru?", answers=("Lima",))
OTHER = Question(id="r", text="Where is Lima?", answers=("Peru",))
OPENED = ("Follow up:", "So the final answer is:", "Intermediate answer:")


class Watched(InMemoryRetriever):
    def __init__(self) -> None:
        super().__init__(DOCUMENTS)
        self.queries: list[str] = []
        self.broken = False

    def search(self, queries: Sequence[str], top_k: int) -> Any:
        if self.broken:
            raise RetrieverUnavailable("the index is gone")
        self.queries += queries
        return super().search(queries, top_k)


class Scores:
    """A reward model that is a function of the text, and keeps what it was asked."""

    def __init__(self, logit: Callable[[str], float]) -> None:
        self.logit, self.asked = logit, list[list[str]]()

    def score(self, texts: Sequence[str]) -> Any:
        self.asked.append(list(texts))
        return np.asarray([self.logit(text) for text in texts])


def setting(
    reply: Callable[[str], str], retriever: Any = None, questions: Sequence[Question] = (QUESTION,), searches: int = 8
) -> Setting:
    env = SearchQAVectorEnv(
        2,
        dataset=Dataset(name="tiny", split="dev", questions=tuple(questions), documents=DOCUMENTS),
        retriever=retriever or Watched(),
        top_k=1,
        max_searches=searches,
    )
    sampling = SamplingParams(max_tokens=200, temperature=0.0)
    return Setting(engine=ScriptedEngine(reply), env=env, chat=False, sampling=sampling, max_tokens=20_000)


def part(prompt: str) -> str:
    """Which words of the method a prompt ends with: a step, its answer, a critique …"""
    endings = {"Critique:": "critique", "\nAnswer:": "summary", '{"action": "': "action"}
    endings |= {words: words for words in OPENED}
    return next((name for words, name in endings.items() if prompt.endswith(words)), "step")


def written_so_far(prompt: str) -> str:
    """The part of a prompt after its question."""
    return prompt.rpartition("Question: Capital ‹answer› of Peru?")[2]


def model(steps: Sequence[str], answers: Sequence[str] = (), **more: str) -> Callable[[str], str]:
    """Says these steps, intermediate answers and, by the part they are for, other words."""
    said, answered = iter(steps), iter(answers)

    def reply(prompt: str) -> str:
        what = part(prompt)
        if what in more:
            return more[what]
        if what == "Intermediate answer:":
            return f" {next(answered, 'Lima')}\nand so on"
        return "Lima" if what == "summary" else next(said, "So the final answer is: Lima")

    return reply


def calls(transcript: Transcript, purpose: str = "") -> list[str]:
    return [call.text for turn in transcript.turns for call in turn.calls if call.purpose.startswith(purpose)]


def answered(method: ReARTeR, question: Question = QUESTION) -> Transcript:
    (transcript,) = method.run([question])
    return transcript


# --- the value of a chain ---


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.3], 0.3),
        ([0.0, 1.0], 0.5),  # 0 + (1 - 0) / 2
        ([0.0, 1.0, 3.0], 1.0),  # 1 + (3 - 1) / 2 = 2, then 0 + (2 - 0) / 2
        ([0.0, 1.0, 1.04, 9.0], 0.51),  # 1.04 gains 0.04: read, and nothing after it; 1.02, then 0.51
        ([1.0, -1.0, 9.0], 0.0),  # the loss is read, the gain after it is not
        ([0.0, 0.05, 1.0], 0.2625),  # a gain of beta itself is enough: 0.525, then 0.2625
    ],
)
def test_later_values_correct_earlier_ones_until_a_gain_is_below_beta(values: list[float], expected: float) -> None:
    assert td_value(values, alpha=0.5, beta=0.05) == pytest.approx(expected)


def test_alpha_says_how_far_a_value_moves() -> None:
    assert td_value([0.0, 1.0, 3.0], alpha=1.0, beta=0.05) == pytest.approx(3.0)
    assert td_value([0.0, 1.0, 3.0], alpha=0.1, beta=0.05) == pytest.approx(0.12)


def test_the_probability_of_a_logit_never_overflows() -> None:
    assert sigmoid(0.0) == 0.5
    assert sigmoid(2.0) == pytest.approx(1 - sigmoid(-2.0))
    assert (sigmoid(1000.0), sigmoid(-1000.0)) == (1.0, 0.0)


# --- choosing a step ---


def test_the_first_step_of_the_best_chain_is_taken_and_no_more_of_it() -> None:
    steps = model(
        [
            f"Follow up: {name} one about Norway?\nSearch: {verdict}.\n"
            for name, verdict in (("a", "No"), ("b", "Yes"), ("c", "No"))
        ]
    )

    def reply(prompt: str) -> str:
        so_far = written_so_far(prompt)
        if part(prompt) == "step" and "one about" in so_far:
            return f"So the final answer is: {'Lima' if 'b one' in so_far else 'Oslo'}"
        return steps(prompt)

    scorer = Scores(lambda text: 3.0 if "is: Lima" in text else 1.0)
    transcript = answered(ReARTeR(setting(reply), scorer=scorer))
    # Chain b is worth sigmoid(1 + (3 - 1) / 2), the others, whose second step gains nothing, sigmoid(1).
    assert calls(transcript, "chain values") == [
        "0.731 (2), 0.881 (2) taken, 0.731 (2)",
        "0.953 (1) taken, 0.953 (1), 0.953 (1)",
    ]
    first, second = scorer.asked
    assert len(first) == 6 and len(second) == 3  # every prefix of every chain
    assert (
        first[3]
        == second[0]
        == (
            "Follow up: b one about Norway?\nSearch: Yes.\nRetrieved documents:\n"
            "Passage 1, Norway: Norway has the capital Oslo. ‹|im_end|›\nIntermediate answer: Lima\n"
            "So the final answer is: Lima\nQuestion: Capital ‹answer› of Peru?"
        )
    )
    assert transcript.answer == "Lima" and transcript.turns[-1].action.kind is TurnKind.ANSWER


def test_calls_and_searches_are_those_that_the_method_tells() -> None:
    endless = setting(
        lambda prompt: model([])(prompt) if part(prompt) != "step" else "Follow up: what?\nSearch: Yes.\n"
    )
    transcript = answered(ReARTeR(endless, scorer=Scores(lambda text: 5.0)))
    assert len(transcript.queries) == 4 * 9 + 3
    assert len(calls(transcript)) - len(calls(transcript, "chain values")) == 2 * (4 * 9 + 3) + 1
    weak = setting(
        lambda prompt: (
            model([], action='new query", "query": "other?"}', critique="Bad.")(prompt)
            if part(prompt) != "step"
            else "Follow up: what?\nSearch: Yes.\n"
        )
    )
    transcript = answered(ReARTeR(weak, scorer=Scores(lambda text: -5.0)))
    notes = len(calls(transcript, "chain values")) + len(calls(transcript, "refinement"))
    assert (len(transcript.queries), len(calls(transcript)) - notes) == (44, 94)


def test_chains_shrink_to_one_step_once_the_path_has_more_than_three() -> None:
    endless = setting(lambda prompt: model([])(prompt) if part(prompt) != "step" else "Follow up: what?\nSearch: No.\n")
    scorer = Scores(lambda text: float(text.count("Follow up")))
    transcript = answered(ReARTeR(endless, ReARTeROptions(max_steps=6), scorer=scorer))
    # Logits 4, 5 and 6 make 4.75; the next step's is 5.
    assert [len(texts) for texts in scorer.asked] == [9, 9, 9, 9, 3, 3]
    assert calls(transcript, "chain values")[3:5] == [
        "0.991 (3) taken, 0.991 (3), 0.991 (3)",
        "0.993 (1) taken, 0.993 (1), 0.993 (1)",
    ]


@pytest.mark.parametrize(("searches", "steps"), [(0, 0), (2, 2), (8, 5)])
def test_a_path_has_no_more_steps_than_the_setting_has_searches(searches: int, steps: int) -> None:
    endless = setting(
        lambda prompt: model([])(prompt) if part(prompt) != "step" else "Follow up: what?\nSearch: Yes.\n",
        searches=searches,
    )
    transcript = answered(ReARTeR(endless, scorer=Scores(lambda text: 5.0)))
    assert len(calls(transcript, "chain values")) == steps
    assert transcript.answer == "Lima"


def test_chains_differ_in_temperature_and_never_read_each_other() -> None:
    seen: list[tuple[str, float]] = []

    class Hot(ScriptedEngine):
        def generate(self, requests: Any, **more: Any) -> Any:
            seen.extend((request.prompt.text, request.sampling.temperature) for request in requests)
            return super().generate(requests, **more)

    bench = setting(model([f"Follow up: {name}?\nSearch: No.\n" for name in ("first", "second", "third")]))
    bench = Setting(**{**vars(bench), "engine": Hot(bench.engine._reply)})
    answered(ReARTeR(bench, scorer=Scores(lambda text: 5.0)))
    chains = seen[:9]
    assert [temperature for _, temperature in chains] == [0.7, 1.0, 0.7] * 3
    assert [
        [name in written_so_far(prompt) for name in ("first", "second", "third")] for prompt, _ in chains[3:6]
    ] == np.eye(3, dtype=bool).tolist()
    assert seen[-1][1] == 0.0  # the short answer, at the setting's


# --- replies that are no step ---


def test_a_reply_that_is_no_step_is_dropped_and_the_words_are_opened() -> None:
    said = ["Let me see.", " where?\nSearch: no"]
    options = ReARTeROptions(chains=1, lookahead=1)
    replies = model(said, **{"So the final answer is:": "Oslo"})
    scorer = Scores(lambda text: 5.0)
    transcript = answered(ReARTeR(setting(replies), options, scorer=scorer))
    assert calls(transcript, "step")[:2] == said
    assert scorer.asked[0] == [
        "Follow up: where?\nSearch: No.\nIntermediate answer: Lima\nQuestion: Capital ‹answer› of Peru?"
    ]
    assert "Let me see" not in scorer.asked[-1][0]


def test_the_last_step_is_opened_as_the_final_answer() -> None:
    options = ReARTeROptions(chains=1, lookahead=3, max_steps=1)
    scorer = Scores(lambda text: 5.0)
    answered(
        ReARTeR(
            setting(model([*["hm"] * 9], **{"Follow up:": "hm", "So the final answer is:": "Oslo"})),
            options,
            scorer=scorer,
        )
    )
    assert scorer.asked[-1][-1].startswith("Follow up: hm") is True
    assert "So the final answer is: Oslo\nQuestion:" in scorer.asked[-1][-1]


def test_a_follow_up_that_does_not_say_whether_to_search_is_searched() -> None:
    bench = setting(model(["Follow up: Norway?"]), retriever := Watched())
    answered(ReARTeR(bench, ReARTeROptions(chains=1, lookahead=1), scorer=Scores(lambda text: 5.0)))
    assert retriever.queries == ["Norway?"]


def test_a_final_answer_after_opened_words_of_a_follow_up_is_read_as_one() -> None:
    scorer = Scores(lambda text: 5.0)
    replies = model(["Hm."], **{"Follow up:": " So the final answer is: Lima\nQuestion: another"})
    answered(ReARTeR(setting(replies), ReARTeROptions(chains=1), scorer=scorer))
    assert scorer.asked == [["So the final answer is: Lima\nQuestion: Capital ‹answer› of Peru?"]]


def test_a_chat_model_goes_on_from_the_path_and_is_told_how_to_begin() -> None:
    wording = Wording(QUESTION, chat=True)
    first, later = wording.prompt(""), wording.prompt("Follow up: a?\n", "Intermediate answer:")
    assert "first step" in first.user and "final answer" not in first.user and first.prefill == ""
    assert "So the final answer is:" in later.user and later.prefill == "Follow up: a?\nIntermediate answer:"
    assert first.system == later.system and "‹answer›" in first.user


def test_where_nothing_can_be_read_the_question_is_answered_from_nothing() -> None:
    scorer = Scores(lambda text: 5.0)
    transcript = answered(ReARTeR(setting(lambda prompt: "Lima" if part(prompt) == "summary" else ""), scorer=scorer))
    assert (transcript.answer, scorer.asked, transcript.queries) == ("Lima", [], ())
    assert len(calls(transcript)) == 2 * 3 + 1


# --- refinement ---


def refine(
    action: str, *, weak: str = "Follow up: Norway?\nSearch: Yes.\n", after: float = 2.0, **more: str
) -> tuple[Any, Transcript, list[str]]:
    """One weak step, what the action made of it, and what was searched."""
    retriever = Watched()
    scorer = Scores(lambda text: -1.0 if len(scorer.asked) == 1 else after)
    replies = model(
        [weak], ["Oslo", "Lima"], critique="It asks for Norway.\nWrong <answer> country.", action=action, **more
    )
    method = ReARTeR(setting(replies, retriever), ReARTeROptions(chains=1, lookahead=1, max_steps=1), scorer=scorer)
    transcript = answered(method)
    return scorer, transcript, retriever.queries


def test_a_new_query_takes_the_place_of_the_weak_step() -> None:
    scorer, transcript, queries = refine('new query", "query": "Peru capital?", "search": "yes"}')
    assert queries == ["Norway?", "Peru capital?"]
    assert scorer.asked[-1][0].startswith(
        "Follow up: Peru capital?\nSearch: Yes.\nRetrieved documents:\nPassage 1, Peru"
    )
    assert "Norway?" not in scorer.asked[-1][0]
    assert calls(transcript, "refinement") == ["new query: 0.269 -> 0.881"]
    assert calls(transcript, "critique, untrained") == ["It asks for Norway.\nWrong <answer> country."]


def test_a_new_query_may_do_without_a_search() -> None:
    scorer, _, queries = refine('new query", "query": "Peru capital?", "search": "No"}')
    assert queries == ["Norway?"]
    assert scorer.asked[-1][0].startswith("Follow up: Peru capital?\nSearch: No.\nIntermediate answer: Lima\n")


@pytest.mark.parametrize(("verdict", "toggled", "searched"), [("Yes", "No", 1), ("No", "Yes", 1)])
def test_the_search_of_a_weak_step_is_toggled_and_its_question_kept(verdict: str, toggled: str, searched: int) -> None:
    scorer, transcript, queries = refine('toggle search"}', weak=f"Follow up: Norway?\nSearch: {verdict}.\n")
    assert queries == ["Norway?"] * searched
    assert scorer.asked[-1][0].startswith(f"Follow up: Norway?\nSearch: {toggled}.\n")
    assert "Intermediate answer: Lima\n" in scorer.asked[-1][0]  # answered anew
    assert calls(transcript, "refinement") == ["toggle search: 0.269 -> 0.881"]


def test_a_final_answer_takes_the_place_of_the_weak_step() -> None:
    scorer, transcript, _ = refine('final answer"}', **{"So the final answer is:": " Lima\n"})
    assert scorer.asked[-1] == ["So the final answer is: Lima\nQuestion: Capital ‹answer› of Peru?"]
    assert calls(transcript, "refinement") == ["final answer: 0.269 -> 0.881"]


@pytest.mark.parametrize(
    "reply", ["", "{", "I would search again.", 'dance"}', '["new query"]', '", "query": "x"}', '{"action": 7}']
)
def test_a_reply_that_is_no_action_is_a_final_answer(reply: str) -> None:
    assert read_action(reply) == Action(ActionKind.FINAL_ANSWER)
    _, transcript, _ = refine(reply, **{"So the final answer is:": " Lima\n"})
    assert calls(transcript, "refinement") == ["final answer: 0.269 -> 0.881"]


@pytest.mark.parametrize(
    ("reply", "query", "search"),
    [
        ('new query", "query": "x", "search": "no"}', "x", False),
        ('{"action": "New Query", "query": "a  b", "search": "Yes"} and so on', "a b", True),
        ('new query", "query": "x", "search": false}', "x", False),
        ('new query", "query": "x"}', "x", True),
        ('new query", "query": 7}', "", True),
    ],
)
def test_an_action_is_read_with_or_without_the_opening(reply: str, query: str, search: bool) -> None:
    assert read_action(reply) == Action(ActionKind.NEW_QUERY, query, search)


@pytest.mark.parametrize(
    ("action", "weak", "final"),
    [
        ('new query"}', "Follow up: Norway?\nSearch: Yes.\n", "Lima"),
        ('final answer"}', "Follow up: Norway?\nSearch: Yes.\n", ""),
        ('toggle search"}', "So the final answer is: Oslo", "Lima"),
    ],
)
def test_the_step_stays_as_it_was_where_an_action_cannot_be_run(action: str, weak: str, final: str) -> None:
    scorer, transcript, _ = refine(action, weak=weak, **{"So the final answer is:": final})
    assert scorer.asked[1] == scorer.asked[0]
    assert calls(transcript, "refinement")[0].endswith("the step as it was: 0.269 -> 0.881")


def test_a_refined_step_is_taken_even_if_it_is_worth_less() -> None:
    _, transcript, _ = refine('new query", "query": "Peru capital?"}', after=-3.0)
    assert calls(transcript, "refinement") == ["new query: 0.269 -> 0.047"]
    assert "Peru capital?" in transcript.turns[-1].calls[-1].prompt  # of the short answer
    assert "Norway?" not in transcript.turns[-1].calls[-1].prompt


def test_a_step_above_the_threshold_is_not_refined() -> None:
    options = {"chains": 1, "lookahead": 1, "max_steps": 1}
    for threshold, refined in ((0.5, 0), (0.9, 1)):
        replies = model(["Follow up: Peru?\nSearch: No.\n"], critique="Bad.", action='toggle search"}')
        method = ReARTeR(
            setting(replies), ReARTeROptions(threshold=threshold, **options), scorer=Scores(lambda text: 1.0)
        )
        assert len(calls(answered(method), "critique")) == refined


def test_tags_in_questions_documents_and_critiques_are_inert_in_every_prompt() -> None:
    _, transcript, _ = refine('new query", "query": "Norway <answer>?"}')
    prompts = [call.prompt for turn in transcript.turns for call in turn.calls]
    assert any("‹answer› country" in prompt for prompt in prompts)
    assert not any("<answer>" in prompt or "<|im_end|>" in prompt for prompt in prompts)


def test_without_a_reward_model_the_command_that_trains_one_is_named() -> None:
    with pytest.raises(ConfigError, match="search-env fit --method rearter"):
        make_method("rearter", setting(model([])))


# --- labels ---


def a_step(name: str) -> ReasoningStep:
    return ReasoningStep(query=f"{name}?", searched=False, answer=name)


def world(error: str) -> Callable[[str], str]:
    """Paths end right half the time, unless they hold the error."""
    coin = itertools.cycle([True, False])

    def reply(prompt: str) -> str:
        if part(prompt) == "summary":
            return "Lima" if f"Follow up: {error}?" not in prompt and next(coin) else "Oslo"
        return "So the final answer is: so"

    return reply


def locate(error: str, length: int, rollouts: int = 4) -> tuple[list[Node], int]:
    """What the search for an error finds in a rollout of steps s1, s2 …, and how many rollouts it took."""
    steps = tuple(a_step(f"s{number + 1}") for number in range(length))

    class Locating(Annotator):
        found: list[Node]

        def answer(self, question: Question) -> Any:
            self.found = yield from self.locate_error(question, (), Rollout(steps, False))
            return ""

    locating = Locating(setting(world(error)), AnnotationOptions(rollouts=rollouts, max_steps=8))
    (transcript,) = locating.run([QUESTION])
    return locating.found, len(calls(transcript, "summary"))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7])
def test_the_search_finds_the_first_error_wherever_it_is(length: int) -> None:
    for place in range(1, length + 1):
        found, rollouts = locate(f"s{place}", length)
        dead = min((node.prefix for node in found if node.mc == 0), key=len)
        assert dead[-1].query == f"s{place}?" and len(dead) == place
        alive = [node for node in found if node.mc > 0]
        assert max((len(node.prefix) for node in alive), default=0) == place - 1
        # Steps and short answer are halved until one is left: at most log2, rounded up, prefixes of 4 rollouts each.
        assert rollouts == 4 * len(found) and len(found) <= math.ceil(math.log2(length + 1))


def test_an_error_in_the_short_answer_leaves_no_prefix_that_never_ends_right() -> None:
    found, _ = locate("s9", 4)
    assert [len(node.prefix) for node in found] == [2, 3, 4]
    assert all(node.mc == 0.5 for node in found)


def test_the_search_ends_at_a_prefix_that_always_ends_right() -> None:
    annotator_setting = setting(lambda prompt: "Lima" if part(prompt) == "summary" else "So the final answer is: so")

    class Locating(Annotator):
        def answer(self, question: Question) -> Any:
            self.found = yield from self.locate_error(question, (), Rollout((a_step("a"), a_step("b")), False))
            return ""

    locating = Locating(annotator_setting)
    list(locating.run([QUESTION]))
    assert [(len(node.prefix), node.mc) for node in locating.found] == [(1, 1.0)]


def test_rollouts_are_chosen_by_the_values_of_omegaprm() -> None:
    steps = tuple(a_step(name) for name in "abcde")
    assert q_value(Rollout(steps, False), 0.6) == pytest.approx(0.5**0.4 * 0.9)
    assert q_value(Rollout(steps[:2], False), 0.6) == pytest.approx(0.5**0.4 * 0.9**0.5)
    assert u_value(0, 16) == pytest.approx(0.5)
    assert u_value(3, 16) == pytest.approx(0.125)
    short, long = Rollout(steps[:1], False), Rollout(steps, True)
    half, never = Node((), [long, short, Rollout((), False)]), Node(steps[:1], [short])
    assert half.mc == pytest.approx(1 / 3) and half.waiting == [
        long,
        short,
    ]  # without a step there is nothing to search
    assert Annotator._best([half, never]) == (half, short)
    half.visits = 40  # 0.62 + 0.02 against 0.48 + 0.79
    assert Annotator._best([half, never]) == (never, short)
    half.waiting.clear(), never.waiting.clear()
    assert Annotator._best([half, never]) is None


@pytest.mark.parametrize(("answer", "mc"), [("Lima", 1.0), ("Oslo", 0.0)])
def test_a_question_that_is_always_or_never_answered_right_is_left(answer: str, mc: float) -> None:
    annotator = Annotator(setting(lambda prompt: answer if part(prompt) == "summary" else "So the final answer is: so"))
    (transcript,) = annotator.run([QUESTION])
    assert annotator.records["q"] == {"id": "q", "model": "scripted", "mc": mc, "prefixes": []}
    assert calls(transcript, "rollouts") == [f"{5 * mc:.0f} of 5 right"]


def test_prefixes_are_labelled_once_and_only_those_that_can_go_wrong_and_dead_ones() -> None:
    annotator = Annotator(setting(model_of_two_minds()), AnnotationOptions(max_steps=3, iterations=60))
    (transcript,) = annotator.run([QUESTION])
    record = annotator.records["q"]
    assert 0 < record["mc"] < 1
    worth = {prefix["text"]: prefix["mc"] for prefix in record["prefixes"]}
    assert len(worth) == len(record["prefixes"]) > 1
    assert {"bad?" in text for text in worth} == {True, False}
    assert all(value == 0 for text, value in worth.items() if "bad?" in text)
    assert all(0 < value < 1 for text, value in worth.items() if "bad?" not in text)
    assert len(calls(transcript, "summary")) == 5 * len(calls(transcript, "rollouts"))
    assert len(calls(transcript, "rollouts")) <= 1 + 60 * 2


def model_of_two_minds() -> Callable[[str], str]:
    """Takes a good or a bad step in turn; only good ones lead to the answer, and not always."""
    steps, coin = itertools.cycle(["good", "bad", "good"]), itertools.cycle([True, True, True, False])

    def reply(prompt: str) -> str:
        if part(prompt) == "summary":
            return "Lima" if "bad?" not in prompt and next(coin) else "Oslo"
        if part(prompt) == "Intermediate answer:":
            return " so\n"
        if "good?" in written_so_far(prompt):
            return "So the final answer is: so"
        return f"Follow up: {next(steps)}?\nSearch: No.\n"

    return reply


# --- what is kept on disk ---


def test_a_collection_goes_on_where_it_was_and_asks_the_failed_again(tmp_path: Path) -> None:
    questions, file, retriever = (QUESTION, OTHER), tmp_path / "rows.jsonl", Watched()
    asked: list[str] = []

    def reply(prompt: str) -> str:
        asked.append(prompt)
        if part(prompt) == "step" and "Where is Lima?" in prompt and "Follow up: w" not in prompt:
            return "Follow up: w?\nSearch: Yes.\n"
        return model([])(prompt)

    bench = setting(reply, retriever, questions)
    retriever.broken = True
    assert [row["id"] for row in collect(Annotator(bench), questions, file)] == ["q"]
    with file.open("a") as stream:
        stream.write('{"id": "r", "torn')
    asked.clear()
    retriever.broken = False
    assert [row["id"] for row in collect(Annotator(bench), questions, file)] == ["q", "r"]
    assert asked and not any("Capital ‹answer›" in prompt for prompt in asked)
    asked.clear()
    rows = collect(Annotator(bench), questions, file)
    assert not asked and rows == [json.loads(line) for line in file.read_text().splitlines()]


def test_a_question_that_outgrows_its_budget_is_not_asked_again(tmp_path: Path) -> None:
    bench = setting(model([]))
    narrow = Setting(**{**vars(bench), "max_tokens": 40})
    assert collect(Annotator(narrow), [QUESTION], tmp_path / "rows.jsonl") == [{"id": "q"}]


def test_critiques_become_rows_for_kto_by_whether_the_value_rose(tmp_path: Path) -> None:
    def records(after: float, answer: str) -> list[dict[str, Any]]:
        scorer = Scores(lambda text: -1.0 if len(scorer.asked) == 1 else after)
        replies = model(
            ["Follow up: Norway?\nSearch: Yes.\n"], critique="Bad.", action='toggle search"}', summary=answer
        )
        options = ReARTeROptions(chains=1, lookahead=1, max_steps=1)
        collector = CritiqueCollector(setting(replies), options, scorer=scorer)
        return collect(collector, [QUESTION], tmp_path / f"{after}{answer}.jsonl")

    (rose,) = preferences(records(2.0, "Lima"), chat=False)
    assert rose["label"] is True and rose["weight"] == 1.0 and rose["completion"] == " Bad."
    assert rose["prompt"].endswith("Critique:") and "Follow up: Norway?" in rose["prompt"]
    (fell,) = preferences(records(-3.0, "Lima"), chat=True)
    assert fell["label"] is False
    assert fell["weight"] == pytest.approx(math.exp(sigmoid(-1.0) - sigmoid(-3.0)))
    assert [message["role"] for message in fell["prompt"]] == ["system", "user"]
    assert fell["completion"] == [{"role": "assistant", "content": "Bad."}]
    assert list(preferences(records(2.0, "Oslo"), chat=False)) == []  # answered wrong
    assert list(preferences([{"id": "q"}], chat=False)) == []


def test_what_the_reward_model_reads_ends_with_the_question() -> None:
    hit = Hit(document=DOCUMENTS[0], score=1.0)
    step = ReasoningStep(query="Where?", searched=True, hits=(hit,), answer="there")
    assert prefix_text(QUESTION, [step, ReasoningStep(answer="Lima")]) == (
        "Follow up: Where?\nSearch: Yes.\nRetrieved documents:\n"
        "Passage 1, Norway: Norway has the capital Oslo. ‹|im_end|›\nIntermediate answer: there\n"
        "So the final answer is: Lima\nQuestion: Capital ‹answer› of Peru?"
    )


def test_an_episode_whose_retriever_fails_is_invalid() -> None:
    retriever = Watched()
    retriever.broken = True
    bench = setting(model(["Follow up: Norway?\nSearch: Yes.\n"] * 3), retriever)
    transcript = answered(ReARTeR(bench, scorer=Scores(lambda text: 1.0)))
    assert (transcript.stop_reason, transcript.answer) == (StopReason.RETRIEVER_UNAVAILABLE, None)
