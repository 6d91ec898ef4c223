"""Candidates, summaries and verdicts of a scripted model, over every combination of verdicts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from search_agents.engines.base import SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import Setting, make_method
from search_agents.methods.sure import parse_candidates, parse_preference, parse_verdict, summary_scores

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError
from search_env.types import Call, Document, Prompt, Question, StopReason, Transcript

DOCUMENTS = (
    Document(id="1", title="Norway", text="The capital of Norway is Oslo. </answer>"),
    Document(id="2", title="Bergen", text="Bergen was the capital of Norway."),
    Document(id="3", title="Tromsø", text="Tromsø lies in the north of Norway."),
)
QUESTION = Question(id="q", text="What is the capital of Norway <answer>?", answers=("Oslo",))
SAID = {True: "True", False: "False", None: "Hard to say."}
PREFERRED = {True: "Text 1", False: "Text 2", None: "Neither."}


class Judge:
    """A model whose verdicts are given: by candidate, and by the pair of candidates as their summaries are shown."""

    def __init__(self, named: str, valid: dict[str, bool | None], better: dict[tuple[str, str], bool | None]):
        self.named, self.valid, self.better = named, valid, better

    def __call__(self, prompt: str) -> str:
        asked = prompt.rpartition("\n\n")[2]  # without the examples
        proposed = re.search(r"Proposed answer: (.+)", asked)
        if asked.endswith("Candidates: (a)"):
            return self.named.removeprefix("(a)")
        if "Passage 1" in asked:
            assert proposed
            return f" All speaks for {proposed[1]}.\nAnd more."
        if proposed:
            assert f"\nText: All speaks for {proposed[1]}.\nReply:" in asked
            return f" {SAID[self.valid[proposed[1]]]}"
        first, second = re.findall(r"Text \d: All speaks for (.+)\.", asked)
        return " " + PREFERRED[self.better[first, second]].removeprefix("Text ")


def ask(model: Callable[[str], str], *, chat: bool = False, **options: Any) -> Transcript:
    dataset = Dataset(name="tiny", split="dev", questions=(QUESTION,), documents=DOCUMENTS)
    env = SearchQAVectorEnv(2, data=dataset, dataset="custom", top_k=2, prompt="base")
    engine = Chatty(model) if chat else ScriptedEngine(model)
    sampling = SamplingParams(temperature=0.0, max_tokens=200)
    setting = Setting(engine=engine, env=env, sampling=sampling, max_tokens=6000, chat=chat)
    (transcript,) = make_method({"name": "sure"} | options, setting).run([QUESTION])
    return transcript


class Chatty(ScriptedEngine):
    def encode_prompt(self, prompt: Prompt, *, chat: bool) -> list[int]:
        return self.tokenizer.encode(f"[{prompt.system}][{prompt.user}]{prompt.prefill}")


def calls(transcript: Transcript) -> list[Call]:
    return [call for turn in transcript.turns for call in turn.calls]


def purposes(transcript: Transcript) -> list[str]:
    return [call.purpose for call in calls(transcript)]


RANKED = {  # which summary wins, by what is said of (a, b) and of (b, a)
    (True, False): "a",
    (True, None): "a",
    (None, False): "a",
    (False, True): "b",
    (False, None): "b",
    (None, True): "b",
    (True, True): "none",
    (False, False): "none",
    (None, None): "none",
}
OFFICIAL = {  # the answer, by the only valid summary and the one that wins
    ("none", "a"): "a",
    ("none", "b"): "b",
    ("none", "none"): "a",
    ("a", "a"): "a",
    ("a", "b"): "a",
    ("a", "none"): "a",
    ("b", "a"): "a",
    ("b", "b"): "b",
    ("b", "none"): "b",
}
THREE = (True, False, None)
COMBINATIONS = list(itertools.product(THREE, repeat=4))


@pytest.mark.parametrize(("valid_a", "valid_b", "ab", "ba"), COMBINATIONS)
def test_the_official_rule_over_all_verdicts(valid_a: Any, valid_b: Any, ab: Any, ba: Any) -> None:
    model = Judge(
        "(a) Oslo (b) Bergen", {"Oslo": valid_a, "Bergen": valid_b}, {("Oslo", "Bergen"): ab, ("Bergen", "Oslo"): ba}
    )
    only = {(True, False): "a", (False, True): "b"}.get((valid_a, valid_b), "none")
    expected = {"a": "Oslo", "b": "Bergen"}[OFFICIAL[only, RANKED[ab, ba]]]
    assert ask(model).answer == expected


@pytest.mark.parametrize(("valid_a", "valid_b", "ab", "ba"), COMBINATIONS)
def test_the_rule_of_flashrag_over_all_verdicts(valid_a: Any, valid_b: Any, ab: Any, ba: Any) -> None:
    model = Judge(
        "(a) Oslo (b) Bergen", {"Oslo": valid_a, "Bergen": valid_b}, {("Oslo", "Bergen"): ab, ("Bergen", "Oslo"): ba}
    )
    points = {True: 2, None: 1, False: 0}
    ahead = 2 * (valid_a is True) + points[ab] - 2 * (valid_b is True) - points[ba]
    assert ask(model, variant="flashrag").answer == ("Oslo" if ahead >= 0 else "Bergen")


@pytest.mark.parametrize(
    ("verdicts", "ab", "ba", "official", "flashrag"),
    [
        ((None, True), True, True, [0.5, 0.5], [1.0, 2.0]),  # not the only valid one unless the other is refuted
        ((True, None), False, True, [0.0, 1.0], [1.0, 1.0]),
        ((False, True), True, False, [0.5, 0.5], [1.0, 1.0]),
        ((True, False), False, None, [0.5, 0.5], [1.0, 0.5]),
        ((True, True), True, None, [1.0, 0.0], [2.0, 1.5]),
    ],
)
def test_the_two_rules_differ(verdicts: Any, ab: Any, ba: Any, official: Any, flashrag: Any) -> None:
    preferences = {(0, 1): ab, (1, 0): ba}
    assert summary_scores(verdicts, preferences, "official") == official
    assert summary_scores(verdicts, preferences, "flashrag") == flashrag


def test_more_candidates_sum_the_shares_of_all_pairs() -> None:
    preferences = {(0, 1): True, (1, 0): True, (0, 2): False, (2, 0): True, (1, 2): True, (2, 1): False}
    assert summary_scores([True, True, True], preferences, "official") == [0.5, 1.5, 1.0]
    assert summary_scores([False, False, True], preferences, "official") == [0.25, 0.75, 1.0]
    assert summary_scores([False, None, True], preferences, "official") == [0.5, 1.5, 1.0]
    assert summary_scores([True, False, False], preferences, "flashrag") == [2.0, 2.0, 1.0]


def test_three_candidates_are_compared_in_both_orders() -> None:
    names = ["Oslo", "Bergen", "Tromsø"]
    model = Judge(
        "(a) Oslo (b) Bergen (c) Tromsø (d) Bodø",
        dict.fromkeys(names, True),
        {pair: "Tromsø" in pair and pair.index("Tromsø") == 0 for pair in itertools.permutations(names, 2)},
    )
    transcript = ask(model, candidates=3)
    assert transcript.answer == "Tromsø"
    assert [purposes(transcript).count(each) for each in ("candidates", "summary", "validity", "ranking")] == [
        1,
        3,
        3,
        6,
    ]
    assert "Name 3 different answers" in calls(transcript)[0].prompt
    assert "(a) ... (b) ... (c) ..." in calls(transcript)[0].prompt


def test_an_episode_shows_every_step() -> None:
    model = Judge(
        "(a) Oslo (b) Bergen", {"Oslo": True, "Bergen": False}, {("Oslo", "Bergen"): True, ("Bergen", "Oslo"): False}
    )
    transcript = ask(model)
    assert (transcript.answer, transcript.stop_reason, transcript.format.ok) == ("Oslo", StopReason.ANSWERED, True)
    assert transcript.queries == (QUESTION.text,)
    assert purposes(transcript) == ["candidates", *["summary"] * 2, *["validity"] * 2, *["ranking"] * 2, "scores"]
    assert calls(transcript)[-1].text == "1.00 Oslo\n0.00 Bergen"
    for call in calls(transcript)[:3]:
        assert call.prompt.index("Passage 1, Norway: The capital") < call.prompt.index("Passage 2, Bergen: Bergen was")
    assert "\nCandidates: (a) Oslo (b) Bergen\nProposed answer: Bergen\nText:" in calls(transcript)[2].prompt
    one, other = (call.prompt for call in calls(transcript)[5:7])
    assert "Text 1: All speaks for Oslo.\nText 2: All speaks for Bergen.\n" in one
    assert "Text 1: All speaks for Bergen.\nText 2: All speaks for Oslo.\n" in other
    assert not any("<answer>" in call.prompt or "</answer>" in call.prompt for call in calls(transcript))


def test_the_number_of_passages_may_be_its_own() -> None:
    model = Judge("(a) Oslo", {}, {})
    assert [len(ask(model, **own).turns[0].hits) for own in ({}, {"top_k": 3})] == [2, 3]


@pytest.mark.parametrize(
    ("named", "answer"),
    [("(a) Oslo", "Oslo"), ("(a) Oslo (b) the oslo.", "Oslo"), ("(a)", ""), ("(a) ... (b) -", "")],
)
def test_fewer_than_two_candidates_end_it(named: str, answer: str) -> None:
    transcript = ask(Judge(named, {}, {}))
    assert (transcript.answer, purposes(transcript)) == (answer, ["candidates"])
    assert transcript.format.ok == bool(answer)


def test_a_chat_model_is_prompted_through_its_template_and_continues_the_beginning_of_its_reply() -> None:
    def model(prompt: str) -> str:
        if prompt.endswith("Candidates:](a)"):
            return " Oslo\n(b) Bergen"
        if prompt.endswith("Reply:]Text"):
            return " 2 tells more than Text 1."
        return "True, it does." if "Text:" in prompt else "A summary."

    transcript = ask(model, chat=True)
    assert transcript.answer == "Oslo"
    assert calls(transcript)[-1].text == "0.50 Oslo\n0.50 Bergen"


def test_a_model_that_begins_its_reply_again_is_understood() -> None:
    transcript = ask(lambda prompt: "(a) Oslo (b) Bergen" if prompt.endswith("(a)") else "Text 1", chat=True)
    assert purposes(transcript)[-1] == "scores"
    assert calls(transcript)[-1].text == "0.50 Oslo\n0.50 Bergen"


@pytest.mark.parametrize(
    ("reply", "candidates"),
    [
        ("(a) Oslo (b) Bergen", ["Oslo", "Bergen"]),
        ("(a) Oslo,\n(b) Bergen.\nBoth lie in Norway.", ["Oslo", "Bergen"]),
        ("(a) Oslo and (b) Bergen (c) Bodø", ["Oslo", "Bergen"]),
        ("a) Oslo b) Bergen", ["Oslo", "Bergen"]),
        ("1. Oslo\n2. Bergen", ["Oslo", "Bergen"]),
        ("- Oslo\n- Bergen", ["Oslo", "Bergen"]),
        ("(a) Oslo, Bergen", ["Oslo", "Bergen"]),
        ("(a) Oslo, Norway (b) Bergen, Norway", ["Oslo, Norway", "Bergen, Norway"]),
        ('(a) "The Fjord" (b) fjord (c) O\'Hara (USA)', ["The Fjord", "O'Hara (USA)"]),
        ("(a) Oslo, which lies in the south of Norway", ["Oslo, which lies in the south of Norway"]),
        ("(a) These may be right:\n(a) Oslo\n(b) Bergen", ["Oslo", "Bergen"]),
        ("These may be right: (a) Oslo (b) Bergen", ["Oslo", "Bergen"]),
        ("Oslo", ["Oslo"]),
        (" \n ", []),
    ],
)
def test_candidates_are_read_from_the_forms_models_use(reply: str, candidates: list[str]) -> None:
    assert parse_candidates(reply, 2) == candidates


def test_verdicts_are_read_by_the_first_word_that_decides() -> None:
    for reply, verdict in [("True.", True), ("yes", True), ("It is FALSE, not true", False), ("No", False), ("", None)]:
        assert parse_verdict(reply) is verdict
    assert [parse_verdict(reply) for reply in ("Unknown", "I cannot tell", "Untrue")] == [False, False, None]
    assert [parse_preference(reply) for reply in ("Text 1", "text #2, not Text 1", "Text 3", "Text")] == [
        True,
        False,
        None,
        None,
    ]


@pytest.mark.parametrize("options", [{"candidates": 1}, {"candidates": 7}, {"variant": "paper"}, {"top_k": 0}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"sure.*{next(iter(options))}"):
        ask(Judge("", {}, {}), **options)
