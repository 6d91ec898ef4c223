"""From a rollout batch to the learners: rows, minibatches and an even share for each.

The driver decides which episodes form a minibatch and which learner gets which, so the
learners need no agreement among themselves: each gets the same number of rows of every
minibatch, nearly the same number of tokens, and with every row its weight and the number of
sampled tokens by which the whole minibatch is divided. One learner and several learners
therefore compute the same update.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.rllib.core import COMPONENT_LEARNER, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from search_agents.learning.aggregation import Aggregation, episode_weights
from search_agents.learning.deaths import is_death
from search_agents.learning.learner import LENGTHS, MINIBATCH, NUM_TOKENS, REFERENCE_LOGPROBS, WEIGHT
from search_agents.learning.rl_module import ACTION_MASK, INPUT_IDS
from search_agents.learning.sharding import is_first

__all__ = ["EpisodeLearnerGroup", "Row", "build_batches", "cut_evenly", "share_out"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """An episode as the learner sees it. Let T be its number of tokens."""

    input_ids: npt.NDArray[np.int64]
    """[T]"""
    action_mask: npt.NDArray[np.bool_]
    """True where the policy sampled the token, [T]."""
    logprobs: npt.NDArray[np.float32]
    """Log-probs under the old policy: when they were sampled, or computed again by the learner, [T]."""
    advantages: npt.NDArray[np.float32] | None = None
    """[T]; None as long as they are not known."""
    reference_logprobs: npt.NDArray[np.float32] | None = None
    """Log-probs under the reference, [T]; None where the loss has no need of them."""


_PADDING = Row(
    input_ids=np.zeros(2, dtype=np.int64),
    action_mask=np.zeros(2, dtype=np.bool_),
    logprobs=np.zeros(2, dtype=np.float32),
    advantages=np.zeros(2, dtype=np.float32),
)


class EpisodeLearnerGroup(LearnerGroup):  # type: ignore[misc]  # ray is untyped
    """RLlib's learner group, fed with episodes."""

    def update_on(
        self,
        rows: Sequence[Row],
        *,
        minibatch_size: int,
        order: npt.NDArray[np.integer],
        aggregation: Aggregation = Aggregation.TOKEN,
        max_tokens: int = 1,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Train on episodes.

        Args:
            rows: The episodes, at least one with a sampled token.
            minibatch_size: The most episodes of one optimizer step; see `cut_evenly`.
            order: Permutation that says which episode comes when, [N].
            aggregation: What the loss of a minibatch averages.
            max_tokens: See `episode_weights`.
            **kwargs: Passed on to `LearnerGroup.update`.

        Returns:
            The results of the learners, for a metrics logger to aggregate.
        """
        batches = build_batches(
            [rows[index] for index in order],
            minibatch_size=minibatch_size,
            num_shares=max(1, len(self)),
            aggregation=aggregation,
            max_tokens=max_tokens,
        )
        data = {"batches": batches} if self.is_remote else {"batch": batches[0]}
        return self.update(**data, **kwargs)  # type: ignore[no-any-return]

    def compute_logprobs(self, rows: Sequence[Row], *, reference: bool = False) -> list[npt.NDArray[np.float32]]:
        """Log-probs of every token under the learners' present policy or their frozen reference; 0 where not sampled.

        Args:
            rows: The episodes.
            reference: Whether under the reference.

        Returns:
            One array [T] for each row.
        """
        shares = share_out([len(row.input_ids) for row in rows], max(1, len(self)))
        batches = [_columns([rows[index] for index in share]) for share in shares]
        if self.is_remote:
            results = self._worker_manager.foreach_actor(
                "compute_logprobs", kwargs=[{"batch": batch, "reference": reference} for batch in batches]
            )
            found = self._get_results(results)
        else:
            found = [self._learner.compute_logprobs(batches[0], reference=reference)]
        logprobs = [np.zeros(len(row.input_ids), dtype=np.float32) for row in rows]
        for share, values in zip(shares, found, strict=True):
            for index, sampled in zip(share, values, strict=True):
                logprobs[index][rows[index].action_mask] = sampled
        return logprobs

    def on_first_learner(self, function: Callable[[Any], Any]) -> Any:
        """Call a function with the first learner, wherever it runs; the others hold the same.

        Sharded learners are all called, for each holds a part only; what the first returns counts.
        """
        if self.config.sharded:

            def report(learner: Any) -> Any:
                result = function(learner)
                return result if is_first() else None

            return self._get_results(self.foreach_learner(report))[0]
        first = None if self.is_local else self._worker_manager.healthy_actor_ids()[:1]
        return self._get_results(self.foreach_learner(function, remote_actor_ids=first))[0]

    def on_every_learner(self, function: Callable[[Any], Any]) -> list[Any]:
        """Call a function with each learner; RLlib's `foreach_learner` would keep their errors to itself."""
        return self._get_results(self.foreach_learner(function))  # type: ignore[no-any-return]

    def _get_results(self, results: Any) -> Any:
        """What the learners gave. A death is raised before other errors: they come of it."""
        for result in results:
            if not result.ok and is_death(result.get()):
                raise result.get()
        return super()._get_results(results)

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """RLlib's state."""
        if not self.config.sharded or not self._check_component(COMPONENT_LEARNER, components, not_components):
            return super().get_state(components, not_components=not_components, **kwargs)  # type: ignore[no-any-return]
        wanted = self._get_subcomponents(COMPONENT_LEARNER, components)
        unwanted = self._get_subcomponents(COMPONENT_LEARNER, not_components)
        state = self.on_first_learner(lambda each: each.get_state(wanted, not_components=unwanted, **kwargs))
        return {COMPONENT_LEARNER: state}


def build_batches(
    rows: Sequence[Row],
    *,
    minibatch_size: int,
    num_shares: int,
    aggregation: Aggregation = Aggregation.TOKEN,
    max_tokens: int = 1,
) -> list[MultiAgentBatch]:
    """Cut episodes into minibatches and share each out to the learners.

    Args:
        rows: The episodes in training order.
        minibatch_size: The most episodes of a minibatch; see `cut_evenly`.
        num_shares: Number of learners.
        aggregation: What the loss of a minibatch averages.
        max_tokens: See `episode_weights`.

    Returns:
        One batch a learner. All have the same number of rows in every minibatch; where the episodes do not
        suffice, a row without sampled tokens fills up.
    """
    shares: list[list[Row]] = [[] for _ in range(num_shares)]
    weights: list[list[float]] = [[] for _ in range(num_shares)]
    minibatch, num_tokens = [], []
    for number, part in enumerate(cut_evenly(len(rows), minibatch_size)):
        members = rows[part]
        parts = share_out([len(row.input_ids) for row in members], num_shares)
        size = max(map(len, parts))
        counts = [int(row.action_mask.sum()) for row in members]
        weight = episode_weights(counts, aggregation, max_tokens=max_tokens).tolist()
        for share, held, weighed in zip(shares, parts, weights, strict=True):
            share += [members[index] for index in held] + [_PADDING] * (size - len(held))
            weighed += [weight[index] for index in held] + [0.0] * (size - len(held))
        minibatch += [number] * size
        num_tokens += [float(max(1, sum(counts)))] * size
    extra = {MINIBATCH: np.array(minibatch), NUM_TOKENS: np.array(num_tokens, dtype=np.float32)}
    columns = [
        {**_columns(share), **extra, WEIGHT: np.array(weighed, dtype=np.float32)}
        for share, weighed in zip(shares, weights, strict=True)
    ]
    return [MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(each)}, env_steps=len(each[MINIBATCH])) for each in columns]


def cut_evenly(number: int, size: int) -> list[slice]:
    """Cut a row of episodes into as few parts of at most `size` as can be, none more than one larger than another.

    Every part is an optimizer step of the same learning rate, so an episode in a small rest would weigh many times one
    in a whole part.

    Args:
        number: Episodes, at least one.
        size: The most of a part.

    Returns:
        The parts in order; all of `size` where that divides `number`.
    """
    least, rest = divmod(number, -(-number // size))
    ends = [0, *itertools.accumulate(least + (part < rest) for part in range(-(-number // size)))]
    return [slice(*part) for part in itertools.pairwise(ends)]


def share_out(lengths: Sequence[int], num_shares: int) -> list[list[int]]:
    """Share out rows so that the shares are nearly equal in tokens and none has more rows than it must.

    Longest row first, each to the share with the fewest tokens among those that still have room.

    Args:
        lengths: Tokens of each row.
        num_shares: Number of shares.

    Returns:
        Indices of rows, in ascending order, one list a share.
    """
    most = -(-len(lengths) // num_shares)
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    tokens = [0] * num_shares
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        room = [number for number in range(num_shares) if len(shares[number]) < most]
        lightest = min(room, key=lambda number: tokens[number])
        shares[lightest].append(index)
        tokens[lightest] += lengths[index]
    return [sorted(share) for share in shares]


def _columns(rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
    """Rows as columns, padded on the right."""
    lengths = np.array([len(row.input_ids) for row in rows] or [0])
    columns: dict[str, npt.NDArray[Any]] = {
        INPUT_IDS: np.zeros((len(rows), lengths.max()), dtype=np.int64),
        ACTION_MASK: np.zeros((len(rows), lengths.max()), dtype=np.bool_),
        Columns.ACTION_LOGP: np.zeros((len(rows), lengths.max()), dtype=np.float32),
        Columns.ADVANTAGES: np.zeros((len(rows), lengths.max()), dtype=np.float32),
        REFERENCE_LOGPROBS: np.zeros((len(rows), lengths.max()), dtype=np.float32),
    }
    for index, row in enumerate(rows):
        values = (row.input_ids, row.action_mask, row.logprobs, row.advantages, row.reference_logprobs)
        for column, value in zip(columns.values(), values, strict=True):
            if value is not None:
                column[index, : len(value)] = value
    return columns | {LENGTHS: lengths[: len(rows)]}
