"""CR-Planner's tree search and the critics that learn from it."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from search_agents.engines.base import SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import Setting, make_method
from search_agents.methods.cr_planner import CRPlanner
from search_agents.methods.cr_planner.collect import (
    Node,
    Pair,
    SearchOptions,
    TreeSearch,
    backpropagate,
    collect,
    pairs_of,
    select,
    ucb1,
)
from search_agents.methods.cr_planner.mdp import SENTENCES, Critic, State, SubGoal
from search_agents.methods.cr_planner.train import FitOptions, train_critics
from search_agents.methods.reward_model import RewardTraining

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError, RetrieverUnavailable, RunError
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import Document, Question

DOCUMENTS = (
    Document(id="1", title="Peru", text="Peru has a capital on the coast."),
    Document(id="2", title="Lima", text="Peru has the capital Lima."),
)
PERU = Question(id="peru", text="Peru capital?", answers=("Lima",))
CHILE = Question(id="chile", text="Chile capital?", answers=("Santiago",))
ROOT = State(question="Q?")


class Retriever(InMemoryRetriever):
    broken = False

    def search(self, queries, top_k):
        if self.broken:
            raise RetrieverUnavailable("the index is gone")
        return super().search(queries, top_k)


class Reader:
    """A model that answers what it reads, words one query, and thinks in two ways."""

    def __init__(self) -> None:
        self.thoughts, self.questions = 0, []

    def __call__(self, prompt: str) -> str:
        if prompt.endswith("Thought:"):
            self.thoughts += 1
            return ["Peru is a country.", "The answer is: Quito"][self.thoughts % 2]
        if prompt.endswith("Query:"):
            return "Peru capital"
        self.questions.append("Chile" if "Question: Chile" in prompt else "Peru")
        return "Lima" if "has the capital Lima" in prompt else "unknown"


def make_setting(engine, *, slots=2, seed=0):
    dataset = Dataset(name="tiny", split="train", questions=(PERU, CHILE), documents=DOCUMENTS)
    env = SearchQAVectorEnv(slots, dataset=dataset, retriever=Retriever(DOCUMENTS), prompt="base", top_k=2)
    return Setting(
        engine=engine, env=env, sampling=SamplingParams(max_tokens=99), max_tokens=4000, chat=False, seed=seed
    )


def grow(node, *candidates, sub_goal=None):
    for candidate in candidates:
        node.children.append(Node(state=node.state, sub_goal=sub_goal, candidate=candidate, parent=node))
    return node.children


# --- the tree ---


def test_ucb1_and_backpropagation_equal_numbers_worked_out_by_hand():
    root = Node(state=ROOT)
    left, right, new = grow(root, "left", "right", "new")
    (below,) = grow(left, "below")
    for node, reward in ((below, 1.0), (below, 0.5), (left, 0.0), (right, 1.0)):
        backpropagate(node, reward)
    assert [(node.visits, node.total) for node in (root, left, below, right, new)] == [
        (4, 2.5),
        (3, 1.5),
        (2, 1.5),
        (1, 1.0),
        (0, 0.0),
    ]
    # 1.5/3 + 2 sqrt(ln 4 / 3) = 0.5 + 2 * 0.679778; 1 + 2 sqrt(ln 4) = 1 + 2 * 1.177410
    assert ucb1(left, 2.0) == pytest.approx(1.859556, abs=1e-6)
    assert ucb1(right, 2.0) == pytest.approx(3.354820, abs=1e-6)
    assert ucb1(below, 0.0) == pytest.approx(0.75)
    assert ucb1(new, 2.0) == math.inf and select(root, 2.0) is new
    backpropagate(new, 0.0)
    assert select(root, 2.0) is right
    for _ in range(9):
        backpropagate(right, 0.0)
    assert select(root, 0.0) is left and select(root, 5.0) is new


def test_pairs_are_the_best_child_against_each_visited_sibling_that_earned_less():
    root = Node(state=ROOT)
    think, ask = grow(root, "think", "ask")
    think.sub_goal, ask.sub_goal = SubGoal.REASON, SubGoal.GENERATE_QUERY
    low, best, same, unseen, middle = grow(think, "low", "best", "same", "unseen", "middle")
    for node, reward in ((low, 0.0), (best, 1.0), (same, 1.0), (middle, 0.5), (ask, 0.0)):
        backpropagate(node, reward)
    found = [(pair.critic, pair.read, pair.chosen, pair.rejected, pair.margin, pair.places) for pair in pairs_of(root)]
    assert unseen.visits == 0
    assert sorted(found) == [
        (Critic.RATIONALE, "Question: Q?", "best", "low", 1.0, (1, 0)),
        (Critic.RATIONALE, "Question: Q?", "best", "middle", 0.5, (1, 4)),
        (Critic.SUB_GOAL, "Question: Q?", "think", "ask", 0.625, (0, 1)),
    ]
    assert list(pairs_of(Node(state=ROOT))) == []


def test_a_search_finds_that_asking_and_reading_the_right_document_pays():
    options = SearchOptions(simulations=30, exploration=0.5, max_steps=2)
    search = TreeSearch(make_setting(ScriptedEngine(Reader())), options)
    list(search.run([PERU]))
    tree = search.trees["peru"]
    assert tree.visits == 30 and 0 < tree.total < 30
    by_critic = {critic: [pair for pair in pairs_of(tree) if pair.critic is critic] for critic in Critic}
    at_root = [pair for pair in by_critic[Critic.SUB_GOAL] if pair.read == "Question: Peru capital?"]
    assert [(pair.chosen, pair.rejected) for pair in at_root] == [
        (SENTENCES[SubGoal.GENERATE_QUERY], SENTENCES[SubGoal.REASON])
    ]
    documents = by_critic[Critic.DOCUMENT]
    assert documents and all("capital Lima" in pair.chosen and "coast" in pair.rejected for pair in documents)
    assert (
        documents[0].texts[0]
        == "Question: Peru capital?\nQuery: Peru capital\nDocument: Lima: Peru has the capital Lima."
    )


def test_a_rationale_that_holds_an_answer_ends_the_path_and_is_scored_without_a_call():
    search = TreeSearch(
        make_setting(ScriptedEngine(lambda prompt: "The answer is: Lima")), SearchOptions(simulations=2)
    )
    (transcript,) = search.run([PERU])
    purposes = [call.purpose for turn in transcript.turns for call in turn.calls]
    # The first path words a query (three samples of one text), which is no answer; the second thinks.
    assert purposes == ["generate-query"] * 3 + ["conclusion"] + ["reason"] * 3
    assert [child.value for child in search.trees["peru"].children] == [pytest.approx(0.5), 1.0]
    assert select(search.trees["peru"], 0.0).sub_goal is SubGoal.REASON


def test_the_reward_is_word_f1_or_an_exact_match():
    for reward, earned in (("f1", 2 / 3), ("em", 0.0)):
        options = SearchOptions(simulations=2, reward=reward)
        search = TreeSearch(make_setting(ScriptedEngine(lambda prompt: "The answer is: Lima city")), options)
        list(search.run([PERU]))
        assert search.trees["peru"].children[1].value == pytest.approx(earned)


def test_paths_have_no_more_observations_than_steps():
    options = SearchOptions(simulations=40, max_steps=2, samples=1, exploration=0.0)
    search = TreeSearch(make_setting(ScriptedEngine(lambda prompt: "Peru capital")), options)
    list(search.run([PERU]))
    waiting, depths = [search.trees["peru"]], []
    while waiting:
        node = waiting.pop()
        waiting += node.children
        depths.append(len(node.state.observed))
    assert max(depths) == 2


# --- the collection ---


def test_collecting_asks_no_question_twice_and_reads_what_it_wrote(tmp_path):
    options = SearchOptions(simulations=30, exploration=0.5)
    whole = collect(make_setting(ScriptedEngine(Reader())), (PERU, CHILE), tmp_path / "whole", options)
    assert whole[0] and all(isinstance(pair, Pair) for pair in whole[0])

    collect(make_setting(ScriptedEngine(Reader())), (PERU,), tmp_path / "parts", options)
    file = tmp_path / "parts" / "pairs.jsonl"
    file.write_text(file.read_text() + '{"question": "chile", "si')  # the process ended while it wrote
    reader = Reader()
    again = collect(make_setting(ScriptedEngine(reader)), (PERU, CHILE), tmp_path / "parts", options)
    assert set(reader.questions) == {"Chile"}
    assert again[0] == collect(make_setting(ScriptedEngine(Reader())), (PERU,), tmp_path / "parts", options)[0]
    assert [json.loads(line)["question"] for line in file.read_text().splitlines()] == ["peru", "chile"]


def test_a_question_whose_search_met_a_failed_retriever_is_asked_again(tmp_path, monkeypatch):
    options = SearchOptions(simulations=30, exploration=0.5)
    monkeypatch.setattr(Retriever, "broken", True)
    assert collect(make_setting(ScriptedEngine(Reader())), (PERU,), tmp_path, options) == [[]]
    monkeypatch.setattr(Retriever, "broken", False)
    assert collect(make_setting(ScriptedEngine(Reader())), (PERU,), tmp_path, options)[0]


def test_pairs_of_other_settings_are_not_mixed(tmp_path):
    options = SearchOptions(simulations=2)
    collect(make_setting(ScriptedEngine(Reader())), (PERU,), tmp_path, options)
    with pytest.raises(RunError, match=r"seed \(0, now 1\)"):
        collect(make_setting(ScriptedEngine(Reader()), seed=1), (PERU,), tmp_path, options)
    with pytest.raises(RunError, match="Give another folder"):
        collect(make_setting(ScriptedEngine(Reader())), (PERU,), tmp_path, SearchOptions(simulations=3))


# --- the critics ---


@pytest.fixture(scope="module")
def encoder(tokenizer, tmp_path_factory):
    """A tiny random BERT."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def questions_with_pairs(count, critics=tuple(Critic)):
    """Critics have to find that one word is better than another, beside names that mean nothing."""
    return [
        [
            Pair(
                critic=critic,
                read=f"Question: number {number}?",
                chosen=f"the end {number}",
                rejected=f"far away {number}",
                margin=1.0,
                places=(number % 2, 1 - number % 2),
            )
            for critic in critics
        ]
        for number in range(count)
    ]


def test_trained_critics_rank_held_out_pairs_better_than_untrained_ones_and_plan(encoder, tmp_path):
    training = RewardTraining(epochs=10, learning_rate=1e-3, batch_size=8)
    options = FitOptions(encoder=encoder, held_out=0.4, training=training)
    figures = train_critics(questions_with_pairs(40), tmp_path, options)
    assert list(figures) == ["sub-goal", "rationale", "query", "document"]
    for row in figures.values():
        assert (row["pairs"], row["held_out_pairs"]) == (24, 16)
        assert row["trained"] > 0.9 > row["untrained"]
        assert 0.2 < row["in_order"] < 0.8
    spec = {"name": "cr-planner", "part": str(tmp_path), "max_steps": 1}
    engine = ScriptedEngine({"": ["the end", "far away", "far away", "Lima"]})
    method = make_method(spec, make_setting(engine))
    (transcript,) = method.run([PERU])
    assert transcript.answer == "Lima" and method.fingerprint.startswith("critics-")
    conclusion = transcript.turns[-1].calls[-1].prompt
    assert "the end" in conclusion and "far away" not in conclusion


def test_fitting_collects_trains_and_keeps_the_figures(encoder, tmp_path, monkeypatch):
    from search_agents.methods.cr_planner import train

    asked = []

    def collected(setting, questions, folder, options):
        asked.append((list(questions), options.simulations))
        return questions_with_pairs(8)

    monkeypatch.setattr(train, "collect", collected)
    options = FitOptions(encoder=encoder, simulations=5, training=RewardTraining(part="head"))
    figures = CRPlanner.fit(make_setting(ScriptedEngine({})), [PERU], tmp_path / "critics", options)
    assert asked == [([PERU], 5)]
    assert json.loads((tmp_path / "critics" / "critics.json").read_text()) == figures


def test_a_critic_without_pairs_is_named(encoder, tmp_path):
    some = questions_with_pairs(8, critics=(Critic.SUB_GOAL, Critic.RATIONALE, Critic.QUERY))
    with pytest.raises(ConfigError, match="the document critic has no pairs"):
        train_critics(some, tmp_path, FitOptions(encoder=encoder))
    assert not list(tmp_path.iterdir())


def test_a_critic_of_whose_pairs_none_was_held_out_is_not_judged(encoder, tmp_path):
    options = FitOptions(encoder=encoder, held_out=0.1, training=RewardTraining(part="head", epochs=1))
    figures = train_critics(questions_with_pairs(4), tmp_path, options)
    assert [(row["pairs"], row["held_out_pairs"], row["trained"]) for row in figures.values()] == [(4, 0, None)] * 4


def test_no_question_is_both_learned_from_and_held_out():
    from search_agents.methods.cr_planner.train import _split

    several = [
        [dataclasses.replace(pair, margin=margin) for margin in (0.1, 0.2) for pair in pairs]
        for pairs in questions_with_pairs(9)
    ]
    learned, held_out = _split(several, 0.25, 0)
    assert not {pair.read for pair in learned} & {pair.read for pair in held_out}
    assert len(learned) + len(held_out) == 9 * 8 and len({pair.read for pair in held_out}) == 2
