"""The two ends of every leaderboard: the oracle, which knows the way, and the random agent, which knows nothing.

Both play real episodes: their queries are run, and the environment judges them.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping

from search_agents.methods.base import Setting, begin_query, open_answer
from search_agents.methods.playing import PlayingMethod
from search_env.dialects import make_inert
from search_env.metrics import mentions
from search_env.types import Document, Hop, Prompt, Question, Transcript
from search_env.vector import SearchQAVectorEnv

__all__ = ["Oracle", "RandomAgent", "holds", "hops_to_follow", "make_oracle", "make_random_agent"]


class _Rule(PlayingMethod):
    """Plays by a rule instead of a model."""

    def act(self, running: Mapping[int, Transcript]) -> Iterator[tuple[int, str]]:
        """Say the next segments; see `PlayingMethod.act`."""
        for number, transcript in running.items():
            yield number, self._segment(transcript)

    @abstractmethod
    def _query(self, transcript: Transcript) -> str | None:
        """What to search for next; None if it is time to answer."""

    @abstractmethod
    def _answer(self, transcript: Transcript) -> str:
        """The answer."""

    def _segment(self, transcript: Transcript) -> str:
        """The next segment, in the dialect's words."""
        dialect, style = self.env.rules.dialect, self.env.rules.style
        prompt: Prompt = dialect.prompt(transcript.question.text, style)
        said = prompt.prefill + "".join(turn.segment + turn.observation for turn in transcript.turns)
        if (query := self._query(transcript)) is None:
            answer = dialect.answer_body(make_inert(self._answer(transcript)))
            return f"{open_answer(dialect, said)} {answer} {dialect.answer.close}"
        return f"{begin_query(dialect, said)} {make_inert(query)} {dialect.query.close}"


class Oracle(_Rule):
    """Searches for each hop of a question in turn, and reads without error.

    It answers right if every hop was found: a document that was retrieved for it mentions the hop's answer. Where a
    set has no decomposition, each gold title is searched for and must be found. What the oracle scores is the ceiling
    of corpus and retriever for these queries. A question with neither is asked as it stands, and answered if a document
    mentions its answer.
    """

    name = "oracle"

    def _query(self, transcript: Transcript) -> str | None:
        hops = hops_to_follow(transcript.question)
        return hops[len(transcript.turns)].query if len(transcript.turns) < len(hops) else None

    def _answer(self, transcript: Transcript) -> str:
        question = transcript.question
        found = zip(hops_to_follow(question), transcript.turns, strict=True)
        by_title = not question.decomposition and question.gold_titles
        whole = all(any(holds(hit.document, hop, by_title=bool(by_title)) for hit in turn.hits) for hop, turn in found)
        return question.answers[0] if whole else "not found"


class RandomAgent(_Rule):
    """Searches for a few of the question's words, and answers with the title of some document it found.

    Args:
        env: The environment; its slots are the batch size.
        seed: With a question's id it fixes what is drawn for it.
    """

    name = "random"

    def __init__(self, env: SearchQAVectorEnv, *, seed: int = 0) -> None:
        super().__init__(env)
        self._seed = seed

    def _query(self, transcript: Transcript) -> str | None:
        if transcript.turns:
            return None
        words = transcript.question.text.split()
        return " ".join(self._rng(transcript).sample(words, min(3, len(words))))

    def _answer(self, transcript: Transcript) -> str:
        titles = [hit.document.title for turn in transcript.turns for hit in turn.hits]
        return self._rng(transcript).choice(titles) if titles else "nothing"

    def _rng(self, transcript: Transcript) -> random.Random:
        return random.Random(f"{self._seed}/{transcript.question.id}/{len(transcript.turns)}")


def make_oracle(setting: Setting) -> Oracle:
    """The oracle of a comparison."""
    return Oracle(setting.env)


def make_random_agent(setting: Setting) -> RandomAgent:
    """The random agent of a comparison."""
    return RandomAgent(setting.env, seed=setting.seed)


def holds(document: Document, hop: Hop, *, by_title: bool) -> bool:
    """Whether a document is what a look-up should find: by its title, or because it mentions what is looked for."""
    return document.title == hop.answer if by_title else mentions(f"{document.title} {document.text}", hop.answer)


def hops_to_follow(question: Question) -> tuple[Hop, ...]:
    """The look-ups that lead to a question's answer, as far as its set tells."""
    if question.decomposition:
        return question.decomposition
    if question.gold_titles:
        return tuple(Hop(query=title, answer=title) for title in question.gold_titles)
    return (Hop(query=question.text, answer=question.answers[0]),)
