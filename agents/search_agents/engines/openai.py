"""The engine of any server that speaks OpenAI's API: OpenAI, ``vllm serve``, SGLang, llama.cpp, Ollama.

The server holds the model and its tokenizer, so there are no sessions here: texts go in
and out. Requests are sent side by side; the client library repeats those that failed.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from typing import Any, NoReturn, TypeVar

from search_agents.config.sections import ServerSection
from search_agents.engines.base import (
    Capability,
    Completion,
    FinishReason,
    GenerationRequest,
    ScoredText,
    ScoringRequest,
    in_order,
)
from search_agents.engines.echo import read_echo
from search_env.errors import ConfigError, EngineUnavailable, MissingDependencyError, ModelError
from search_env.secrets import masked, shown_cause

__all__ = ["OpenAIEngine", "restore_stop"]

T = TypeVar("T")

# OpenAI gives a code; vLLM, SGLang, llama.cpp and Ollama say it in words.
_TOO_LONG = re.compile(r"context (?:length|size|window)|max_model_len|maximum context|longer than the model", re.I)


class OpenAIEngine:
    """See `StreamingEngine`.

    With ``api: chat`` the server applies the model's chat template, so prompts must be in the style ``instruct``;
    with ``api: completions`` they are plain text. A response that is begun for the model is continued where the server
    can (`ServerSection.continues`); elsewhere its beginning ends the user's words. A stop string, which these servers
    cut off, is put back where the server says which one it was, or the text shows it; see `restore_stop`.

    Args:
        model: The name of the model on the server.
        server: The server.

    Raises:
        ConfigError: If the environment variable of the key is not set.
        MissingDependencyError: If the package ``openai`` is not installed.
    """

    def __init__(self, model: str, server: ServerSection) -> None:
        self.name = model
        self._server = server
        self._opening = ""  # what stands before a text without a context, see `score`
        if server.api_key_env is not None and server.api_key_env not in os.environ:
            raise ConfigError(
                f"the environment variable {server.api_key_env} is not set, and server.api_key_env names it. "
                f"Set it: export {server.api_key_env}=…"
            )
        _import_openai()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can be asked for; see `Engine.capabilities`."""
        able = {Capability.GENERATE}
        return frozenset(able | {Capability.SCORE} if self._server.scores else able)

    def generate(
        self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int
    ) -> list[Completion | None]:
        """Write a text for each request; see `generate_each`."""
        return in_order(self.generate_each(requests, chat=chat, max_tokens=max_tokens))

    def generate_each(
        self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int
    ) -> Iterator[tuple[int, Completion | None]]:
        """Write a text for each request; see `StreamingEngine.generate_each`.

        Only the server knows how long a prompt is, and says so with the text (``usage``). A text that with its prompt
        exceeds `max_tokens` is therefore written once more, within the room that there is; its completion tells of the
        second writing only, but its cost is that of both. A server that does not say is held to `max_tokens` by its
        text alone.

        Raises:
            ConfigError: If `chat` does not suit the API.
            EngineUnavailable: If a request failed for good.
            ModelError: If the server refuses the key, the model or a request, or does not send the log-probabilities
                that a request wants.
        """
        api = self._server.api
        if chat != (api == "chat"):
            styles = "'instruct'" if api == "chat" else "'base' or 'bare'"
            raise ConfigError(f"`api: {api}` needs the prompt style {styles}. Change env.prompt or the api.")
        ask = self._chat if chat else self._complete
        yield from self._side_by_side(lambda request: _within(max_tokens, ask, request), requests)

    def score(self, requests: Sequence[ScoringRequest]) -> list[ScoredText | None]:
        """Score texts with ``echo``, as vLLM's completions API has it; see `Engine.score`.

        Context and text are one text to the server: a token that lies across their border counts as the text's. A text
        without a context is read after the server's beginning of sequence or, where it puts none there, after a line
        break, whose token counts as context.
        """
        if not self._server.scores:
            raise ModelError(f"the server of {self.name} is not said to score texts; if it can: server.scores: true.")
        found = in_order(self._side_by_side(self._score, requests))
        # The one token that such a request must ask for is paid for, too.
        return [
            each and dataclasses.replace(each, cost=self._cost(each.context_tokens + len(each.tokens), 1))
            for each in found
        ]

    def _cost(self, read: int | None, written: int | None) -> float | None:
        """Price of a request in USD; None if the prices or the tokens are not known."""
        server = self._server
        if None in (server.price_in, server.price_out, read, written):
            return None
        return (read * server.price_in + written * server.price_out) / 1e6  # type: ignore[operator]  # None is out.

    def _complete(self, request: GenerationRequest, max_tokens: int) -> Completion | None:
        # Of the likeliest tokens, which nobody reads, 1: for some servers 0 is to tell nothing.
        extra = {"logprobs": 1} if request.logprobs else {}
        create = self._client.completions.create
        reply = self._fitting(create, prompt=request.prompt.text, **self._parameters(request, max_tokens), **extra)
        return reply and self._completion(reply, reply.choices[0].text, request)

    def _chat(self, request: GenerationRequest, max_tokens: int) -> Completion | None:
        prompt = request.prompt
        extra: dict[str, Any] = {"logprobs": True} if request.logprobs else {}
        messages: list[Mapping[str, str]] = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages.append({"role": "user", "content": prompt.user})
        if prompt.prefill:
            if self._server.continues:
                messages.append({"role": "assistant", "content": prompt.prefill})
                extra["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
            else:
                messages[-1] = {"role": "user", "content": f"{prompt.user}\n\n{prompt.prefill}"}
        create = self._client.chat.completions.create
        reply = self._fitting(create, messages=messages, **self._parameters(request, max_tokens), **extra)
        return reply and self._completion(reply, reply.choices[0].message.content or "", request)

    def _completion(self, reply: Any, text: str, request: GenerationRequest) -> Completion:
        choice, usage = reply.choices[0], reply.usage
        told = _token_logprobs(choice.logprobs) if request.logprobs else []
        if told is None or (request.logprobs and text and not told):
            raise ModelError(
                f"{self._server.url} sends no log-probs of the tokens that {self.name!r} writes, and this method weighs"
                " texts by them. Use a server that sends them, as `vllm serve` does, or the engine 'transformers', or "
                "another method."
            )
        finish, whole = _end(choice, request.prompt.prefill, text, request.sampling.stop)
        return Completion(
            text=whole,
            finish=finish,
            logprobs=tuple(logprob for _, logprob in told),
            tells_ending=not request.logprobs or _tells_ending(text, told),
            prompt_tokens=usage.prompt_tokens if usage else None,
            tokens=usage.completion_tokens if usage else None,
            cost=self._cost(usage.prompt_tokens, usage.completion_tokens) if usage else None,
        )

    def _score(self, request: ScoringRequest) -> ScoredText | None:
        if not request.text:
            raise ModelError("cannot score an empty text; give it a token.")
        context, create = request.context or self._opening, self._client.completions.create
        reply = self._fitting(
            create, model=self.name, prompt=context + request.text, max_tokens=1, echo=True, logprobs=0, temperature=0.0
        )
        if reply is None:
            return None
        found = reply.choices[0].logprobs
        if found is None or not found.tokens or not found.token_logprobs:
            raise ModelError(
                f"{self._server.url} does not tell the log-probs of a text that it is given (`echo`). Score with `vllm "
                "serve` or the engine 'transformers', or take a method that scores nothing (server.scores: false)."
            )
        scored = read_echo(found.tokens, found.token_logprobs, context=context, text=request.text)
        if scored is None:
            self._opening = "\n"  # which tokenizers seldom join with what follows
            return self._score(request)
        return scored

    def _fitting(self, create: Callable[..., Any], **parameters: Any) -> Any:
        """The reply; None if the server says that the prompt leaves no room in the model's context."""
        try:
            return create(**parameters)
        except _import_openai().BadRequestError as error:
            if error.code == "context_length_exceeded" or _TOO_LONG.search(str(error)):
                return None
            raise

    def _parameters(self, request: GenerationRequest, max_tokens: int) -> dict[str, Any]:
        sampling = request.sampling
        return {
            "model": self.name,
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "seed": request.seed % (1 << 31),
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
        }

    def _side_by_side(self, ask: Callable[[Any], T], requests: Sequence[Any]) -> Iterator[tuple[int, T]]:
        """The replies and the indices of their requests; after a failure those on their way, and then the failure."""
        failure: BaseException | None = None
        with ThreadPoolExecutor(self._server.concurrency) as pool:
            asked = {pool.submit(ask, request): index for index, request in enumerate(requests)}
            try:
                for future in as_completed(asked):
                    if future.cancelled():
                        continue
                    if (error := future.exception()) is None:
                        yield asked[future], future.result()
                        continue
                    failure = failure or error
                    for waiting in asked:
                        waiting.cancel()
            finally:  # whoever asked may have been interrupted
                for waiting in asked:
                    waiting.cancel()
        if failure is not None:
            self._fail(failure)

    def _fail(self, failure: BaseException) -> NoReturn:
        """Say what a failed request means."""
        openai = _import_openai()
        key = os.environ.get(self._server.api_key_env or "")
        try:
            raise failure
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise ModelError(
                f"{self._server.url} refuses: {masked(str(error), key)}. Check the model's name ({self.name!r}) and "
                f"the key (server.api_key_env: {self._server.api_key_env})."
            ) from shown_cause(error, key)
        except openai.BadRequestError as error:
            raise ModelError(f"{self._server.url} refuses a request: {masked(str(error), key)}") from shown_cause(
                error, key
            )
        except openai.OpenAIError as error:
            raise EngineUnavailable(
                f"the model {self.name!r} at {self._server.url} failed for good, after {self._server.retries} retries: "
                f"{type(error).__name__}: {masked(str(error), key).rstrip('.')}. Start the server again."
            ) from shown_cause(error, key)

    @cached_property
    def _client(self) -> Any:
        server = self._server
        key = os.environ[server.api_key_env] if server.api_key_env else "none"
        return _import_openai().OpenAI(
            api_key=key, base_url=server.url, timeout=server.timeout, max_retries=server.retries
        )

    def __getstate__(self) -> dict[str, Any]:
        # A client has locks and open connections, and the key.
        return {key: value for key, value in self.__dict__.items() if key != "_client"}


def restore_stop(text: str, stop: Sequence[str], named: str | None) -> str | None:
    """Find the stop string that a server has cut off.

    Args:
        text: What the server returned, after what was begun for the model.
        stop: The stop strings it was given.
        named: The one that the server says it was, if it says so.

    Returns:
        The stop string. Where the server does not say, the one whose opening tag stands open in the text
        (``</answer>`` closes ``<answer>``, ``<end_of_query>`` closes ``<begin_of_query>``); None if none does.
    """
    if named in stop:
        return named
    for string in stop:
        opening = string.replace("end", "begin") if "end" in string else string.replace("/", "")
        if opening != string and text.rfind(opening) > text.rfind(string):
            return string
    return None


def _within(
    budget: int, ask: Callable[[GenerationRequest, int], Completion | None], request: GenerationRequest
) -> Completion | None:
    """Ask for a text that with its prompt has at most a number of tokens; None if there is no room for one."""
    completion = ask(request, min(request.sampling.max_tokens, budget))
    if completion is None:
        return None
    if completion.prompt_tokens is None or completion.tokens is None:
        return completion
    room = budget - completion.prompt_tokens
    if room < 1:
        return None
    if completion.tokens <= room:
        return completion
    again = ask(request, room)
    if again is None or again.cost is None or completion.cost is None:
        return again
    return dataclasses.replace(again, cost=completion.cost + again.cost)


def _end(choice: Any, prefill: str, text: str, stop: tuple[str, ...]) -> tuple[FinishReason, str]:
    """Why a text ended, and the text with the stop string that the server has cut off."""
    if choice.finish_reason == "length":
        return FinishReason.LENGTH, text
    # vLLM names the string in `stop_reason`, SGLang in `matched_stop`; both have a number there for a token.
    named = getattr(choice, "stop_reason", None) or getattr(choice, "matched_stop", None)
    whole = text
    if stop and not text.endswith(stop):
        whole += restore_stop(prefill + text, stop, named) or ""
    return FinishReason.STOP if stop and whole.endswith(stop) else FinishReason.EOS, whole


def _token_logprobs(found: Any) -> list[tuple[str, float]] | None:
    """Tokens and their log-probabilities, as the chat API or the completions API has them; None if it has none."""
    content = getattr(found, "content", None)
    if content is not None:
        return [(token.token, token.logprob) for token in content]
    tokens, logprobs = getattr(found, "tokens", None), getattr(found, "token_logprobs", None)
    return None if tokens is None or logprobs is None else list(zip(tokens, logprobs, strict=True))


def _tells_ending(text: str, told: Sequence[tuple[str, float]]) -> bool:
    """Whether the last token is beyond the text: an end of sequence, or one with the stop string that was cut off."""
    return bool(told) and not (told[-1][0] and text.endswith(told[-1][0]))


def _import_openai() -> Any:
    try:
        import openai
    except ImportError:
        raise MissingDependencyError(
            "a server's model needs the package openai: pip install 'search-env[openai]'"
        ) from None
    return openai
