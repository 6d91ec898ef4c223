"""aviary: its HotPotQA environment with its search replaced, one a slot, awaited one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aviary.core import EvalAnswerMode, ToolCall, ToolRequestMessage  # type: ignore[import-not-found]
from aviary.envs.hotpotqa import HotPotQAEnv  # type: ignore[import-not-found]

from benchmarks.peers.work import Outcome, Work, query_of, serve


class StubEnv(HotPotQAEnv):  # type: ignore[misc]
    """Finds what is known beforehand instead of asking Wikipedia."""

    found: dict[str, str] = {}  # noqa: RUF012

    async def search(self, entity: str) -> str:
        """Search for passages.

        Args:
            entity: What to search for.
        """
        return self.found[entity]


class Aviary:
    """aviary's environments one by one."""

    distribution = "aviary.hotpotqa"
    settings = (
        "HotPotQAEnv, exact match, its search replaced, its environments kept from episode to episode and awaited in a "
        "loop; it takes no text but tool calls, which are made of the text beforehand, outside of the timing"
    )

    def __init__(self, work: Work) -> None:
        StubEnv.found = {
            query: "\n".join(f"{title}: {text}" for title, text in found) for query, found in work.found.items()
        }
        self._envs = [
            StubEnv(None, question, answer, evaluation_mode=EvalAnswerMode.EXACT)
            for question, answer in zip(work.questions, work.answers, strict=True)
        ]
        self._loop = asyncio.new_event_loop()

    def reset(self) -> None:
        """Ask every slot its question."""

        async def reset() -> None:
            for env in self._envs:
                await env.reset()

        self._loop.run_until_complete(reset())

    def actions(self, texts: Sequence[str]) -> Sequence[Any]:
        """A message with the text and the tool call that it means."""

        def call(text: str) -> Any:
            if text.endswith("</search>"):
                return ToolCall.from_name("search", entity=query_of(text))
            return ToolCall.from_name("submit_answer", answer=query_of(text))

        return [ToolRequestMessage(content=text, tool_calls=[call(text)]) for text in texts]

    def step(self, actions: Sequence[Any]) -> Any:
        """Slot after slot."""

        async def step() -> list[Any]:
            return [await env.step(action) for env, action in zip(self._envs, actions, strict=True)]

        return self._loop.run_until_complete(step())

    def read(self, result: Any) -> list[Outcome]:
        """What every slot got."""
        return [
            Outcome("".join(message.content for message in messages), reward, done or truncated)
            for messages, reward, done, truncated in result
        ]


if __name__ == "__main__":
    serve(Aviary)
