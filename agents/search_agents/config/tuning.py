"""Every setting of a sweep: which fields of a training recipe are drawn from what, and who decides which trials go on.

A sweep is a training recipe with a search space over its fields, named as the recipe
and the command line name them (``learner.lr``, ``stages.1.reward``). What can be drawn
is checked against the recipe's schema before a trial starts.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from search_agents.config.load import Override, dotted_keys, load_config
from search_agents.config.recipes import find_recipe
from search_agents.config.schema import TrainConfig
from search_agents.config.sections import Section
from search_env.errors import ConfigError, unknown_name

__all__ = [
    "HELD_OUT_METRICS",
    "METRICS",
    "ASHASection",
    "DrawSection",
    "PBTSection",
    "ResourcesSection",
    "SweepConfig",
    "base_recipe",
    "check_sweep",
    "with_settings",
]

HELD_OUT_METRICS = ("f1", "em", "cem", "search_rate", "format_rate", "searches_per_question")
_TRAINING_METRICS = ("reward", "f1", "em", "cem", "search_rate", "format_rate", "searches_per_question")
METRICS = (
    *(f"held_out/{name}" for name in HELD_OUT_METRICS),
    *(f"train/{name}" for name in _TRAINING_METRICS),
)

# What decides the next step only: a policy and its optimizer's moments can go on under another value.
_PERTURBABLE = frozenset(
    f"learner.{name}"
    for name in (
        "advantage aggregation clip clip_high dynamic_sampling grad_clip group_size kl_coef kl_estimator kl_in lr "
        "mask_overlong micro_batch_tokens minibatch_size mismatch mismatch_cap objective prompts_per_batch"
    ).split()
) | {"rollout.temperature", "stages.0.reward"}
# Trials that are asked other questions, or hold other resources, cannot be compared.
_NOT_SWEPT = {
    "evaluation": "the scores of trials that are asked other questions cannot be compared; write it under `settings`",
    "learner.num_gpus_per_learner": "all trials of a sweep have the same resources; write it under `settings`",
    "learner.num_learners": "all trials of a sweep have the same resources; write it under `settings`",
    "model.vllm.tensor_parallel_size": "all trials of a sweep have the same resources; write it under `settings`",
    "rollout.num_env_runners": "all trials of a sweep have the same resources; write it under `settings`",
    "rollout.num_gpus_per_env_runner": "all trials of a sweep have the same resources; write it under `settings`",
    "run.checkpoint_every": "the checkpoints are those of the sweep",
    "run.keep_checkpoints": "the checkpoints are those of the sweep",
    "run.name": "it names the run only",
    "run.sampled_groups": "a trial writes no episodes",
    "run.threads": "the threads of a trial are its `resources.cpus`",
}
_MOST_CHECKED = 500


def _number(value: Any) -> Any:
    # YAML 1.1 takes 1e-4 for text: only 1.0e-4 is a number there.
    is_number = isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value)
    return float(value) if is_number else value


_Values = Annotated[
    tuple[Annotated[Any, AfterValidator(_number)], ...],
    Field(min_length=1),
]


class DrawSection(Section):
    """What a field is drawn from: exactly one of these."""

    loguniform: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    """Least and largest value; each order of magnitude is as likely."""
    uniform: tuple[float, float] | None = None
    """Least and largest value."""
    randint: tuple[int, int] | None = None
    """Least and largest whole number, both included."""
    choice: _Values | None = None
    """Values, each as likely."""
    grid: _Values | None = None
    """Values, all of which are tried; `samples` then counts the rounds over the grid."""

    @model_validator(mode="after")
    def _is_one(self) -> DrawSection:
        kinds = list(type(self).model_fields)
        if len(self.model_fields_set & {kind for kind in kinds if getattr(self, kind) is not None}) != 1:
            raise ValueError(f"write exactly one of {', '.join(kinds)}, for example {{loguniform: [1.0e-5, 1.0e-3]}}")
        if self.bounds is not None and self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"the least value comes first and is less than the largest, not {list(self.bounds)}")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Least and largest value of a range; None for a list of values."""
        return self.loguniform or self.uniform or self.randint

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of a list, or the ends of a range."""
        return self.bounds or self.choice or self.grid or ()


class ASHASection(Section):
    """Asynchronous successive halving: weak trials are stopped early."""

    grace_period: PositiveInt = 2
    """Iterations that every trial has, whatever its metric."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One in so many trials goes on from rung to rung."""


class PBTSection(Section):
    """Population-based training: weak trials go on from a strong one's checkpoint, with its values changed a little."""

    perturbation_interval: PositiveInt = 2
    """Iterations between two looks at a trial."""
    quantile_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Share of the trials that is weak, and share that is strong."""
    resample_probability: Annotated[float, Field(ge=0, le=1)] = 0.25
    """How often a value is drawn anew instead of changed a little."""


class ResourcesSection(Section):
    """What one trial may use; all its processes are on one machine."""

    cpus: PositiveInt = 1
    """Cores of a trial, and its threads of torch. Its remote runners and learners take one more each."""
    gpus: NonNegativeFloat = 0.0
    """GPUs of a trial itself, in parts if trials share one. Its remote runners and learners have what the recipe gives
    them, on top; where these have GPUs, it evaluates on one of its own, and with 0 on the CPU."""


class SweepConfig(Section):
    """Everything that decides a sweep."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "sweep"
    """Name of the sweep in the folder without --out, and of the project in the loggers."""
    recipe: str = "fictional-wiki"
    """The training recipe that is swept: a shipped name or a file."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Fields of the recipe that all trials have otherwise, by dotted name."""
    space: dict[str, DrawSection] = Field(default_factory=dict)
    """Fields of the recipe that are drawn, by dotted name."""
    metric: str = "held_out/f1"
    """What is compared after each iteration: held_out/… of the evaluation, train/… of the last training step."""
    mode: Literal["max", "min"] = "max"
    """Whether more or less of it is better."""
    samples: PositiveInt = 8
    """Trials; for pbt, the population."""
    scheduler: Literal["asha", "pbt", "fifo"] = "asha"
    """Who decides which trials go on; `fifo` trains all to their end."""
    asha: ASHASection = ASHASection()
    pbt: PBTSection = PBTSection()
    max_iterations: PositiveInt = 10
    """Iterations of a trial; it ends sooner when the stages of the recipe are over."""
    steps_per_iteration: PositiveInt = 4
    """Training steps of an iteration, which ends with the evaluation and a checkpoint."""
    concurrent: PositiveInt = 1
    """Trials that run at the same time. In a Ray cluster that runs already, the resources alone decide for pbt."""
    resources: ResourcesSection = ResourcesSection()
    loggers: tuple[Literal["csv", "tensorboard", "wandb", "trackio"], ...] = ("csv", "tensorboard")
    """Where each trial's metrics go besides its own JSON; wandb and trackio need their packages."""
    seed: NonNegativeInt = 0
    """Seed of what is drawn; that of the trials is the recipe's `run.seed`."""

    @model_validator(mode="after")
    def _metric_is_measured(self) -> SweepConfig:
        if self.metric not in METRICS:
            raise ValueError(unknown_name("metric", self.metric, METRICS))
        return self

    @model_validator(mode="after")
    def _scheduler_has_time(self) -> SweepConfig:
        if self.scheduler == "asha" and self.asha.grace_period > self.max_iterations:
            raise ValueError(
                f"asha.grace_period ({self.asha.grace_period}) must not be more than max_iterations "
                f"({self.max_iterations})"
            )
        return self


def base_recipe(sweep: SweepConfig) -> TrainConfig:
    """The recipe that is swept, with the settings that all trials share.

    Raises:
        ConfigError: If there is no such recipe, or a setting is wrong.
    """
    file = find_recipe(sweep.recipe, "train")
    recipe = load_config(TrainConfig, [file])
    return with_settings(recipe.model_dump(mode="json"), sweep.settings, source="settings")


def with_settings(recipe: Mapping[str, Any], values: Mapping[str, Any], *, source: str = "space") -> TrainConfig:
    """A recipe with other values in some of its fields.

    Args:
        recipe: As plain values.
        values: By dotted name.
        source: Where they were written, for messages.

    Raises:
        ConfigError: If there is no such field, or it cannot have that value.
    """
    _check_names(values, source)
    overrides = [Override(key=key, value=_text(value), source=source) for key, value in values.items()]
    return load_config(TrainConfig, overrides=overrides, base=recipe, base_source="the recipe")


def check_sweep(sweep: SweepConfig, recipe: TrainConfig) -> list[TrainConfig]:
    """Check that every field can be swept, and that what can be drawn together goes together.

    Args:
        sweep: The sweep.
        recipe: Of `base_recipe`.

    Returns:
        The recipe under every value of every list and both ends of every range, in all combinations; if these are very
        many, under the first ones.

    Raises:
        ConfigError: If not; names the field, and the nearest one there is.
    """
    if not sweep.space:
        raise ConfigError("space is empty: nothing is swept. Write for example space: {learner.lr: {choice: [1e-4]}}.")
    _check_names(sweep.space, "space")
    for key in sweep.space:
        for begin, reason in _NOT_SWEPT.items():
            if f"{key}.".startswith(f"{begin}."):
                raise ConfigError(f"space: {key} cannot be swept: {reason}.")
        if sweep.scheduler == "pbt" and _pattern(key) not in _PERTURBABLE:
            raise ConfigError(
                f"space: {key} cannot be changed in a trial that runs, which pbt does. It can change: "
                f"{', '.join(sorted(_PERTURBABLE))}. Write scheduler: asha, or {key} under `settings`."
            )
    if sweep.scheduler == "pbt" and sweep.samples < 2 and not any(draw.grid for draw in sweep.space.values()):
        raise ConfigError("pbt needs a population: samples is 1. Write samples: 4, or more.")
    plain = recipe.model_dump(mode="json")
    together = itertools.product(*(draw.values for draw in sweep.space.values()))
    checked = []
    for values in itertools.islice(together, _MOST_CHECKED):
        sample = dict(zip(sweep.space, values, strict=True))
        try:
            checked.append(with_settings(plain, sample))
        except ConfigError as error:
            drawn = ", ".join(f"{key} = {value}" for key, value in sample.items())
            raise ConfigError(f"the space allows {drawn}, which no run can have.\n{error}") from None
    return checked


def _check_names(names: Iterable[str], source: str) -> None:
    known = [key for key, _ in dotted_keys(TrainConfig)]
    sections = {key.rpartition(".")[0] for key in known}  # such as learner.lora, which as a whole may be null
    for name in names:
        if _pattern(name) not in {*known, *sections}:
            section, *_ = [*difflib.get_close_matches(name.partition(".")[0], TrainConfig.model_fields, n=1), ""]
            nearby = [key for key in known if key.startswith(section)]
            raise ConfigError(f"{source}: {unknown_name('field', name, nearby)}")


def _pattern(key: str) -> str:
    """A dotted name as `dotted_keys` has it: the items of a list are all called 0."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "0", key)


def _text(value: Any) -> str:
    # As the command line has it: load_config reads both in one way.
    return value if isinstance(value, str) else json.dumps(value)
