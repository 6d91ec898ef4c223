"""Processes of a training that die: how to tell it from a mistake, and runners that are replaced.

A process is killed from outside: by the kernel when memory runs out, with its machine, by
somebody. What it was doing may be done again as it was. An exception that our code raised
is another matter: it would be raised again, and its text says what to mend, so it reaches
the user as it is.

What a runner plays follows from the request alone, so a new runner that gets the request
of a dead one plays the same episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from search_agents.rollout import Episode
from search_env.errors import ProcessDied

__all__ = ["DEATHS", "is_death", "sample_on_runners"]

DEATHS = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError)
"""What Ray raises where a process is gone; `is_death` looks at it more closely."""

_ROUNDS = 3
"""So many times in a row dead runners are replaced; a death that comes again is in the request or in the machine."""


def is_death(error: BaseException) -> bool:
    """Whether an error means that a process was killed, and not that our code raised an exception in it."""
    # An actor whose constructor raised is dead as well, of a mistake.
    return isinstance(error, DEATHS) and not getattr(error, "actor_init_failed", False)


def sample_on_runners(group: EnvRunnerGroup, requests: Sequence[Mapping[str, Any]]) -> tuple[list[list[Episode]], int]:
    """Ask every remote runner for episodes; who dies is replaced, and the new one gets the same request.

    Args:
        group: The runners.
        requests: What each of them is to `sample`, in their order.

    Returns:
        The episodes of each request, and how many runners were replaced.

    Raises:
        ProcessDied: If runners die in each of several attempts in a row.
        Exception: What our code raised in a runner.
    """
    manager = group._worker_manager
    waiting = dict(zip(manager.actor_ids(), requests, strict=True))
    episodes: dict[int, list[Episode]] = {}
    replaced = 0
    for attempt in range(_ROUNDS + 1):
        asked = list(waiting)
        results = manager.foreach_actor(
            "sample", kwargs=list(waiting.values()), remote_actor_ids=asked, healthy_only=False
        )
        died = [result for result in results if not result.ok]
        for result in died:
            if not is_death(result.get()):
                raise _cause(result.get())
        for result in results.ignore_errors():
            episodes[result.actor_id] = result.get()
            del waiting[result.actor_id]
        if not waiting:
            return [episodes[number] for number in sorted(episodes)], replaced
        if attempt < _ROUNDS:
            for number in waiting:
                _replace(group, number)
            replaced += len(waiting)
    raise ProcessDied(
        f"env runners died {_ROUNDS + 1} times in a row while they sampled the same episodes. Most often memory has "
        "run out (the kernel's log says so): lower rollout.num_envs or rollout.num_env_runners, or use a larger "
        f"machine, and resume from the last checkpoint. The last one: {died[-1].get()}"
    )


def _replace(group: EnvRunnerGroup, number: int) -> None:
    """Start a runner in the place of another: it has the same number, and so the same share of the resources."""
    manager = group._worker_manager
    ray.kill(manager._actors[number])  # one that only could not be reached would keep its GPU
    manager._actors[number] = group._make_worker(
        env_creator=group._env_creator,
        validate_env=None,
        worker_index=number,
        num_workers=manager.num_actors(),
        recreated_worker=True,
        config=group._remote_config_obj_ref,
    )
    # Not by `set_actor_state`: RLlib would then take it for one that was restored and is to be synchronised.
    manager._remote_actor_states[number].is_healthy = True


def _cause(error: Exception) -> BaseException:
    """What was raised in a process; of a runner whose constructor raised, that."""
    failed = getattr(error, "actor_init_failed", False)
    return error.args[0].cause if failed else error
