"""Which questions a training step asks, in which order, and with which seeds.

Both are functions of the run's seed and the number of the step alone. A run that is
resumed at a step asks what it would have asked without the stop, and nothing has to be
saved for it.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from search_agents.rollout import Task, derive_seed

__all__ = ["order_of_epoch", "questions_of_step", "tasks_of_step"]

_GROUPS_APART = 1_000_000  # so that groups of different attempts have different numbers


def order_of_epoch(epoch: int, *, number: int, seed: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch goes through its questions or episodes.

    Args:
        epoch: Number of the epoch, from 0.
        number: How many there are.
        seed: Of the run.

    Returns:
        A permutation, [number].
    """
    return np.random.default_rng([seed, epoch]).permutation(number)


def questions_of_step(step: int, *, num_questions: int, prompts_per_batch: int, seed: int) -> list[int]:
    """Draw the questions of a step, without replacement within an epoch.

    Every epoch has its own permutation; a batch may reach from one epoch into the next.

    Args:
        step: Number of the step, from 0.
        num_questions: Questions in the dataset.
        prompts_per_batch: Questions to draw.
        seed: Of the run.

    Returns:
        Indices of questions, [prompts_per_batch].
    """
    places = np.arange(step * prompts_per_batch, (step + 1) * prompts_per_batch)
    epochs = np.unique(places // num_questions)
    orders = {epoch: order_of_epoch(epoch, number=num_questions, seed=seed) for epoch in epochs}
    return [int(orders[place // num_questions][place % num_questions]) for place in places]


def tasks_of_step(
    step: int, *, num_questions: int, prompts_per_batch: int, group_size: int, seed: int, attempt: int = 0
) -> list[Task]:
    """The episodes of a step: a group for each of its questions.

    Args:
        step: Number of the step, from 0.
        num_questions: Questions in the dataset.
        prompts_per_batch: Questions to ask.
        group_size: Episodes for each.
        seed: Of the run.
        attempt: How often the step has asked before; later questions are drawn from all of them.

    Returns:
        Tasks, group by group, [prompts_per_batch x group_size].
    """
    if attempt:
        drawn = np.random.default_rng([seed, step, attempt, 2]).integers(num_questions, size=prompts_per_batch)
        questions = drawn.tolist()
    else:
        questions = questions_of_step(step, num_questions=num_questions, prompts_per_batch=prompts_per_batch, seed=seed)
    again = [attempt] if attempt else []
    asked: Counter[int] = Counter()  # a question that comes twice in a step is sampled anew
    tasks = []
    for group, question in enumerate(questions, start=attempt * _GROUPS_APART):
        for _ in range(group_size):
            tasks.append(Task(question, group, derive_seed(seed, step, question, asked[question], *again)))
            asked[question] += 1
    return tasks
