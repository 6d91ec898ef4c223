"""CR-Planner: sub-goals and their outcomes, chosen by critics that a tree search taught."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from search_agents.methods.cr_planner.critics import HOW_TO_TRAIN, TrainedCritics, read_choice, verdict_prompt
from search_agents.methods.cr_planner.mdp import OUTCOMES, SENTENCES, Critic, State
from search_agents.methods.cr_planner.planning import Planner, PlanOptions
from search_agents.methods.steps import Steps, generate, note
from search_env.dialects import make_inert
from search_env.errors import ConfigError
from search_env.types import Question

if TYPE_CHECKING:
    from search_agents.methods.base import Setting
    from search_agents.methods.cr_planner.train import FitOptions

__all__ = ["CRPlanner", "CRPlannerOptions"]


class CRPlannerOptions(PlanOptions):
    """Options of CR-Planner."""

    critic: Literal["trained", "llm"] = "trained"
    """Who chooses: trained critics, or the language model itself, which is the paper's ablation, not its method."""
    part: str | None = None
    """Folder of the trained critics, as `search-env fit` writes it."""
    critics_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the critics' weights."""
    critics_device: str = "cpu"
    """Where the critics compute."""


class CRPlanner(Planner):
    """Chooses a sub-goal (reason, word a query, retrieve), carries it out in several ways, keeps the best, and so on.

    Critic-guided Planning with Retrieval-Augmentation (Li et al., 2024, arXiv 2410.01428). The sub-goal critic scores
    the three sub-goals, given all that was observed; carrying one out gives M sampled rationales, M sampled queries, or
    the top k documents, of which that kind's critic keeps the best one. One path, without going back, until a rationale
    says what the answer is; after T sub-goals the model must conclude.

    Each rationale and each query costs M calls of the model, each document one search: for T sub-goals, S of them
    retrievals, M(T - S) calls and S searches, and one call more if the conclusion is forced. With ``critic: llm`` each
    choice among several candidates is a call too.

    The authors published no code. Ours: the wording; documents can only be retrieved where a query waits, and with the
    budget of searches spent nothing is left but to reason; a sub-goal of which nothing comes leaves the state as it
    is, but for the query, which is spent; the critics are small encoders where theirs are low-rank adapters on
    Skywork-Reward-Llama-3.1-8B, which `FitOptions` can be given too.

    Args:
        setting: What the comparison holds fixed.
        options: None takes the defaults, which lack the part with the critics.

    Raises:
        ConfigError: If the critics are wanted and not given, or their folder holds none.
    """

    name = "cr-planner"
    Options = CRPlannerOptions
    options: CRPlannerOptions

    def __init__(self, setting: Setting, options: CRPlannerOptions | None = None) -> None:
        super().__init__(setting, options)
        self._critics: TrainedCritics | None = None
        if self.options.critic == "llm":
            return
        if self.options.part is None:
            raise ConfigError(
                f"the method 'cr-planner' needs trained critics. Train them: {HOW_TO_TRAIN}, and give "
                "{name: cr-planner, part: FOLDER}; or set critic: llm, the paper's ablation."
            )
        self._critics = TrainedCritics(
            self.options.part, dtype=self.options.critics_dtype, device=self.options.critics_device
        )

    @property
    def note(self) -> str:
        """Who the critics are; see `StepwiseMethod.note`."""
        if self._critics is None:
            return f"the critic is {self.setting.engine.name} itself, the paper's ablation"
        return "the critics were trained by search-env fit; the authors' were not run"

    @property
    def fingerprint(self) -> str | None:
        """Of the trained critics; None if the language model chooses."""
        return self._critics.fingerprint if self._critics else None

    def answer(self, question: Question) -> Steps[str]:
        """A greedy path; see the class for what it costs."""
        state = State(question=make_inert(question.text))
        for _ in range(self.options.max_steps):
            possible = state.possible(self.max_searches)
            place = yield from self._choose(Critic.SUB_GOAL, state, [SENTENCES[sub_goal] for sub_goal in possible])
            sub_goal = possible[place]
            found = yield from self.execute(state, sub_goal)
            kept = found[(yield from self._choose(OUTCOMES[sub_goal], state, found))] if found else None
            state = state.after(sub_goal, kept)
            if state.answer:
                return state.answer
        return (yield from self.conclude(question, state))

    def _choose(self, critic: Critic, state: State, candidates: Sequence[str]) -> Steps[int]:
        """The place of the best candidate; the first among equals."""
        if self._critics:
            scores = self._critics.score(critic, state, candidates)
            told = "\n".join(f"{score:.3f} {text}" for score, text in zip(scores, candidates, strict=True))
            yield from note(f"{critic} critic", told)
            return scores.index(max(scores))
        if len(candidates) == 1:
            return 0
        prompt = verdict_prompt(critic, state, candidates, chat=self.setting.chat)
        stop = () if self.setting.chat else ("\n",)
        verdict = yield from generate(f"{critic} critic", prompt, stop=stop, max_tokens=8, temperature=0.0)
        return read_choice(verdict.text, len(candidates))

    @classmethod
    def fit_options(cls) -> type[FitOptions]:
        """What `fit` takes."""
        from search_agents.methods.cr_planner.train import FitOptions  # here: it brings torch

        return FitOptions

    @classmethod
    def fit(
        cls, setting: Setting, questions: Sequence[Question], folder: str | Path, options: FitOptions
    ) -> dict[str, Any]:
        """Train the critics; see `search_agents.methods.cr_planner.train.fit`."""
        from search_agents.methods.cr_planner.train import fit  # here: it brings torch

        return fit(setting, questions, Path(folder), options)
