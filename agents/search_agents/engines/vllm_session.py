"""Rows that vLLM generates, and the requests that stand for them.

A row is a list of token ids, and a segment of it one request whose prompt is the row so
far. Nothing but the prefix cache is kept between two segments, so a row that waits for a
search takes no place in the batch, and a turn computes its new tokens and the last,
unfinished block only.

vLLM samples the tokens and knows no text. Where a segment ends is found here, by the
code that finds it for every engine, right after the token that ends it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from search_agents.engines.base import SampledSegment, SamplingParams
from search_agents.engines.codec import TextCodec
from search_agents.engines.draft import SegmentDraft

__all__ = ["Requests", "VLLMSession"]

TakeOutput = Callable[[Any], bool]
"""Is given what vLLM made of a request in a step, and tells whether it is all that is wanted."""


class Requests:
    """The requests of all sessions of one engine.

    Args:
        llm: vLLM's engine, in this process and with a scheduler that waits for the tokens of a step.
        sampling_params: vLLM's class of that name.
        tokens_input: vLLM's function of that name.
    """

    def __init__(self, llm: Any, sampling_params: Any, tokens_input: Any) -> None:
        self._llm = llm
        self._sampling_params, self._tokens_input = sampling_params, tokens_input
        self._takers: dict[str, TakeOutput] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._takers)

    def add(self, token_ids: Sequence[int], take: TakeOutput, **params: Any) -> str:
        """Ask for tokens after a prompt.

        Args:
            token_ids: The prompt.
            take: Is given every new output.
            **params: Of vLLM's `SamplingParams`; a segment neither ends at an end of sequence nor has a text by itself.

        Returns:
            The request's id.
        """
        name = str(next(self._numbers))
        wanted = self._sampling_params(detokenize=False, ignore_eos=True, **params)
        self._llm.add_request(name, self._tokens_input(list(token_ids)), wanted)
        self._takers[name] = take
        return name

    def step(self) -> None:
        """Run the model once, for all requests that fit into the batch."""
        enough = []
        for output in self._llm.step():
            done = self._takers[output.request_id](output)
            if done or output.finished:
                del self._takers[output.request_id]
            if done and not output.finished:
                enough.append(output.request_id)
        if enough:
            self._llm.abort_request(enough)

    def run(self, names: Sequence[str]) -> None:
        """Step until the given requests are done; if that fails they are dropped."""
        try:
            while not self._takers.keys().isdisjoint(names):
                self.step()
        finally:
            self.drop(names)

    def drop(self, names: Sequence[str]) -> None:
        """Forget requests, those among them that are still running."""
        running = [name for name in names if self._takers.pop(name, None) is not None]
        if running:
            self._llm.abort_request(running)


class VLLMSession:
    """See `AsynchronousSession`; opened by `VLLMEngine.open`.

    Args:
        requests: Take the rows' requests.
        codec: Finds the end of segments.
        prompts: Token ids of each row.
        seeds: One a row.
        max_tokens: The most tokens a row may hold.
        vocab_size: Of the model.
        delta: vLLM's `RequestOutputKind.DELTA`: an output holds the tokens that are new.
    """

    def __init__(
        self,
        requests: Requests,
        codec: TextCodec,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        max_tokens: int,
        vocab_size: int,
        delta: Any,
    ) -> None:
        self._requests = requests
        self._codec = codec
        self._rows = [list(prompt) for prompt in prompts]
        self._seeds = seeds
        self._max_tokens = max_tokens
        self._vocab_size = vocab_size
        self._delta = delta
        self._drawn = [0] * len(self._rows)  # tokens sampled in each row so far
        self._sampling: dict[int, tuple[str, SegmentDraft]] = {}

    def room(self, row: int) -> int:
        """Number of tokens that row `row` can still take."""
        return self._max_tokens - len(self._rows[row])

    def extend(self, rows: Sequence[int], token_ids: Sequence[Sequence[int]]) -> None:
        """Append observations; see `GenerationSession.extend`."""
        for row, ids in zip(rows, token_ids, strict=True):
            if len(ids) > self.room(row):
                raise ValueError(f"row {row} has room for {self.room(row)} tokens and was given {len(ids)}")
            self._rows[row].extend(ids)

    def sample(self, rows: Sequence[int], params: SamplingParams) -> list[SampledSegment]:
        """Sample one segment for each of the given rows; see `GenerationSession.sample`."""
        segments: dict[int, SampledSegment] = {}
        try:
            for row in rows:
                self.begin(row, params)
            while len(segments) < len(rows):
                segments.update(self.step())
        finally:
            self.close()
        return [segments[row] for row in rows]

    def begin(self, row: int, params: SamplingParams) -> None:
        """Begin to sample a segment of a row; see `AsynchronousSession.begin`."""
        limit = min(params.max_tokens, self.room(row))
        if row in self._sampling or limit < 1:
            raise ValueError(f"row {row} is sampling already, or has no room for a token")
        draft = SegmentDraft(self._codec, params.stop, limit, self._vocab_size)
        name = self._requests.add(
            self._rows[row],
            _tokens_into(draft),
            temperature=params.temperature,
            max_tokens=limit,
            seed=_segment_seed(self._seeds[row], self._drawn[row]),
            logprobs=0,
            output_kind=self._delta,
        )
        self._sampling[row] = (name, draft)

    def step(self) -> list[tuple[int, SampledSegment]]:
        """Go on with all rows that are sampling; see `AsynchronousSession.step`."""
        self._requests.step()
        ended = [(row, draft.segment()) for row, (_, draft) in self._sampling.items() if draft.ended]
        for row, segment in ended:
            del self._sampling[row]
            self._rows[row].extend(segment.token_ids)
            self._drawn[row] += len(segment.token_ids)
        return ended

    def release(self, row: int) -> None:
        """Nothing is held for a row that is not sampling; see `AsynchronousSession.release`."""

    def close(self) -> None:
        """Give up the segments that are not finished; see `AsynchronousSession.close`."""
        self._requests.drop([name for name, _ in self._sampling.values()])
        self._sampling.clear()

    def next_logprobs(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """The distribution of the next token; see `GenerationSession.next_logprobs`."""
        found = np.empty((len(rows), self._vocab_size), dtype=np.float32)
        names = [
            self._requests.add(
                self._rows[row], _distribution_into(found[place]), temperature=0.0, max_tokens=1, logprobs=-1
            )
            for place, row in enumerate(rows)
        ]
        self._requests.run(names)
        return found


class _RequestOutput(Protocol):
    """What is used of vLLM's class of that name."""

    outputs: Sequence[Any]


def _tokens_into(draft: SegmentDraft) -> TakeOutput:
    def take(output: _RequestOutput) -> bool:
        completion = output.outputs[0]
        for token_id, logprobs in zip(completion.token_ids, completion.logprobs, strict=True):
            draft.add(token_id, logprobs[token_id].logprob)
        return draft.ended

    return take


def _distribution_into(row: npt.NDArray[np.float32]) -> TakeOutput:
    def take(output: _RequestOutput) -> bool:
        (distribution,) = output.outputs[0].logprobs
        ids = np.fromiter(distribution, dtype=np.int64, count=len(distribution))
        row[ids] = [each.logprob for each in distribution.values()]
        return True

    return take


def _segment_seed(seed: int, drawn: int) -> int:
    """A seed for what a row draws after so many tokens, of 63 bits: torch takes no more from vLLM."""
    return int(np.random.SeedSequence([seed, drawn]).generate_state(1, np.uint64)[0] >> np.uint64(1))
