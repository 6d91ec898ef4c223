"""Search question answering as a Gymnasium environment.

An action is one segment of a model's text, up to and with the end of a query or of the
answer; an observation is exactly the text the model reads next. The same seed and the
same actions give the same everything, info included. If the retriever fails for good,
`SearchQAEnv.step` raises `RetrieverUnavailable`: a broken search engine is never a text
for the model to read, nor a reward of 0 for it to learn from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.error import ResetNeeded

from search_env import datasets, render
from search_env.datasets.base import Dataset
from search_env.dialects import Dialect, PromptStyle, get_dialect, read_prompt_file, with_prompt
from search_env.episode import Budget, EpisodeState, Rules, Step, check_count
from search_env.errors import ConfigError, unknown_name
from search_env.retrieval import Retriever, RetrieverSpec, get_retriever
from search_env.retrieval.metering import metered, shares
from search_env.rewards import Reward, get_reward
from search_env.spaces import UnicodeText
from search_env.types import Hit, Transcript

__all__ = ["SearchQAEnv"]


class SearchQAEnv(gym.Env[str, str]):
    """Ask one question, answer its searches, judge its answer.

    Args:
        dataset: The questions and their corpus: a name in `search_env.datasets.DATASETS`, or a `Dataset`. It needs no
            corpus if the retriever has documents of its own.
        data: Where the dataset lies (a path or a hub id), or a `Dataset`; None if it needs no data.
        split: Which split asks the questions.
        retriever: What searches the corpus: a name, a mapping with the name and its settings, or a `Retriever`.
        dialect: The protocol of tags, a name in `search_env.dialects.DIALECTS`.
        prompt: How the prompt is worded: ``base``, ``instruct`` or ``bare``, or the path of a file that holds
            ``{question}``.
        reward: A preset of `search_env.rewards.REWARDS`, a mapping of parts to weights, or a `Reward`.
        top_k: The most documents that a search returns.
        max_searches: Budget of searches.
        max_turns: Budget of segments.
        max_chars: Budget of characters, segments and documents together.
        render_mode: None; ``ansi``: `render` returns the episode as text; ``human``: it is printed as it goes.

    Raises:
        ConfigError: If a setting is wrong.
        DatasetError: If the data is missing or malformed, or there is no corpus and the retriever needs one.

    Example:
        >>> import gymnasium as gym
        >>> import search_env
        >>> env = gym.make("SearchQA-FictionalWiki-v0")
        >>> prompt, info = env.reset(seed=7, options={"question": 0})
        >>> prompt.endswith("<think>"), info["stop"]
        (True, ['<end_of_query>', '</answer>'])
        >>> segment = "I look it up. <begin_of_query> director of the film <end_of_query>"
        >>> documents, reward, terminated, truncated, info = env.step(segment)
        >>> documents.split()[:2], info["searches"]
        (['<begin_of_documents>', '(1)'], 1.0)
        >>> _, reward, terminated, truncated, info = env.step("Now I know. </think> <answer> nobody </answer>")
        >>> terminated, reward, info["stop_reason"], info["reward_parts"]
        (True, 0.0, 'answered', {'f1': 0.0, 'format': 0.0})
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "human"], "render_fps": 1}  # noqa: RUF012

    def __init__(
        self,
        dataset: str | Dataset = "fictional-wiki",
        *,
        data: str | Path | Dataset | None = None,
        split: str = "train",
        retriever: RetrieverSpec | Retriever = "bm25",
        dialect: str = "r1-searcher",
        prompt: str | Path = "base",
        reward: str | Mapping[str, float] | Reward = "stage2",
        top_k: int = 3,
        max_searches: int = Budget.max_searches,
        max_turns: int = Budget.max_turns,
        max_chars: int = Budget.max_chars,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ConfigError(unknown_name("render mode", render_mode, self.metadata["render_modes"]))
        check_count("top_k", top_k, 1)
        self.render_mode = render_mode
        self.top_k = top_k
        worded, style = _worded_dialect(get_dialect(dialect), prompt)
        budget = Budget(max_searches=max_searches, max_turns=max_turns, max_chars=max_chars)
        self.rules = Rules(dialect=worded, style=style, reward=get_reward(reward), budget=budget)
        self.dataset = find_dataset(dataset, data, split)
        self.retriever = get_retriever(retriever, self.dataset.documents)
        # No observation is longer: documents must fit the budget, and no prompt is longer than this one.
        longest = "x" * max(len(question.text) for question in self.dataset.questions)
        self.observation_space = UnicodeText(max(max_chars, len(worded.prompt(longest, style).text)))
        examples = _example_actions(worded)
        self.action_space = UnicodeText(max(max_chars, *map(len, examples)), examples=examples)
        self._state: EpisodeState | None = None
        self._last: Step | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Ask a question.

        Args:
            seed: Seed of the draw of this and later questions.
            options: ``{"question": id or index}`` asks that question instead of drawing one.

        Returns:
            The prompt as plain text, and the info: ``question_id``, ``question``, ``kind``, ``hops``, ``stop`` (the
            strings that end a segment) and the prompt's pieces ``prompt_system``, ``prompt_user`` and
            ``prompt_prefill``.

        Raises:
            ConfigError: If an option or question does not exist.
        """
        super().reset(seed=seed)
        key = check_options(options, ("question",)).get("question")
        question = self.dataset.draw(self.np_random) if key is None else self.dataset.question(key)
        self._state, self._last = EpisodeState(question, self.rules), None
        if self.render_mode == "human":
            render.print_spans(render.question_spans(self.transcript))
        return self._state.prompt.text, self._state.opening_info()

    def step(self, action: str) -> Step:
        """Take one segment of the model's text.

        Args:
            action: The segment, up to and with one of the strings in ``info["stop"]``. Anything else is malformed.

        Returns:
            Observation, reward, terminated, truncated and info; see `Step` and `EpisodeState.resolve`.

        Raises:
            RetrieverUnavailable: If the search failed for good. The episode is as it was before, but for what the
                search has spent: step again, or drop it. It has no reward.
            ResetNeeded: If no episode is running.
        """
        state = self._running()
        state.act(action)
        self._last = state.resolve(self._search(state))
        if self.render_mode == "human":
            spans = render.turn_spans(self.transcript.turns[-1])
            render.print_spans([*spans, *render.end_spans(self.transcript, self._reward_parts())])
        return self._last

    def render(self) -> str | None:  # type: ignore[override]  # Gymnasium's own modes return frames
        """Show the episode so far: returned as text in mode ``ansi``, printed in mode ``human``."""
        if self.render_mode is None:
            gym.logger.warn('render() does nothing without a render mode; make the environment with render_mode="ansi"')
            return None
        spans = render.episode_spans(self.transcript, self._reward_parts())
        if self.render_mode == "ansi":
            return render.plain(spans)
        render.print_spans(spans)
        return None

    def set_reward(self, reward: str | Mapping[str, float] | Reward) -> None:
        """Judge by another reward from the next reset on."""
        self.rules = dataclasses.replace(self.rules, reward=get_reward(reward))

    @property
    def transcript(self) -> Transcript:
        """The text of the current episode so far.

        Raises:
            ResetNeeded: If there is no episode yet.
        """
        if self._state is None:
            raise ResetNeeded("there is no episode yet; call reset() first")
        return self._state.transcript

    def _running(self) -> EpisodeState:
        if self._state is None:
            raise ResetNeeded("there is no episode yet; call reset() first")
        if self._state.stop_reason is not None:
            raise ResetNeeded(f"the episode has ended ({self._state.stop_reason.value}); call reset() for the next one")
        return self._state

    def _search(self, state: EpisodeState) -> tuple[Hit, ...]:
        if state.query is None:
            return ()
        with metered() as meter:
            try:
                (hits,) = self.retriever.search([state.query], self.top_k)
            finally:
                state.spend(*shares([state.query], meter))
        return hits

    def _reward_parts(self) -> dict[str, float]:
        return {} if self._last is None else self._last.info["reward_parts"]


def check_options(options: Mapping[str, Any] | None, allowed: Iterable[str]) -> dict[str, Any]:
    """The options of a reset, every key of them known.

    Raises:
        ConfigError: If a key is unknown.
    """
    for key in options or {}:
        if key not in allowed:
            raise ConfigError(unknown_name("reset option", str(key), allowed))
    return dict(options or {})


def _worded_dialect(dialect: Dialect, prompt: str | Path) -> tuple[Dialect, PromptStyle]:
    if prompt in tuple(PromptStyle):
        return dialect, PromptStyle(prompt)
    if Path(prompt).is_file():
        return with_prompt(dialect, read_prompt_file(prompt)), PromptStyle.BASE
    hint = "Or give the path of a text file that holds {question}."
    raise ConfigError(f"{unknown_name('prompt', str(prompt), PromptStyle)} {hint}")


def find_dataset(
    dataset: str | Dataset = "fictional-wiki", data: str | Path | Dataset | None = None, split: str = "train"
) -> Dataset:
    """The dataset that an environment's settings mean; a `Dataset` is taken as it is, whatever the split."""
    if isinstance(data, Dataset):
        return data
    if isinstance(dataset, Dataset):
        return dataset
    if not isinstance(dataset, str):
        raise ConfigError(f"dataset must be a name or a Dataset, got {type(dataset).__name__}")
    return datasets.load(dataset, split=split, data=data)


def _example_actions(dialect: Dialect) -> tuple[str, ...]:
    """A search and an answer."""
    opening = dict(zip(dialect.tags[1::2], dialect.tags[::2], strict=True))
    return tuple(f"{opening[closing]} capital of Norway {closing}" for closing in dialect.stop)
