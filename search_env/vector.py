"""Many episodes at once, with one retrieval call a step.

Slot ``i`` seeded with ``s`` plays exactly the episode a `SearchQAEnv` seeded with ``s``
plays. An episode that ends is not reset by itself (autoreset would cost a generation an
episode): its slot idles, and whatever action it is given is ignored, until a reset names
it in its ``reset_mask``.

If the retriever fails for good, the episodes that were searching end as invalid:
truncated, ``info["valid"]`` 0.0, stop reason ``retriever_unavailable``, nothing judged.
A learner must mask them and a scorer leave them out; the others go on.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from search_env import render
from search_env.env import SearchQAEnv, check_options, find_dataset
from search_env.episode import EpisodeState, check_count
from search_env.errors import ConfigError, RetrieverUnavailable
from search_env.retrieval.metering import metered, shares
from search_env.rewards import Reward, get_reward
from search_env.types import Hit, Transcript

__all__ = ["SearchQAVectorEnv"]

_LOG = logging.getLogger(__name__)

VectorStep = tuple[
    tuple[str, ...], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]  # observations, rewards, terminations, truncations [num_envs]; infos


class SearchQAVectorEnv(gym.vector.VectorEnv[tuple[str, ...], Sequence[str], NDArray[Any]]):
    """A batch of `SearchQAEnv` over one corpus.

    Args:
        num_envs: Number of slots.
        **settings: Every setting of `SearchQAEnv`; of the render modes only ``ansi``.

    Raises:
        ConfigError: If a setting is wrong.
        DatasetError: If the data is missing or malformed.

    Example:
        >>> import gymnasium as gym
        >>> import search_env
        >>> envs = gym.make_vec("SearchQA-FictionalWiki-v0", num_envs=3)
        >>> prompts, infos = envs.reset(seed=0, options={"question": [4, 4, 5]})
        >>> prompts[0] == prompts[1] != prompts[2]
        True
        >>> segments = ["So. </think> <answer> A </answer>", "<begin_of_query> a film <end_of_query>", "?"]
        >>> _, rewards, terminations, truncations, infos = envs.step(segments)
        >>> terminations.tolist(), infos["stop_reason"].tolist()
        ([True, False, True], ['answered', '', 'malformed'])
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["ansi"],
        "render_fps": 1,
        "autoreset_mode": AutoresetMode.DISABLED,
    }

    def __init__(self, num_envs: int = 1, **settings: Any) -> None:
        check_count("num_envs", num_envs, 1)
        single = SearchQAEnv(**settings)
        if single.render_mode == "human":
            raise ConfigError("the vector environment has no render mode 'human'; use 'ansi' or None")
        self.num_envs = num_envs
        self.render_mode = single.render_mode
        self.dataset, self.retriever, self.top_k, self.rules = (
            single.dataset, single.retriever, single.top_k, single.rules,
        )  # fmt: skip
        self.single_observation_space, self.single_action_space = single.observation_space, single.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._source = {name: settings[name] for name in ("dataset", "data") if name in settings}
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        # A slot that a first, partial reset leaves out idles on an episode that never began.
        self._states = [EpisodeState(self.dataset.questions[0], self.rules) for _ in range(num_envs)]
        self._observations = [""] * num_envs
        self._terminations = np.ones(num_envs, dtype=np.bool_)
        self._truncations = np.zeros(num_envs, dtype=np.bool_)
        self._nothing = np.full(num_envs, None, dtype=object)
        self._was_reset = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Ask a question in each slot, or in some.

        Args:
            seed: Slot ``i`` gets ``seed + i``, or ``seed[i]`` of a sequence; equal seeds draw equal questions.
            options: ``question``: an id or index for all slots, or a sequence with one for each slot (None draws);
                slots with the same question are a group. ``reset_mask``: ``bool[num_envs]``, the slots to reset; the
                others are left as they are.

        Returns:
            The prompts (for slots left alone, their last observation) and the infos of the slots that were reset; see
            `SearchQAEnv.reset`.

        Raises:
            ConfigError: If an option or question does not exist, or a sequence does not have one entry for each slot.
        """
        given = check_options(options, ("question", "reset_mask"))
        seeds = self._seeds(seed)
        keys = self._one_each("question", given.get("question"))
        slots = np.flatnonzero(self._reset_mask(given.get("reset_mask"))).tolist()
        super().reset(seed=int(seed) if isinstance(seed, int | np.integer) else None)
        infos: list[dict[str, Any]] = []
        for slot in slots:
            if seeds[slot] is not None:
                self._generators[slot] = seeding.np_random(seeds[slot])[0]
            key = keys[slot]
            question = self.dataset.draw(self._generators[slot]) if key is None else self.dataset.question(key)
            state = self._states[slot] = EpisodeState(question, self.rules)
            self._observations[slot] = state.prompt.text
            infos.append(state.opening_info())
        self._terminations[slots] = self._truncations[slots] = False
        self._was_reset = True
        return tuple(self._observations), self._columns(slots, infos)

    def step(self, actions: Sequence[str]) -> VectorStep:
        """Take one segment for each running episode.

        Args:
            actions: One segment a slot; those of idle slots are ignored.

        Returns:
            Observations, rewards, terminations, truncations and infos. An idle slot has an empty observation, reward
            0.0, the flags of its end and no info (``infos["_action"]`` tells which slots have). What searches of the
            web have spent is there for the slots that have spent anything (``infos["_spending"]``); slots that ask the
            same in one step share one search, and the first of them pays for it.

        Raises:
            ConfigError: If there is not one action for each slot, or that of a running episode is not text.
            ResetNeeded: If there was no reset yet.
        """
        if not self._was_reset:
            raise ResetNeeded("there are no episodes yet; call reset() first")
        if isinstance(actions, str) or len(actions) != self.num_envs:
            raise ConfigError(f"step() takes a sequence of one action for each of the {self.num_envs} slots")
        slots = np.flatnonzero(~(self._terminations | self._truncations)).tolist()
        running = [(slot, self._states[slot]) for slot in slots]
        for slot, state in running:
            state.act(actions[slot])
        found = self._search(running)
        observations = self._observations = [""] * self.num_envs
        rewards = np.zeros(self.num_envs)
        infos: list[dict[str, Any]] = []
        alike: dict[Hashable, dict[str, Any]] = {}
        for slot, state in running:
            observations[slot] = state.advance(found.get(slot, ()))
            if state.stop_reason is not None:
                flags = self._terminations if state.terminated else self._truncations
                rewards[slot], flags[slot] = state.reward, True
            likeness = state.likeness
            if likeness not in alike:
                alike[likeness] = state.info()
            infos.append(alike[likeness])
        return (
            tuple(observations),
            rewards,
            self._terminations.copy(),
            self._truncations.copy(),
            self._columns(slots, infos),
        )

    def render(self) -> tuple[str, ...] | None:  # type: ignore[override]  # Gymnasium's own modes return frames
        """Every slot's episode so far as text in mode ``ansi``, else None."""
        if self.render_mode is None:
            return None
        return tuple(
            render.plain(render.episode_spans(state.transcript, state.reward_parts if state.transcript.turns else {}))
            for state in self._states
        )

    def set_reward(self, reward: str | Mapping[str, float] | Reward) -> None:
        """Judge by another reward the episodes that later resets begin."""
        self.rules = dataclasses.replace(self.rules, reward=get_reward(reward))

    def set_split(self, split: str) -> None:
        """Ask the questions of another split of the same data from the next reset on.

        Raises:
            ConfigError: If there is no such split, or its corpus is another one.
            DatasetError: If its data is malformed.
        """
        if split == self.dataset.split:
            return
        found = find_dataset(**self._source, split=split)
        if found.split != split:
            raise ConfigError(f"the environment was made with a dataset of one split, {found.split!r}, not {split!r}")
        if found.documents != self.dataset.documents:
            raise ConfigError(
                f"the splits {self.dataset.split!r} and {split!r} of {found.name} have different corpora. Put them "
                "into one folder of JSON lines with one corpus.jsonl: search-env data pull does that."
            )
        self.dataset = found

    @property
    def transcripts(self) -> list[Transcript]:
        """The text of each slot's current or last episode; of one that never began, a question without turns."""
        return [state.transcript for state in self._states]

    def _search(self, running: Iterable[tuple[int, EpisodeState]]) -> dict[int, tuple[Hit, ...] | None]:
        """Run all queries in one call: each searching slot's documents, or None where the search failed for good."""
        queries = {slot: state.query for slot, state in running if state.query is not None}
        if not queries:
            return {}
        results: Sequence[tuple[Hit, ...] | None]
        with metered() as meter:
            try:
                results = self.retriever.search(list(queries.values()), self.top_k)
            except RetrieverUnavailable as error:
                _LOG.warning("%d episodes are invalid, their search failed for good: %s", len(queries), error)
                results = [None] * len(queries)
        if meter:
            for slot, spent in zip(queries, shares(queries.values(), meter), strict=True):
                self._states[slot].spend(spent)
        return dict(zip(queries, results, strict=True))

    def _columns(self, slots: Sequence[int], infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What Gymnasium's ``_add_info`` makes of the slots' infos one by one, made key by key in a tenth of the time.

        Every value of a key has the same type. Slots may have different keys where some play by another reward, or have
        searched the web; they are left to Gymnasium.
        """
        columns: dict[str, Any] = {}
        distinct = {id(info): info for info in infos}.values()
        if len(set(map(tuple, distinct))) != 1:
            for slot, info in zip(slots, infos, strict=True):
                columns = self._add_info(columns, dict(info), slot)
            return columns
        mask = np.zeros(self.num_envs, dtype=np.bool_)
        mask[slots] = True
        for key, first in infos[0].items():
            if isinstance(first, float | str):
                column = np.zeros(self.num_envs) if isinstance(first, float) else self._nothing.copy()
                column[mask] = first if len(distinct) == 1 else [info[key] for info in infos]
                columns[key] = column
            elif isinstance(first, dict):
                columns[key] = self._columns(slots, [info[key] for info in infos])
            else:
                columns[key] = self._nothing.copy()
                for slot, info in zip(slots, infos, strict=True):
                    columns[key][slot] = info[key]
            columns[f"_{key}"] = mask.copy()
        return columns

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if isinstance(seed, int | np.integer):
            return [int(seed) + slot for slot in range(self.num_envs)]
        return self._one_each("seed", seed)

    def _one_each(self, what: str, value: Any) -> list[Any]:
        """One entry for each slot, from one value for all or a sequence of values."""
        if value is None or isinstance(value, str) or not hasattr(value, "__len__"):
            return [value] * self.num_envs
        if len(value) != self.num_envs:
            raise ConfigError(f"{what} must have one entry for each of the {self.num_envs} slots, got {len(value)}")
        return list(value)

    def _reset_mask(self, value: Any) -> NDArray[np.bool_]:
        if value is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        mask = np.asarray(value)
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise ConfigError(
                f"reset_mask must be an array of {self.num_envs} booleans, got {mask.dtype} of shape {mask.shape}"
            )
        return mask
