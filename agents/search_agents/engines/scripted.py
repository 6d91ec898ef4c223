"""An engine that says what it was told to say: for tests, examples and dry runs.

It behaves as any other engine does, stop strings, budgets and end of sequence
included, so that what is built on engines can be tried without a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from search_agents.engines.base import (
    Capability,
    Completion,
    FinishReason,
    GenerationRequest,
    NoChatTemplate,
    SampledSegment,
    SamplingParams,
    ScoredText,
    ScoringRequest,
    check_prompts,
)
from search_env.errors import ModelError
from search_env.types import Prompt

__all__ = ["ByteTokenizer", "ScriptedEngine", "ScriptedSession"]


class ByteTokenizer:
    """One token a byte of UTF-8, and one for the end of sequence.

    Example:
        >>> ByteTokenizer().encode("né")
        [110, 195, 169]
    """

    eos_token_id = 256

    def encode(self, text: str) -> list[int]:
        """The bytes of a text; a lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
        return list(text.encode("utf-8", errors="replace"))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of bytes; ids beyond 255 are left out, and what is no UTF-8 becomes a replacement character."""
        return bytes(token_id for token_id in token_ids if token_id < 256).decode("utf-8", errors="replace")

    def __len__(self) -> int:
        return 257


class ScriptedEngine:
    """Says prepared segments, each with log-probability 0.

    Args:
        scripts: By question, what the model says turn by turn, or call by call. The question is looked for in the
            prompt; the longest that is found counts, and ``""`` stands for all other questions. After its last
            segment, and for questions without a script, the end of sequence is sampled at once. A function of the
            prompt's text takes the place of scripts where what is said depends on more; sessions cannot use it.
        score: Log-probabilities of a text after a context, one for each word with the space before it; an engine
            without it cannot score.

    Example:
        >>> engine = ScriptedEngine({"": ["<begin_of_query> Oslo <end_of_query>", "</think><answer> Norway </answer>"]})
        >>> session = engine.open([engine.tokenizer.encode("Where is Oslo?")], seeds=[0], max_tokens=200)
        >>> session.sample([0], SamplingParams(stop=("<end_of_query>",)))[0].text
        '<begin_of_query> Oslo <end_of_query>'
    """

    name = "scripted"
    max_context = 1 << 20
    continuous = True

    def __init__(
        self,
        scripts: Mapping[str, Sequence[str]] | Callable[[str], str],
        *,
        score: Callable[[str, str], Sequence[float]] | None = None,
    ) -> None:
        self.tokenizer = ByteTokenizer()
        self._scripts = dict(scripts) if isinstance(scripts, Mapping) else {}
        self._reply = None if isinstance(scripts, Mapping) else scripts
        self._score = score
        self._calls: dict[str, Iterator[str]] = {}

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can be asked for; see `Engine.capabilities`."""
        able = {Capability.GENERATE}
        if self._reply is None:
            able |= {Capability.SESSIONS, Capability.ASYNCHRONOUS}
        if self._score is not None:
            able |= {Capability.SCORE}
        return frozenset(able)

    def generate(
        self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int
    ) -> list[Completion | None]:
        """Say the next segment of each question's script; see `Engine.generate`."""
        return [self._complete(request, chat=chat, max_tokens=max_tokens) for request in requests]

    def score(self, requests: Sequence[ScoringRequest]) -> list[ScoredText | None]:
        """Ask the function; see `Engine.score`."""
        if self._score is None:
            raise ModelError("this scripted engine cannot score; give it a function: ScriptedEngine(…, score=…).")
        scored: list[ScoredText | None] = []
        for request in requests:
            words = re.findall(r"\s*\S+|\s+$", request.text)
            logprobs = tuple(self._score(request.context, request.text))
            if len(words) != len(logprobs):
                raise ModelError(
                    f"the script scores the {len(words)} words of {request.text!r} with {len(logprobs)} log-probs; "
                    "give one for each word."
                )
            scored.append(
                ScoredText(tokens=tuple(words), logprobs=logprobs, context_tokens=len(request.context.split()))
            )
        return scored

    def encode_prompt(self, prompt: Prompt, *, chat: bool) -> list[int]:
        """Encode the opening of an episode; see `TokenEngine.encode_prompt`."""
        if chat:
            raise NoChatTemplate("the scripted engine has no chat template; use the prompt style 'base' or 'bare'.")
        return self.tokenizer.encode(prompt.text)

    def encode_observation(self, text: str) -> list[int]:
        """Encode text that the environment wrote; see `TokenEngine.encode_observation`."""
        return self.tokenizer.encode(text)

    def open(self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], max_tokens: int) -> ScriptedSession:
        """Start a row for each prompt; see `TokenEngine.open`."""
        check_prompts(prompts, max_tokens=max_tokens, max_context=self.max_context)
        return ScriptedSession([self._script(prompt) for prompt in prompts], prompts, max_tokens)

    def _script(self, prompt: Sequence[int]) -> Sequence[str]:
        return self._scripts.get(self._question(self.tokenizer.decode(prompt)), ())

    def _question(self, prompt: str) -> str:
        return max((question for question in self._scripts if question in prompt), key=len, default="")

    def _complete(self, request: GenerationRequest, *, chat: bool, max_tokens: int) -> Completion | None:
        prompt = self.encode_prompt(request.prompt, chat=chat)
        if len(prompt) >= max_tokens:
            return None
        text = self.tokenizer.decode(prompt)
        if self._reply is not None:
            said = self._reply(text)
        else:
            question = self._question(text)
            said = next(self._calls.setdefault(question, iter(self._scripts.get(question, ()))), "")
        segment = ScriptedSession([[said]], [prompt], max_tokens).sample([0], request.sampling)[0]
        return Completion(
            text=segment.text,
            finish=segment.finish,
            logprobs=tuple(segment.logprobs),
            prompt_tokens=len(prompt),
            tokens=len(segment.token_ids),
        )


class ScriptedSession:
    """See `AsynchronousSession`; opened by `ScriptedEngine.open`.

    Args:
        scripts: What each row says, turn by turn.
        prompts: Token ids of each row.
        max_tokens: The most tokens a row may hold.
    """

    def __init__(self, scripts: Sequence[Sequence[str]], prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
        self._tokenizer = ByteTokenizer()
        self._scripts = [iter(script) for script in scripts]
        self._max_tokens = max_tokens
        self.contexts = [list(prompt) for prompt in prompts]
        """Everything each row has read and written."""
        self._begun: list[tuple[int, SamplingParams]] = []

    def sample(self, rows: Sequence[int], params: SamplingParams) -> list[SampledSegment]:
        """Say the next segment of each row; see `GenerationSession.sample`."""
        return [self._say(row, params) for row in rows]

    def begin(self, row: int, params: SamplingParams) -> None:
        """Begin to say a segment; see `AsynchronousSession.begin`."""
        self._begun.append((row, params))

    def step(self) -> list[tuple[int, SampledSegment]]:
        """Say the segment of the row that began first; see `AsynchronousSession.step`."""
        row, params = self._begun.pop(0)
        return [(row, self._say(row, params))]

    def release(self, row: int) -> None:
        """Nothing is held for a row; see `AsynchronousSession.release`."""

    def close(self) -> None:
        """Give up what was begun; see `AsynchronousSession.close`."""
        self._begun.clear()

    def extend(self, rows: Sequence[int], token_ids: Sequence[Sequence[int]]) -> None:
        """Append observations; see `GenerationSession.extend`."""
        for row, ids in zip(rows, token_ids, strict=True):
            if len(ids) > self.room(row):
                raise ValueError(f"row {row} has room for {self.room(row)} tokens and was given {len(ids)}")
            self.contexts[row].extend(ids)

    def next_logprobs(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """A scripted engine has no distribution.

        Raises:
            ModelError: Always.
        """
        raise ModelError("a scripted engine has no distribution of the next token; use a transformers model.")

    def room(self, row: int) -> int:
        """Number of tokens that row `row` can still take."""
        return self._max_tokens - len(self.contexts[row])

    def _say(self, row: int, params: SamplingParams) -> SampledSegment:
        text = next(self._scripts[row], "")
        ends = [text.find(string) + len(string) for string in params.stop if string in text]
        finish = FinishReason.STOP if ends else FinishReason.EOS
        said = self._tokenizer.encode(text[: min(ends, default=None)])
        ids = said if ends else [*said, self._tokenizer.eos_token_id]
        limit = min(params.max_tokens, self.room(row))
        if len(ids) > limit:
            ids, finish = ids[:limit], FinishReason.LENGTH
        self.contexts[row].extend(ids)
        return SampledSegment(token_ids=ids, logprobs=[0.0] * len(ids), text=self._tokenizer.decode(ids), finish=finish)
