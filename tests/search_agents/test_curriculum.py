"""Difficulty is the number of attempts that were needed; curricula that are none are refused."""

import dataclasses

import pytest
from search_agents.curriculum import difficulty, label_difficulty, level_of, read_curriculum
from search_agents.engines.base import SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import Setting

from search_env import Dataset
from search_env.errors import ConfigError, DatasetError, RetrieverUnavailable
from search_env.types import Action, ActionKind, Document, Question, StopReason, Transcript, Turn
from search_env.vector import SearchQAVectorEnv

QUESTIONS = tuple(Question(id=f"q{n}", text=f"Question {n}?", answers=("yes",)) for n in range(5))


@pytest.fixture
def setting():
    data = Dataset(name="few", split="dev", questions=QUESTIONS, documents=(Document(id="d", title="t", text="x"),))
    env = SearchQAVectorEnv(2, dataset="custom", data=data)
    return Setting(engine=ScriptedEngine({}), env=env, sampling=SamplingParams(max_tokens=9), max_tokens=99, chat=False)


class Agent:
    """Answers right at the attempt that a question's number says; 0 stands for never."""

    def __init__(self, right_at):
        self.right_at, self.asked = right_at, []

    def run(self, questions):
        self.asked.append([question.id for question in questions])
        return [self._answer(question) for question in questions]

    def _answer(self, question):
        right = len(self.asked) == self.right_at[question.id]
        turn = Turn(segment="", action=Action(kind=ActionKind.ANSWER, text="yes" if right else "no"))
        return Transcript(question=question, turns=(turn,), stop_reason=StopReason.ANSWERED)


def test_a_question_is_asked_until_it_is_right_and_no_longer(setting, tmp_path, monkeypatch):
    agent = Agent({"q0": 1, "q1": 9, "q2": 10, "q3": 20, "q4": 0})
    monkeypatch.setattr(difficulty, "make_method", lambda name, setting: agent)
    labels = label_difficulty(setting, QUESTIONS, tmp_path / "labels.jsonl")
    assert [label.rollouts for label in labels] == [1, 9, 10, 20, None]
    assert [label.question.level for label in labels] == ["easy", "easy", "medium", "medium", "difficult"]
    assert [sum(f"q{n}" in asked for asked in agent.asked) for n in range(5)] == [1, 9, 10, 20, 20]


def test_the_bounds_are_the_papers():
    assert [level_of(n) for n in (1, 9, 10, 20, 21, None)] == ["easy", "easy", "medium", "medium"] + ["difficult"] * 2


def test_every_attempt_samples_anew(setting, tmp_path, monkeypatch):
    seeds = []

    def make(name, setting):
        seeds.append(setting.seed)
        return Agent(dict.fromkeys(("q0", "q1", "q2", "q3", "q4"), 0))

    monkeypatch.setattr(difficulty, "make_method", make)
    label_difficulty(setting, QUESTIONS, tmp_path / "labels.jsonl")
    assert len(set(seeds)) == len(seeds) == difficulty.ATTEMPTS


def test_a_failed_search_is_no_attempt_and_loses_no_label(setting, tmp_path, monkeypatch):
    class Broken:
        def run(self, questions):
            return [Transcript(question=q, turns=(), stop_reason=StopReason.RETRIEVER_UNAVAILABLE) for q in questions]

    monkeypatch.setattr(difficulty, "make_method", lambda name, setting: Broken())
    with pytest.raises(RetrieverUnavailable, match="run the same command again"):
        label_difficulty(setting, QUESTIONS, tmp_path / "labels.jsonl")
    assert not (tmp_path / "labels.jsonl").exists()


def test_attempts_that_cannot_differ_and_files_of_other_questions_are_refused(setting, tmp_path, monkeypatch):
    greedy = dataclasses.replace(setting, sampling=SamplingParams(temperature=0, max_tokens=9))
    with pytest.raises(ConfigError, match="temperature above 0"):
        label_difficulty(greedy, QUESTIONS, tmp_path / "labels.jsonl")
    monkeypatch.setattr(difficulty, "make_method", lambda name, setting: Agent({f"q{n}": 1 for n in range(5)}))
    label_difficulty(setting, QUESTIONS, tmp_path / "labels.jsonl")
    with pytest.raises(DatasetError, match=r"labels\.jsonl:1: is a label of another question"):
        label_difficulty(setting, QUESTIONS[1:], tmp_path / "labels.jsonl")
    with pytest.raises(DatasetError, match="more labels than there are questions"):
        label_difficulty(setting, QUESTIONS[:2], tmp_path / "labels.jsonl")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "maps stages to sources"),
        ("[1]", "holds a list"),
        ("stage1: 3", "stage1 must be a mapping"),
        ("stage1: {a: {hard: 3}}", "unknown level 'hard'"),
        ("stage1: {a: {easy: -1}}", "must be a number of questions"),
        ("stage1: [", "is not YAML"),
    ],
)
def test_a_curriculum_that_is_none_is_refused(tmp_path, text, problem):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_curriculum(tmp_path / "mine.yaml")
