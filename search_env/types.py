"""The vocabulary of the project; read this file first.

Everything here is frozen and holds text and plain numbers only: tokens belong to
``search_agents``. A `Transcript` is the text of one episode; rewards, metrics and
format rules judge it and see the model's own words apart from the documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

__all__ = [
    "Action",
    "ActionKind",
    "Call",
    "Document",
    "FormatVerdict",
    "Hit",
    "Hop",
    "Prompt",
    "Question",
    "Spending",
    "StopReason",
    "Transcript",
    "Turn",
    "make_action",
    "make_turn",
]


class ActionKind(StrEnum):
    """What a segment of the model's text asks the environment to do."""

    SEARCH = "search"
    ANSWER = "answer"
    MALFORMED = "malformed"


class StopReason(StrEnum):
    """Why an episode ended."""

    ANSWERED = "answered"
    """The agent gave an answer: terminated."""
    MALFORMED = "malformed"
    """The dialect ends an episode at a malformed segment: terminated."""
    MAX_SEARCHES = "max_searches"
    """One search more than the budget was asked for: truncated."""
    MAX_TURNS = "max_turns"
    """The budget of segments is spent: truncated."""
    MAX_CHARS = "max_chars"
    """The budget of characters, the model's and the documents' together, is spent: truncated."""
    MAX_TOKENS = "max_tokens"
    """The runner's token budget is spent: truncated by the runner, never by the environment."""
    RETRIEVER_UNAVAILABLE = "retriever_unavailable"
    """The retriever failed for good: the episode is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One look-up on the way to an answer."""

    query: str
    """What to search for, the answers of earlier hops filled in."""
    answer: str
    """What it finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question with its gold answers."""

    id: str
    text: str
    answers: tuple[str, ...]
    """Every accepted answer, at least one."""
    kind: str = ""
    """The set's own name for the kind of question: ``bridge``, ``comparison``, ``compositional`` …"""
    hops: int | None = None
    """Number of documents that the answer needs, if the set tells."""
    gold_titles: tuple[str, ...] = ()
    """Titles of the documents that hold the answer, in hop order if the set tells."""
    level: str = ""
    """The set's own difficulty label, if any."""
    decomposition: tuple[Hop, ...] = ()
    """The hops in their order, if the set tells. No agent sees them but the oracle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One passage of a corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A document that a retriever returned, with its score (greater is better)."""

    document: Document
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What searches of the web have used; two of them add up."""

    calls: int = 0
    """Calls of the search engine, those that failed included."""
    cached: int = 0
    """Searches that the cache answered."""
    pages: int = 0
    """Pages that were asked for over the network."""
    cost: float = 0.0
    """Price of the calls, in the currency of the settings."""

    def __add__(self, other: Spending) -> Spending:
        return Spending(
            calls=self.calls + other.calls,
            cached=self.cached + other.cached,
            pages=self.pages + other.pages,
            cost=self.cost + other.cost,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A segment as the dialect understood it."""

    kind: ActionKind
    text: str = ""
    """The query or the answer; empty when malformed."""
    problem: str = ""
    """What is wrong with a malformed segment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a model that a method made on the way to a turn."""

    purpose: str
    """What the method asked for, in one or two words: ``verdict``, ``follow-up question`` …"""
    prompt: str = ""
    """What the model read; empty if it is the episode so far."""
    text: str = ""
    """What it wrote, or what the method made of its log-probabilities; empty if it is the turn's own segment."""
    prompt_tokens: int | None = 0
    """Tokens that the engine took in; 0 if no model was asked, None if a server did not tell."""
    tokens: int | None = 0
    """Tokens that it sampled; None if a server did not tell."""
    token_ids: tuple[int, ...] = ()
    """Those tokens, where the text is the turn's own segment and the engine told them; else empty. The last ones may
    reach beyond the segment's end."""
    logprobs: tuple[float | None, ...] = ()
    """Log-probability of each of `token_ids`, rounded; None where it was not finite."""
    cost: float | None = 0.0
    """Price in USD; 0 for a model that nobody charges for, None if price or tokens are not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One segment of the model and what came back."""

    segment: str
    """The model's text, up to and with its closing tag."""
    action: Action
    hits: tuple[Hit, ...] = ()
    """The documents the search returned, best first."""
    observation: str = ""
    """Exactly the text that the model reads next; empty at the end of an episode."""
    calls: tuple[Call, ...] = ()
    """The calls of a model since the turn before, in order, where somebody counted them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatVerdict:
    """A dialect's judgement of the model's segments."""

    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every rule of the dialect holds."""
        return not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The words that open an episode.

    A base model reads `text`. For an instruct model the runner passes `system` and
    `user` through the model's own chat template and appends `prefill`.
    """

    user: str
    system: str = ""
    prefill: str = ""
    """Text that the model's first segment continues, for example ``<think>``."""

    @property
    def text(self) -> str:
        """The prompt as one plain string."""
        return "\n\n".join(part for part in (self.system, self.user) if part) + self.prefill


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """The text of one episode so far: what rewards and metrics judge."""

    question: Question
    turns: tuple[Turn, ...] = ()
    stop_reason: StopReason | None = None
    """None while the episode runs."""
    format: FormatVerdict = field(default_factory=FormatVerdict)
    """The dialect's judgement of the segments; final once the episode has ended."""
    spending: Mapping[str, Spending] = field(default_factory=dict, hash=False)
    """What the searches have spent, by search engine of the web, failed ones included; empty for a corpus of one's
    own."""

    @property
    def answer(self) -> str | None:
        """The answer given, or None."""
        last = self.turns[-1].action if self.turns else None
        return last.text if last is not None and last.kind is ActionKind.ANSWER else None

    @property
    def queries(self) -> tuple[str, ...]:
        """The queries that were run, in order; one refused for its budget is not among them."""
        return tuple(
            turn.action.text for turn in self.turns if turn.observation and turn.action.kind is ActionKind.SEARCH
        )

    @property
    def segments(self) -> tuple[str, ...]:
        """The model's own words, one string a turn; never a document."""
        return tuple(turn.segment for turn in self.turns)


# Every step makes an action and a turn, and the constructor of a frozen class takes 0.1 µs a field, for it goes through
# `object.__setattr__`. The two functions fill the slots themselves, in less than half the time.
_set_kind, _set_text, _set_problem = (vars(Action)[one.name].__set__ for one in fields(Action))
_set_segment, _set_action, _set_hits, _set_observation, _set_calls = (
    vars(Turn)[one.name].__set__ for one in fields(Turn)
)


def make_action(kind: ActionKind, text: str = "", problem: str = "") -> Action:
    """What ``Action(kind=…, text=…, problem=…)`` makes."""
    action = object.__new__(Action)
    _set_kind(action, kind)
    _set_text(action, text)
    _set_problem(action, problem)
    return action


def make_turn(segment: str, action: Action, hits: tuple[Hit, ...], observation: str) -> Turn:
    """What ``Turn(segment=…, action=…, hits=…, observation=…)`` makes."""
    turn = object.__new__(Turn)
    _set_segment(turn, segment)
    _set_action(turn, action)
    _set_hits(turn, hits)
    _set_observation(turn, observation)
    _set_calls(turn, ())
    return turn
