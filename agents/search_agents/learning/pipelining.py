"""One-step-off-policy pipelining: the next batch is sampled while the learner trains on this one.

With ``max_staleness`` 1 the runners are asked for the batch of step n + 1 before the learner takes step n, with the
weights from before that step. Where sampling and learning take equally long and have processors of their own, a step
takes half the time. What differs is the policy that samples: it is one step behind the one that is trained, but for
the first batch. This is the asynchrony of one step of prime-rl and verl, and AReaL's ``max_head_offpolicyness`` of 1
(arXiv 2505.24298).

How the loss makes up for it. The rows keep mu, the probabilities with which the engine drew their tokens, and these are
of the weights that sampled, so both ways of `search_agents.learning.mismatch` stay right:

* ``ignored``: the ratio is pi / mu. It is PPO's own, whose old policy is the one that sampled; it now also holds the
  step between the two, and the clip bounds how far a token may go from the policy that drew it.
* ``truncated``, ``masked``: the learner computes pi_prox with the weights that it has before the update, the ratio is
  pi / pi_prox, and each token is weighted by pi_prox / mu, cut at the cap. That is the decoupled objective of AReaL
  (arXiv 2505.24298, section 5.2; first in arXiv 2110.00641): the clip bounds the update, the weight corrects for age.

A KL in the reward is that of the policy which the rows' old log-probs are of: mu, or pi_prox where it is computed. The
metric ``staleness`` counts the steps between the weights that sampled and those that are trained, and ``mismatch_kl``
tells how far apart the two policies are.

Nothing of it depends on time. The metrics of a step are those of its episodes, so the stage of the next step is known
before its batch is asked for, and no batch is sampled under another stage's reward. What a batch is sampled with is a
`BatchRequest`; a checkpoint keeps the weights of the one that is open, and the run that goes on samples it again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

from search_agents.learning.schedule import Stage

__all__ = ["BatchRequest", "in_background"]

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """What the batch of a step is sampled with; nothing of it changes while the learner goes on."""

    step: int
    """Steps that are done before the one that trains on the batch."""
    stage: Stage
    """The stage of that step."""
    weights: Any
    """What the runners sample with, or a reference to it; None if they share the learner's module."""
    weights_step: int
    """Steps that these weights had been trained for."""

    @property
    def staleness(self) -> int:
        """Steps between the weights that sample and those that are trained on the batch."""
        return self.step - self.weights_step


def in_background(function: Callable[[], Result]) -> Future[Result]:
    """Call a function in a thread that does not keep the process from ending.

    Returns:
        Its result or its error, to come.
    """
    future: Future[Result] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # whoever waits for the result is told
            future.set_exception(error)

    Thread(target=call, daemon=True).start()
    return future
