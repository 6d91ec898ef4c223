"""The critics' training data: a Monte Carlo tree search over training questions, whose siblings make pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveInt

from search_agents.learning.run_folder import append_jsonl, read_jsonl, write_jsonl
from search_agents.methods.base import Setting
from search_agents.methods.cr_planner.mdp import OUTCOMES, SENTENCES, Critic, State, SubGoal, critic_input, judged_text
from search_agents.methods.cr_planner.planning import Planner, PlanOptions
from search_agents.methods.steps import Steps
from search_env import metrics
from search_env.dialects import make_inert
from search_env.errors import RunError
from search_env.types import Question, StopReason

__all__ = ["Node", "Pair", "SearchOptions", "TreeSearch", "backpropagate", "collect", "pairs_of", "select", "ucb1"]

_PAIRS, _SOURCE = "pairs.jsonl", "source.json"


class SearchOptions(PlanOptions):
    """How the tree search plays."""

    simulations: PositiveInt = 32
    """Simulations of a question (ours)."""
    exploration: NonNegativeFloat = math.sqrt(2)
    """The constant c of UCB1; less of it looks deeper where a reward was found."""
    reward: Literal["f1", "em"] = "f1"
    """What the answer of a simulation earns: word F1, or 1 for an exact match."""


@dataclass(eq=False, slots=True, kw_only=True)
class Node:
    """A state, or a sub-goal chosen in it; the children of the one are the other."""

    state: State
    sub_goal: SubGoal | None = None
    """None where an outcome has just been kept, and a sub-goal is to be chosen."""
    candidate: str = ""
    """What the critic judges: the sub-goal's sentence, or the outcome."""
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0
    """Sum of the rewards of all simulations through here."""

    @property
    def value(self) -> float:
        """Mean reward; of a node that was visited."""
        return self.total / self.visits


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two candidates of one decision, of which the first earned more."""

    critic: Critic
    read: str
    """What the critic reads of the state."""
    chosen: str
    rejected: str
    margin: float
    """Difference of their mean rewards."""
    places: tuple[int, int]
    """Their places among the candidates, as they came: of documents, their ranks."""

    @property
    def texts(self) -> tuple[str, str]:
        """What the critic scores."""
        return judged_text(self.critic, self.read, self.chosen), judged_text(self.critic, self.read, self.rejected)


def ucb1(node: Node, exploration: float) -> float:
    """``v / n + c sqrt(ln n_parent / n)``; infinite for a node without visits."""
    if not node.visits or node.parent is None:
        return math.inf
    return node.value + exploration * math.sqrt(math.log(node.parent.visits) / node.visits)


def select(node: Node, exploration: float) -> Node:
    """The child with the highest `ucb1`, the first among equals."""
    return max(node.children, key=lambda child: ucb1(child, exploration))


def backpropagate(node: Node, reward: float) -> None:
    """Add a visit and its reward to a node and to all above it."""
    above: Node | None = node
    while above is not None:
        above.visits += 1
        above.total += reward
        above = above.parent


def pairs_of(root: Node) -> Iterator[Pair]:
    """The best child of each node against every sibling that was visited and earned less, on average."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        visited = [(place, child) for place, child in enumerate(node.children) if child.visits]
        if not visited:
            continue
        critic = OUTCOMES[node.sub_goal] if node.sub_goal else Critic.SUB_GOAL
        best_place, best = max(visited, key=lambda one: one[1].value)
        for place, child in visited:
            if child.value < best.value:
                yield Pair(
                    critic=critic,
                    read=critic_input(critic, node.state),
                    chosen=best.candidate,
                    rejected=child.candidate,
                    margin=best.value - child.value,
                    places=(best_place, place),
                )


class TreeSearch(Planner):
    """Builds a tree for each question; never asked for an evaluation, since it reads the answers.

    A simulation descends by UCB1 to an outcome that was not visited yet, growing the tree where it ends: a state by
    its possible sub-goals, a sub-goal by its outcomes. There the model answers from what was observed, unless the
    outcome holds the answer; what the answer earns goes back up the path.
    """

    name = "cr-planner-search"
    Options = SearchOptions
    options: SearchOptions

    def __init__(self, setting: Setting, options: SearchOptions | None = None) -> None:
        super().__init__(setting, options)
        self.trees: dict[str, Node] = {}
        """The root of each question's tree, by the question's id."""

    def answer(self, question: Question) -> Steps[str]:
        """Search; the answer is that of the last simulation."""
        root = self.trees[question.id] = Node(state=State(question=make_inert(question.text)))
        answer = ""
        for _ in range(self.options.simulations):
            leaf = yield from self._descend(root)
            answer = leaf.state.answer or (yield from self.conclude(question, leaf.state))
            backpropagate(leaf, self._reward(answer, question))
        return answer

    def _descend(self, node: Node) -> Steps[Node]:
        """Walk to the node that is simulated next."""
        while True:
            if not node.children:
                yield from self._expand(node)
            if not node.children:
                return node  # the path ends here, or nothing came of the sub-goal
            node = select(node, self.options.exploration)
            if node.sub_goal is None and not node.visits:
                return node

    def _expand(self, node: Node) -> Steps[None]:
        state = node.state
        if node.sub_goal is not None:
            for outcome in (yield from self.execute(state, node.sub_goal)):
                node.children.append(Node(state=state.after(node.sub_goal, outcome), candidate=outcome, parent=node))
        elif not state.answer and len(state.observed) < self.options.max_steps:
            for sub_goal in state.possible(self.max_searches):
                child = Node(state=state, sub_goal=sub_goal, candidate=SENTENCES[sub_goal], parent=node)
                node.children.append(child)

    def _reward(self, answer: str, question: Question) -> float:
        earned = metrics.f1 if self.options.reward == "f1" else metrics.exact_match
        return earned(answer, question.answers)


def collect(setting: Setting, questions: Sequence[Question], folder: Path, options: SearchOptions) -> list[list[Pair]]:
    """Search for every question that the folder has not, many side by side, and keep the pairs of each as it is done.

    Args:
        setting: Engine, corpus and budgets.
        questions: Training questions.
        folder: Holds ``pairs.jsonl``, a line a question, and ``source.json``: what they were made with.
        options: How to search.

    Returns:
        The pairs of each question, in the order of `questions`; none for one whose search met a failed retriever, which
        is asked again by the next call.

    Raises:
        RunError: If the folder's pairs were made with another model, retriever, seed or other options.
    """
    _check_source(setting, folder, options)
    file = folder / _PAIRS
    rows = {row["question"]: row for row in read_jsonl(file)}
    if file.is_file():
        write_jsonl(file, rows.values())  # whole lines only, so that the next one begins on its own
    search = TreeSearch(setting, options)
    done = [number for number, question in enumerate(questions) if question.id in rows]
    for transcript in search.run(questions, skip=done):
        tree = search.trees.pop(transcript.question.id)
        if transcript.stop_reason is not StopReason.RETRIEVER_UNAVAILABLE:
            pairs = [asdict(pair) for pair in pairs_of(tree)]
            reward = round(tree.value, 6) if tree.visits else None
            row = {"question": transcript.question.id, "simulations": tree.visits, "reward": reward, "pairs": pairs}
            append_jsonl(file, row)
            rows[transcript.question.id] = row
    return [_read_pairs(rows[question.id]) if question.id in rows else [] for question in questions]


def _check_source(setting: Setting, folder: Path, options: SearchOptions) -> None:
    source: dict[str, Any] = {
        "engine": setting.engine.name,
        "retriever": setting.env.retriever.fingerprint,
        "max_searches": setting.env.rules.budget.max_searches,
        "chat": setting.chat,
        "conclusions": [setting.sampling.temperature, setting.sampling.max_tokens],
        "seed": setting.seed,
        **options.model_dump(include=set(SearchOptions.model_fields)),
        "top_k": options.top_k or setting.env.top_k,
    }
    file = folder / _SOURCE
    stored = read_jsonl(file)
    if not stored:
        write_jsonl(file, [source])
    elif stored[0] != source:
        other = ", ".join(
            f"{key} ({stored[0].get(key)}, now {source[key]})" for key in source if stored[0].get(key) != source[key]
        )
        raise RunError(f"{folder} holds pairs that were made with other settings: {other}. Give another folder.")


def _read_pairs(row: dict[str, Any]) -> list[Pair]:
    return [
        Pair(**{**pair, "critic": Critic(pair["critic"]), "places": tuple(pair["places"])}) for pair in row["pairs"]
    ]
