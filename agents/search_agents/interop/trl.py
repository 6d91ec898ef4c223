"""TRL: our rollout as the ``rollout_func`` of `trl.GRPOTrainer` (read at TRL 1.16).

`search_env.interop.trl` offers the environment as functions to call. This is the other way: the model writes the tags
of a dialect, and episodes are played by `collect`, so token ids, log-probs and mask are made once, from what was
sampled, and documents are masked whatever they hold. Documents count as completion for TRL's logs and lengths.
Episodes are sampled in the trainer's mixed precision, which `unwrap_model` leaves on the model.

An episode whose search failed for good has no reward: None, which TRL takes for a rollout that cannot be scored. It is
left out of the mean of its group and its advantage is 0. Its tokens still count where TRL averages the loss over
tokens, and in a KL term (``beta``); nothing that a ``rollout_func`` returns can take them out there. Give the trainer
no other reward function: TRL adds up those there are, and None beside a number is 0.

This module imports nothing of TRL.
"""

from __future__ import annotations

from typing import Any

from search_agents.engines.base import SamplingParams
from search_agents.engines.transformers import TransformersEngine
from search_agents.rollout import Episode, Task, collect, derive_seed
from search_env.registration import ENVIRONMENTS
from search_env.vector import SearchQAVectorEnv

__all__ = ["SearchRollout", "environment_reward"]


class SearchRollout:
    """What `GRPOTrainer` takes as ``rollout_func``; give it `environment_reward` as a reward function too.

    Args:
        env_id: A registered id.
        num_envs: Episodes that are played at the same time.
        max_segment_tokens: Tokens that the model may write in one segment.
        max_episode_tokens: Tokens of a whole episode: prompt, segments and documents.
        chat: Whether the prompt goes through the model's chat template.
        seed: Of the sampling. What is sampled at a step depends on it, the step and the place in the batch.
        **settings: Of `search_env.SearchQAEnv`.

    Raises:
        ConfigError: If a setting is wrong.
        DatasetError: If the data is missing or malformed.
    """

    def __init__(
        self,
        env_id: str,
        *,
        num_envs: int = 16,
        max_segment_tokens: int = 256,
        max_episode_tokens: int = 2048,
        chat: bool = False,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self._env = SearchQAVectorEnv(num_envs, **{"dataset": ENVIRONMENTS[env_id], **settings})
        self._segment_tokens, self._episode_tokens = max_segment_tokens, max_episode_tokens
        self._chat, self._seed = chat, seed
        self._calls = 0
        self.episodes: list[Episode] = []
        """Those of the last call, in its order."""

    def rows(self) -> list[dict[str, str]]:
        """A row for each question: `datasets.Dataset.from_list` makes of them the ``train_dataset``.

        A ``rollout_func`` is given the prompts alone, so the prompt of a row is the question's id; what the model
        reads is the environment's prompt.
        """
        return [{"prompt": question.id} for question in self._env.dataset.questions]

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """Play an episode for each prompt with the trainer's own weights.

        Args:
            prompts: Ids of questions, as `rows` has them; TRL repeats each for its group.
            trainer: The trainer; one that generates with its transformers model.

        Raises:
            ConfigError: If there is no such question, or the budget cannot hold any prompt.
        """
        model = trainer.accelerator.unwrap_model(trainer.model)
        tasks = [
            Task(question, group=0, seed=derive_seed(self._seed, self._calls, place))
            for place, question in enumerate(prompts)
        ]
        self._calls += 1
        sampling = SamplingParams(temperature=trainer.temperature, max_tokens=self._segment_tokens)
        engine = TransformersEngine(model, trainer.processing_class)
        self.episodes = collect(
            engine, self._env, tasks, sampling=sampling, max_tokens=self._episode_tokens, chat=self._chat
        )
        return _columns(self.episodes)


def environment_reward(environment_reward: list[float | None], **row: Any) -> list[float | None]:
    """The rewards of the episodes, None for those whose search failed: a reward function of `GRPOTrainer`."""
    return environment_reward


def _columns(episodes: list[Episode]) -> dict[str, list[Any]]:
    """Episodes as TRL has them: the prompt, and everything after it with a mask of what was sampled."""
    columns: dict[str, list[Any]] = {name: [] for name in (*_REQUIRED, "env_mask", "environment_reward")}
    for episode in episodes:
        begin = len(episode.segments[0].token_ids)
        columns["prompt_ids"].append(episode.token_ids[:begin].tolist())
        columns["completion_ids"].append(episode.token_ids[begin:].tolist())
        columns["logprobs"].append(episode.logprobs[begin:].tolist())
        columns["env_mask"].append(episode.action_mask[begin:].astype(int).tolist())
        columns["environment_reward"].append(episode.reward if episode.valid else None)
    return columns


_REQUIRED = ("prompt_ids", "completion_ids", "logprobs")
