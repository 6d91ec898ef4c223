"""Our own vector environment: one object for all slots, one call of the retriever a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.work import Outcome, Work, serve
from search_env.datasets import Dataset
from search_env.types import Document, Hit, Question
from search_env.vector import SearchQAVectorEnv


class Stub:
    """A retriever that has found everything beforehand."""

    fingerprint = "stub"

    def __init__(self, work: Work) -> None:
        self._found = {
            query: tuple(
                Hit(document=Document(id=f"{query} {rank}", title=title, text=text), score=1.0)
                for rank, (title, text) in enumerate(passages)
            )
            for query, passages in work.found.items()
        }

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Every query's documents; see `Retriever.search`."""
        return [self._found[query] for query in queries]


class Ours:
    """`SearchQAVectorEnv` with its default reward."""

    distribution = "search-env"
    settings = "SearchQAVectorEnv, dialect search-r1, all else default: F1 and format as the reward, all metrics told"

    def __init__(self, work: Work) -> None:
        questions = tuple(
            Question(id=str(slot), text=question, answers=(answer,))
            for slot, (question, answer) in enumerate(zip(work.questions, work.answers, strict=True))
        )
        dataset = Dataset(name="work", split="train", questions=questions)
        self._asked = {"question": list(range(len(questions)))}
        self._envs = SearchQAVectorEnv(
            len(questions), dataset=dataset, retriever=Stub(work), dialect="search-r1", top_k=work.top_k
        )

    def reset(self) -> None:
        """Ask every slot its question."""
        self._envs.reset(options=self._asked)

    def actions(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts themselves."""
        return texts

    def step(self, actions: Sequence[str]) -> Any:
        """All slots in one call."""
        return self._envs.step(actions)

    def read(self, result: Any) -> list[Outcome]:
        """What every slot got."""
        observations, rewards, terminations, truncations, _ = result
        ended = (terminations | truncations).tolist()
        return [Outcome(*one) for one in zip(observations, rewards.tolist(), ended, strict=True)]


if __name__ == "__main__":
    serve(Ours)
