"""The hash of a wording follows the words of the method, and neither questions nor passages."""

from __future__ import annotations

import dataclasses

import pytest
from search_agents.engines.base import SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.leaderboard.wording import wording_hash
from search_agents.methods import Setting, make_method, standard_rag

from search_env import SearchQAVectorEnv
from search_env.types import Call, Transcript


def played(method: str, *, k: int = 2, split: str = "test", count: int = 5) -> list[Transcript]:
    env = SearchQAVectorEnv(4, dataset="fictional-wiki", split=split, prompt="instruct", top_k=k)
    setting = Setting(
        engine=ScriptedEngine(lambda prompt: "Yes, Oslo."),
        env=env,
        sampling=SamplingParams(max_tokens=60),
        max_tokens=4000,
        chat=False,
    )
    return list(make_method(method, setting).run(env.dataset.questions[:count]))


@pytest.mark.parametrize("method", ["standard-rag", "naive-generation", "ircot", "sure", "self-ask"])
def test_one_wording_has_one_hash_whatever_k_the_split_and_the_number_of_questions(method: str) -> None:
    hashes = {wording_hash(played(method, **other)) for other in ({}, {"k": 3}, {"split": "dev"}, {"count": 1})}
    assert len(hashes) == 1
    (found,) = hashes
    assert found is not None and len(found) == 16


def test_another_wording_has_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = wording_hash(played("standard-rag"))
    monkeypatch.setattr(standard_rag, "READ_AND_ANSWER", "Answer the question; the passages may help.")
    assert before != wording_hash(played("standard-rag"))
    assert before != wording_hash(played("naive-generation"))


def test_words_around_the_question_count() -> None:
    def asked(label: str) -> list[Transcript]:
        return [_with_prompt(each, f"Be brief.\n{label}: {each.question.text}") for each in played("naive-generation")]

    assert wording_hash(asked("Question")) == wording_hash(asked("Question")) != wording_hash(asked("Q"))


def test_what_a_method_makes_of_the_passages_does_not_count() -> None:
    transcripts = played("naive-generation")
    own = [_with_prompt(each, f"Be brief.\nNotes: summary {n}\nAnswer:") for n, each in enumerate(transcripts)]
    other = [_with_prompt(each, f"Be brief.\nNotes: another {n}\nAnswer:") for n, each in enumerate(transcripts)]
    assert wording_hash(own) == wording_hash(other)


def test_a_method_that_reads_the_environments_prompt_has_no_wording_of_its_own() -> None:
    assert wording_hash(played("r1-searcher")) is None


def _with_prompt(transcript: Transcript, prompt: str) -> Transcript:
    turn = dataclasses.replace(transcript.turns[-1], calls=(Call(purpose="answer", prompt=prompt, prompt_tokens=9),))
    return dataclasses.replace(transcript, turns=(turn,))
