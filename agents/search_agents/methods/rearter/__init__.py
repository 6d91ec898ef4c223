"""ReARTeR: reasoning step by step, each step chosen by a process reward model that looks ahead, weak ones refined."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveInt

from search_agents.config.sections import Section
from search_agents.engines.base import Engine, GenerationRequest
from search_agents.methods.base import Setting
from search_agents.methods.rearter.lookahead import Scorer, chain_values, prefix_text, sigmoid
from search_agents.methods.rearter.reasoning import Path, Wording, look_ahead, sum_up
from search_agents.methods.rearter.refinement import Refinement, critique_prompt, refined_step
from search_agents.methods.steps import Steps, generate, note, side_by_side
from search_agents.methods.stepwise import StepwiseMethod
from search_agents.models import find_model, model_fingerprint
from search_env.dialects import make_inert
from search_env.errors import ConfigError
from search_env.types import Prompt, Question

if TYPE_CHECKING:
    from search_agents.methods.rearter.train import FitOptions

__all__ = ["REWARD_MODEL", "ReARTeR", "ReARTeROptions", "Reasoned"]

REWARD_MODEL = "reward-model"
"""Folder of the reward model in the folder that `fit` writes."""

# Of a critique, which is to be two or three sentences long.
_CRITIQUE_TOKENS = 96
_UNTRAINED = "the model itself, untrained"


class ReARTeROptions(Section):
    """What ReARTeR leaves open; the defaults are its paper's, or its code's where the paper is silent."""

    part: str | None = None
    """Folder of the process reward model, as `search-env fit --method rearter` writes it."""
    explainer: str | None = None
    """Folder or hub id of the process explanation model; by default the model that reasons writes the critiques, and
    they are labelled untrained (paper: Llama-3.2-3B-Instruct after KTO)."""
    reward_model_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the reward model's weights."""
    reward_model_device: str = "cpu"
    """Where the reward model computes: cpu, cuda, …"""
    explainer_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the explanation model's weights; auto: as they were saved."""
    explainer_device: str = "cpu"
    """Where the explanation model computes."""
    chains: PositiveInt = 3
    """Chains that are sampled for each step (M)."""
    lookahead: PositiveInt = 3
    """The most steps of a chain (H)."""
    full_lookahead_steps: PositiveInt = 3
    """A path of more steps than these is gone on from with chains of one step (code)."""
    max_steps: PositiveInt = 5
    """The most steps of a path; never more than the setting's searches."""
    temperatures: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] = (0.7, 1.0)
    """Temperatures of chains, given out in turn (the code draws one of them at random)."""
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.5
    """How far a step's value moves towards that of the step after it."""
    beta: NonNegativeFloat = 0.05
    """A chain is read on while each step gains at least this much, in logits."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Steps worth less are refined (paper; the code has 0.25 for models other than GPT)."""
    top_k: PositiveInt | None = None
    """Documents of one search; by default the setting's (paper: 1)."""


class Reasoned(NamedTuple):
    """What came of reasoning about a question."""

    path: Path
    refinements: tuple[Refinement, ...]


class ReARTeR(StepwiseMethod):
    """Steps chosen by a process reward model that looks ahead; a weak one is criticised and written anew.

    ReARTeR (Sun et al., SIGIR 2025, arXiv 2501.07861). For each step the model samples M chains of at most H steps; the
    reward model scores all their prefixes, a temporal-difference update lets the first step of a chain have part of
    what the later ones are worth, and the first step of the best chain is taken. Is it worth less than the threshold,
    the explanation model criticises it, the model chooses an action, and what comes of it takes the step's place,
    better or not. In the end the path is put into a short answer.

    A path has S steps, of which R are refined; with M = H = 3, each step costs at most 18 calls of the model and 9
    searches (6 and 3 after more than three steps), each refinement 3 calls and 1 search, and the answer 1 call: at most
    94 calls and 44 searches for S = R = 5. A reply that cannot be read as a step costs one call more. Only the searches
    of a path of at most `max_steps` steps, or the setting's `max_searches` if that is less, lead to the answer; those
    of the chains that were not taken are the price of looking ahead.

    What differs from the authors' code: a chain never reads another chain's text (theirs share it); temperatures are
    given out in turn; the reward model reads the question after the path. The checkpoints of their reward and
    explanation models, trained from 8B and 3B models, are not bundled.

    Args:
        setting: What the comparison holds fixed.
        options: What the method leaves open.
        scorer: A reward model that takes the place of the one in `options.part`.

    Raises:
        ConfigError: If there is no reward model.
        ModelError: If a model cannot be loaded.
    """

    name = "rearter"
    Options = ReARTeROptions
    options: ReARTeROptions

    def __init__(
        self, setting: Setting, options: ReARTeROptions | None = None, *, scorer: Scorer | None = None
    ) -> None:
        super().__init__(setting, options)
        self._scorer = scorer or self._load_scorer()
        self._explainer = self._load_explainer()

    @classmethod
    def fit_options(cls) -> type[FitOptions]:
        """What `fit` takes."""
        from search_agents.methods.rearter.train import FitOptions  # here: it brings torch

        return FitOptions

    @classmethod
    def fit(
        cls, setting: Setting, questions: Sequence[Question], folder: FilePath, options: FitOptions | None = None
    ) -> dict[str, Any]:
        """Collect labels on training questions and train the reward model; see `search_agents.methods.rearter.train`.

        Args:
            setting: With the model whose reasoning is to be judged.
            questions: Training questions; their answers are read.
            folder: Where everything is written, and gone on with when `fit` was interrupted.
            options: A `FitOptions`; None takes the defaults.

        Returns:
            The figures, as they stand in ``figures.json`` of the folder.

        Raises:
            ConfigError: If the labels are too few to train on.
        """
        from search_agents.methods.rearter.train import fit

        return fit(setting, questions, folder, options)

    def answer(self, question: Question) -> Steps[str]:
        """Reason, then sum up."""
        reasoned = yield from self.reason(question)
        return (yield from sum_up(self._wording(question), reasoned.path))

    def reason(self, question: Question) -> Steps[Reasoned]:
        """Find a path: it ends with a final answer, with its last allowed step, or where no chain can be read."""
        options = self.options
        most = min(options.max_steps, self.setting.env.rules.budget.max_searches)
        path: Path = ()
        refinements: list[Refinement] = []
        while len(path) < most and not (path and path[-1].final):
            chains = yield from self._look_ahead(question, path, last=len(path) == most - 1)
            if not chains:
                break
            values = chain_values(self._scorer, question, path, chains, alpha=options.alpha, beta=options.beta)
            best = max(range(len(chains)), key=values.__getitem__)
            yield from note("chain values", _told(values, chains, best))
            step = chains[best][0]
            if values[best] < options.threshold:
                refinement = yield from self._refine(question, path, chains[best], values[best])
                refinements.append(refinement)
                step = refinement.step
            path = (*path, step)
        return Reasoned(path, tuple(refinements))

    @property
    def note(self) -> str:
        """Where its two models come from; see `StepwiseMethod.note`."""
        scorer = "trained by search-env fit" if self.options.part else type(self._scorer).__name__
        return f"reward model: {scorer}; critiques: {self._explained_by}"

    @cached_property
    def fingerprint(self) -> str:
        """Says which reward model scored and which model explained."""
        scorer = getattr(self._scorer, "fingerprint", type(self._scorer).__name__)
        explainer = self.options.explainer
        return f"{scorer}, explained by {model_fingerprint(find_model(explainer)) if explainer else _UNTRAINED}"

    @property
    def _explained_by(self) -> str:
        return self.options.explainer or _UNTRAINED

    def _load_scorer(self) -> Scorer:
        if self.options.part is None:
            raise ConfigError(
                "the method 'rearter' needs a process reward model, and there is none. Train one: search-env fit "
                "--method rearter --model MODEL --out FOLDER, and give {name: rearter, part: FOLDER}."
            )
        from search_agents.methods.reward_model import RewardModel

        return RewardModel.load(
            FilePath(self.options.part).expanduser() / REWARD_MODEL,
            dtype=self.options.reward_model_dtype,
            device=self.options.reward_model_device,
        )

    def _load_explainer(self) -> Engine | None:
        """The explanation model; None where the model that reasons takes its place."""
        if self.options.explainer is None:
            return None
        from search_agents.engines.transformers import TransformersEngine

        return TransformersEngine.from_pretrained(
            self.options.explainer, dtype=self.options.explainer_dtype, device=self.options.explainer_device
        )

    def _look_ahead(self, question: Question, path: Path, *, last: bool) -> Steps[list[Path]]:
        """Chains of at least one step."""
        options = self.options
        steps = 1 if len(path) > options.full_lookahead_steps else options.lookahead
        wording = self._wording(question)
        chains = yield from side_by_side(
            [
                look_ahead(wording, path, steps=steps, temperature=self._temperature(number), last=last)
                for number in range(options.chains)
            ]
        )
        return [chain for chain in chains if chain]

    def _refine(self, question: Question, path: Path, chain: Path, value: float) -> Steps[Refinement]:
        wording = self._wording(question)
        prompt = critique_prompt(wording, path, chain, value)
        critique = yield from self._criticise(prompt)
        temperature = self._temperature(len(path))
        action, step = yield from refined_step(wording, path, chain[0], critique, temperature=temperature)
        (logit,) = self._scorer.score([prefix_text(question, [*path, step])]).tolist()
        after = sigmoid(logit)
        kept = ", the step as it was" if step is chain[0] else ""
        yield from note("refinement", f"{action.kind}{kept}: {value:.3f} -> {after:.3f}")
        return Refinement(prompt=prompt, critique=critique, action=action, step=step, before=value, after=after)

    def _criticise(self, prompt: Prompt) -> Steps[str]:
        """The explanation model's words, on one line; empty if the prompt leaves it no room."""
        if self._explainer is None:
            reply = yield from generate("critique, untrained", prompt, max_tokens=_CRITIQUE_TOKENS)
            return make_inert(reply.text)
        sampling = dataclasses.replace(self.setting.sampling, max_tokens=_CRITIQUE_TOKENS, stop=())
        request = GenerationRequest(prompt=prompt, sampling=sampling, seed=self.setting.seed)
        (said,) = self._explainer.generate([request], chat=self.setting.chat, max_tokens=self.setting.max_tokens)
        critique = make_inert(said.text) if said else ""
        yield from note(f"critique, {self._explained_by}", critique)
        return critique

    def _wording(self, question: Question) -> Wording:
        return Wording(question, chat=self.setting.chat, top_k=self.options.top_k)

    def _temperature(self, number: int) -> float:
        temperatures: Sequence[float] = self.options.temperatures
        return temperatures[number % len(temperatures)]


def _told(values: Sequence[float], chains: Sequence[Path], best: int) -> str:
    """Each chain's value and length, for instance ``0.31 (3), 0.62 (2) taken``."""
    told = [f"{value:.3f} ({len(chain)})" for value, chain in zip(values, chains, strict=True)]
    told[best] += " taken"
    return ", ".join(told)
