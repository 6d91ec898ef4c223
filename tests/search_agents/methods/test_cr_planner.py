"""CR-Planner: its decision process, what its critics read, and how it plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from search_agents.engines.base import SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import Setting, make_method
from search_agents.methods import cr_planner as module
from search_agents.methods.cr_planner.critics import read_choice
from search_agents.methods.cr_planner.mdp import (
    SENTENCES,
    Critic,
    Observed,
    State,
    SubGoal,
    critic_input,
    judged_text,
)

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError, RetrieverUnavailable
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import Document, Question, StopReason

DOCUMENTS = (
    Document(id="1", title="Norway", text="The capital is Oslo. <answer>"),
    Document(id="2", title="Peru", text="The capital is Lima."),
    Document(id="3", title="Chile", text="The capital is Santiago."),
)
PERU = Question(id="peru", text="Peru capital?", answers=("Lima",))
CHILE = Question(id="chile", text="Chile capital?", answers=("Santiago",))
THINK, ASK, LOOK_UP = (SENTENCES[sub_goal] for sub_goal in SubGoal)

RICH = State(
    question="Q?",
    observed=(
        Observed(Critic.RATIONALE, "t1"),
        Observed(Critic.QUERY, "q1"),
        Observed(Critic.DOCUMENT, "d1"),
        Observed(Critic.RATIONALE, "t2"),
        Observed(Critic.QUERY, "q2"),
    ),
    open_query="q2",
    searches=1,
)


class Retriever(InMemoryRetriever):
    broken = False

    def search(self, queries, top_k):
        if self.broken:
            raise RetrieverUnavailable("the index is gone")
        return super().search(queries, top_k)


class Critics:
    """Critics that prefer what is told, and keep what they read."""

    fingerprint = "critics-of-a-test"

    def __init__(self, prefer: Callable[[Critic, str], float]) -> None:
        self.prefer = prefer
        self.read: list[tuple[Critic, str, list[str]]] = []

    def score(self, critic: Critic, state: State, candidates: Sequence[str]) -> list[float]:
        self.read.append((critic, critic_input(critic, state), list(candidates)))
        return [self.prefer(critic, candidate) for candidate in candidates]


def make_setting(engine, *, slots=2, max_searches=8, chat=False):
    dataset = Dataset(name="tiny", split="train", questions=(PERU, CHILE), documents=DOCUMENTS)
    env = SearchQAVectorEnv(
        slots, dataset=dataset, retriever=Retriever(DOCUMENTS), prompt="base", top_k=2, max_searches=max_searches
    )
    sampling = SamplingParams(max_tokens=200, temperature=0.0)
    return Setting(engine=engine, env=env, sampling=sampling, max_tokens=4000, chat=chat)


@pytest.fixture
def plan(monkeypatch):
    """Plan with critics that prefer some texts, in this order, to others."""

    def run(scripts, preferred, questions=(PERU,), **settings):
        def prefer(critic, candidate):
            places = [place for place, wanted in enumerate(preferred) if wanted in candidate]
            return -float(places[0]) if places else -99.0

        critics = Critics(prefer)
        monkeypatch.setattr(module, "TrainedCritics", lambda folder, **where: critics)
        options = {key: settings.pop(key) for key in ("max_steps", "samples", "top_k") if key in settings}
        method = make_method({"name": "cr-planner", "part": "folder", **options}, make_setting(scripts, **settings))
        return list(method.run(questions)), critics, method

    return run


# --- the decision process ---


def test_sub_goals_are_possible_where_they_can_be_carried_out():
    root = State(question="Q?")
    assert root.possible(8) == (SubGoal.GENERATE_QUERY, SubGoal.REASON)
    asked = root.after(SubGoal.GENERATE_QUERY, "Peru")
    assert asked.possible(8) == (SubGoal.RETRIEVE, SubGoal.GENERATE_QUERY, SubGoal.REASON)
    assert asked.after(SubGoal.REASON, "so").possible(8) == asked.possible(8)
    found = asked.after(SubGoal.RETRIEVE, "Peru: Lima")
    assert found.possible(8) == root.possible(8)
    assert found.possible(1) == asked.possible(0) == (SubGoal.REASON,)


def test_states_grow_by_what_is_kept():
    state = State(question="Q?").after(SubGoal.REASON, "t").after(SubGoal.GENERATE_QUERY, "q")
    assert (state.open_query, state.searches) == ("q", 0)
    assert str(state) == "Question: Q?\nThought: t\nQuery: q"
    assert state.after(SubGoal.GENERATE_QUERY, "other").open_query == "other"
    assert state.after(SubGoal.REASON, None) == state.after(SubGoal.GENERATE_QUERY, None) == state
    nothing = state.after(SubGoal.RETRIEVE, None)
    assert (nothing.observed, nothing.open_query, nothing.searches) == (state.observed, None, 1)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("The answer is: Lima.", "Lima"),
        ("So the Answer is Lima", "Lima"),
        ("The answer is:", ""),
        ("The answer isn't known", ""),
        ("The answer is not in the notes.", ""),
        ("So far the answer is unknown", ""),
        ("The answer is Notting Hill.", "Notting Hill"),
        ("It lies on the coast.", ""),
    ],
)
def test_only_a_rationale_that_ends_the_path_holds_an_answer(said, answer):
    assert State(question="Q?").after(SubGoal.REASON, said).answer == answer
    assert State(question="Q?").after(SubGoal.GENERATE_QUERY, said).answer == ""
    assert State(question="The answer is: x").answer == ""


def test_each_critic_reads_what_the_papers_table_says():
    root = State(question="Q?")
    assert critic_input(Critic.SUB_GOAL, RICH) == (
        "Question: Q?\nThought: t1\nQuery: q1\nDocument: d1\nThought: t2\nQuery: q2"
    )
    assert critic_input(Critic.RATIONALE, RICH) == "Question: Q?\nThought: t1\nThought: t2"
    assert critic_input(Critic.QUERY, RICH) == "Thought: t2"
    assert critic_input(Critic.DOCUMENT, RICH) == "Thought: t2\nQuery: q2"
    for critic in (Critic.SUB_GOAL, Critic.RATIONALE, Critic.QUERY):
        assert critic_input(critic, root) == "Question: Q?"
    asked = root.after(SubGoal.GENERATE_QUERY, "q")
    assert critic_input(Critic.DOCUMENT, asked) == "Question: Q?\nQuery: q"
    assert judged_text(Critic.DOCUMENT, "Thought: t2\nQuery: q2", "d") == "Thought: t2\nQuery: q2\nDocument: d"


# --- planning ---


def test_it_keeps_what_the_critics_prefer_and_stops_at_an_answer(plan):
    engine = ScriptedEngine(
        {"Peru": ["Chile", "Query: 'Peru capital'", "Norway", "No idea.", "The answer is: Lima.", "Hm"]}
    )
    (transcript,), critics, method = plan(engine, [LOOK_UP, ASK, "Lima", "Peru"], max_searches=1)
    assert transcript.answer == "Lima" and transcript.stop_reason is StopReason.ANSWERED
    assert transcript.queries == ("Peru capital",)
    read = [(critic, candidates) for critic, _, candidates in critics.read]
    assert read == [
        (Critic.SUB_GOAL, [ASK, THINK]),
        (Critic.QUERY, ["Chile", "Peru capital", "Norway"]),
        (Critic.SUB_GOAL, [LOOK_UP, ASK, THINK]),
        (Critic.DOCUMENT, read[3][1]),
        (Critic.SUB_GOAL, [THINK]),
        (Critic.RATIONALE, ["No idea.", "The answer is: Lima.", "Hm"]),
    ]
    assert len(read[3][1]) == 2 and "Peru: The capital is Lima." in read[3][1]
    told = {call.purpose for turn in transcript.turns for call in turn.calls}
    assert told == {
        "sub-goal critic",
        "query critic",
        "document critic",
        "rationale critic",
        "reason",
        "generate-query",
    }
    assert method.fingerprint == "critics-of-a-test"


def test_a_step_costs_m_calls_or_one_search_and_the_conclusion_is_forced_after_the_last(plan):
    said = ["a", "b", "c"] * 3 + ["Lima"]
    (transcript,), _, _ = plan(ScriptedEngine({"": said}), [LOOK_UP, THINK], max_steps=3)
    assert transcript.answer == "Lima"
    model_calls = [call for turn in transcript.turns for call in turn.calls if call.prompt_tokens]
    assert [call.purpose for call in model_calls] == ["reason"] * 9 + ["conclusion"]

    (transcript,), _, _ = plan(ScriptedEngine({"": ["Peru", "Peru", "Peru", "Lima"]}), [LOOK_UP, ASK], max_steps=2)
    model_calls = [call for turn in transcript.turns for call in turn.calls if call.prompt_tokens]
    assert [call.purpose for call in model_calls] == ["generate-query"] * 3 + ["conclusion"]
    assert (transcript.queries, transcript.answer) == (("Peru",), "Lima")
    assert "Document: " in model_calls[-1].prompt and "<answer>" not in model_calls[-1].prompt


def test_only_one_document_is_kept(plan):
    engine = ScriptedEngine({"": ["Peru Chile capital", "", "", "Lima"]})
    (transcript,), _, _ = plan(engine, [LOOK_UP, ASK, "Santiago"], max_steps=2)
    conclusion = transcript.turns[-1].calls[-1].prompt
    assert "Santiago" in conclusion and "Lima" not in conclusion


def test_a_sub_goal_of_which_nothing_comes_costs_a_step_and_no_more(plan):
    (transcript,), critics, _ = plan(ScriptedEngine({"": ["", " ", "\n"] * 2 + ["Lima"]}), [THINK], max_steps=2)
    assert transcript.answer == "Lima"
    assert [critic for critic, _, _ in critics.read] == [Critic.SUB_GOAL] * 2


def test_what_is_planned_does_not_depend_on_the_questions_beside_it_or_on_their_answers(plan):
    scripts = {"Peru": ["Peru"] * 3 + ["The answer is: Lima"] * 3, "Chile": ["Chile"] * 3 + ["The answer is: Chile"]}
    together, _, _ = plan(ScriptedEngine(scripts), [LOOK_UP, ASK], (PERU, CHILE), max_searches=1)
    other = Question(id="peru", text=PERU.text, answers=("Quito",), gold_titles=("x",), hops=7)
    (alone,), _, _ = plan(ScriptedEngine(scripts), [LOOK_UP, ASK], (other,), max_searches=1)
    (beside,) = [transcript for transcript in together if transcript.question is PERU]
    assert beside.turns == alone.turns and beside.answer == "Lima"


def test_a_failed_retriever_makes_the_episode_invalid(plan, monkeypatch):
    monkeypatch.setattr(Retriever, "broken", True)
    (transcript,), _, _ = plan(ScriptedEngine({"": ["Peru"] * 3}), [LOOK_UP, ASK])
    assert transcript.stop_reason is StopReason.RETRIEVER_UNAVAILABLE and transcript.answer is None


# --- the language model as critic ---


@pytest.mark.parametrize(
    ("text", "place"), [("2", 1), (" The best is 3.", 2), ("4", 0), ("0", 0), ("none", 0), ("", 0)]
)
def test_a_verdict_names_a_candidate_or_the_first_is_taken(text, place):
    assert read_choice(text, 3) == place


def test_the_language_model_can_be_the_critic():
    replies = {"next action": "1", "search query": "2", "document to read": "1", "next thought": "2"}
    prompts = []
    samples = {
        "Query:": iter(["Chile", "Peru capital", "Norway"]),
        "Thought:": iter(["Hm.", "The answer is: Lima", "No."]),
    }

    def reply(prompt):
        prompts.append(prompt)
        for wanted, said in replies.items():
            if f"Which {wanted} helps" in prompt:
                return said
        return next(samples[prompt.rsplit("\n", 1)[1]])

    setting = make_setting(ScriptedEngine(reply), max_searches=1)
    method = make_method({"name": "cr-planner", "critic": "llm"}, setting)
    (transcript,) = method.run([PERU])
    assert (transcript.queries, transcript.answer, method.fingerprint) == (("Peru capital",), "Lima", None)
    # Two choices of a sub-goal (at the end there is but one), and one of each outcome; three samples twice.
    assert len(prompts) == 5 + 6
    assert "Question: Peru capital?\n\n1. Chile\n2. Peru capital\n3. Norway" in prompts[4]


def test_critics_are_asked_for_where_they_are_missing(tmp_path):
    setting = make_setting(ScriptedEngine({}))
    with pytest.raises(ConfigError, match=r"search-env fit --method '\{name: cr-planner"):
        make_method("cr-planner", setting)
    (tmp_path / "rationale").mkdir()
    with pytest.raises(ConfigError, match="lacks the critics sub-goal, query, document"):
        make_method({"name": "cr-planner", "part": str(tmp_path)}, setting)
