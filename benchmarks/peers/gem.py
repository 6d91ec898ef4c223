"""GEM: a question environment with the search tool around it, one a slot, stepped in a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from gem.envs.qa_env import QaEnv  # type: ignore[import-not-found]
from gem.tools.search_tool import SearchTool  # type: ignore[import-not-found]
from gem.tools.tool_env_wrapper import ToolEnvWrapper  # type: ignore[import-not-found]

from benchmarks.peers.work import Outcome, Passage, Work, serve

EPISODES = 64  # Of a data set; when it is used up, the environment shuffles it anew.


class StubTool(SearchTool):  # type: ignore[misc]
    """GEM's tool, with its own way to write passages, but without the server."""

    def __init__(self, work: Work) -> None:
        super().__init__(search_url="http://stub", topk=work.top_k)
        self._found = {query: [_as_served(passage) for passage in found] for query, found in work.found.items()}

    def _search(self, query: str) -> Any:
        return self._passages2string(self._found[query])


class Gem:
    """GEM's environments one by one."""

    distribution = "gem-llm"
    settings = (
        "QaEnv in ToolEnvWrapper with SearchTool, whose request to the server is replaced; the environments stepped in "
        "a loop, as its vector environment copies every observation deeply"
    )

    def __init__(self, work: Work) -> None:
        self._envs = [make() for make in makers(work)]

    def reset(self) -> None:
        """Ask every slot its question."""
        for env in self._envs:
            env.reset()

    def actions(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts themselves."""
        return texts

    def step(self, actions: Sequence[str]) -> Any:
        """Slot after slot."""
        return [env.step(action) for env, action in zip(self._envs, actions, strict=True)]

    def read(self, result: Any) -> list[Outcome]:
        """What every slot got."""
        return [Outcome(text, reward, terminated or truncated) for text, reward, terminated, truncated, _ in result]


def makers(work: Work) -> list[Callable[[], Any]]:
    """What makes the environment of each slot."""
    tool = StubTool(work)

    def maker(question: str, answer: str) -> Callable[[], Any]:
        dataset = Dataset.from_list([{"question": question, "answer": answer}] * EPISODES)
        return lambda: ToolEnvWrapper(QaEnv(dataset=dataset), [tool])

    return [maker(question, answer) for question, answer in zip(work.questions, work.answers, strict=True)]


def _as_served(passage: Passage) -> dict[str, Any]:
    title, text = passage
    return {"document": {"contents": f"{title}\n{text}"}, "score": 1.0}


if __name__ == "__main__":
    serve(Gem)
