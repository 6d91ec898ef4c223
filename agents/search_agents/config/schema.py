"""What a training, an evaluation and every other job is: a config of sections, all of it checked before anything runs.

A config holds plain values only, so that it can be stored as JSON with the run and
compared at resume. Where the run is written (``--out``) and how it is shown
(``--display``) are no part of it: they do not change what is computed.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from search_agents.config.sections import (
    EnvSection,
    EvaluationSection,
    HeldOutSection,
    JudgeSection,
    KeepSection,
    LearnerSection,
    ModelSection,
    OptimizerSection,
    QuestionSet,
    RolloutSection,
    RunSection,
    SamplingSection,
    Section,
    SFTRunSection,
    SFTSection,
    StageSection,
    TrainRunSection,
    UntilSection,
)

__all__ = [
    "AgentConfig",
    "ComparisonConfig",
    "EvalConfig",
    "JudgeConfig",
    "SFTConfig",
    "SampleConfig",
    "TrainConfig",
]


class AgentConfig(Section):
    """What every config says: which agent plays, in which environment, within which budgets."""

    env: EnvSection = EnvSection()
    model: ModelSection = ModelSection()
    rollout: RolloutSection = RolloutSection()

    @property
    def chat(self) -> bool:
        """Whether the prompt goes through the model's chat template."""
        return self.env.prompt == "instruct"


def _check_what_is_trained(model: ModelSection, learner: OptimizerSection) -> None:
    if model.dtype != "float32" and learner.lora is None:
        raise ValueError(
            f"model.dtype is {model.dtype}, in which most steps of the optimizer would be rounded away: write "
            "--model.dtype float32 (and --learner.autocast true to compute in bfloat16), or train float32 adapters on "
            "these weights: --learner.lora '{rank: 32}'"
        )


class TrainConfig(AgentConfig):
    """Everything that decides a training run."""

    learner: LearnerSection = LearnerSection()
    stages: Annotated[tuple[StageSection, ...], Field(min_length=1)] = (
        StageSection(name="stage1", reward="stage1", max_steps=8, until=UntilSection()),
        StageSection(name="stage2", reward="stage2", max_steps=20),
    )
    evaluation: HeldOutSection = HeldOutSection()
    run: TrainRunSection = TrainRunSection()

    @model_validator(mode="after")
    def _model_is_here(self) -> TrainConfig:
        if self.model.server is not None:
            raise ValueError("a model that is trained is loaded here: remove model.server")
        return self

    @model_validator(mode="after")
    def _trains_float32(self) -> TrainConfig:
        _check_what_is_trained(self.model, self.learner)
        return self

    @model_validator(mode="after")
    def _spread_engine_has_its_gpus(self) -> TrainConfig:
        if not self._engine_is_spread:
            return self
        size, given = self.model.vllm.tensor_parallel_size, self.rollout.num_gpus_per_env_runner
        if not self.rollout.num_env_runners:
            raise ValueError(
                f"an engine on {size} GPUs (model.vllm.tensor_parallel_size) runs beside the learner: write "
                "--rollout.num-env-runners 1, or more"
            )
        if given not in (0, size):
            raise ValueError(
                f"num_gpus_per_env_runner is {given:g}, but model.vllm.tensor_parallel_size spreads an engine over "
                f"{size} GPUs: write --rollout.num-gpus-per-env-runner {size}, or leave it out"
            )
        return self

    @property
    def _engine_is_spread(self) -> bool:
        return self.model.engine == "vllm" and self.model.vllm.tensor_parallel_size > 1

    @property
    def gpus_per_env_runner(self) -> float:
        """GPUs of each process that samples: all that its engine is spread over."""
        if self._engine_is_spread:
            return self.model.vllm.tensor_parallel_size
        return self.rollout.num_gpus_per_env_runner

    @model_validator(mode="after")
    def _stage_names_differ(self) -> TrainConfig:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages must have different names, not {names}")
        return self

    @property
    def max_steps(self) -> int:
        """The most training steps that the stages allow together."""
        return sum(stage.max_steps for stage in self.stages)


class EvalConfig(AgentConfig):
    """Everything that decides an evaluation."""

    method: str | dict[str, Any] = "r1-searcher"
    """Method of the table: a name, or {name: NAME, …} with its options; `search-env list methods` names them."""
    evaluation: EvaluationSection = EvaluationSection()
    run: RunSection = RunSection()


class ComparisonConfig(Section):
    """Everything that decides a comparison of methods: all of them under one setting, set by set."""

    methods: Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1)] = ("standard-rag", "r1-searcher")
    """The methods, each as in `EvalConfig.method`."""
    sets: Annotated[tuple[QuestionSet, ...], Field(min_length=1)] = (QuestionSet(),)
    """The sets of questions."""
    env: EnvSection = EnvSection()
    """The environment of all sets; its id and data are the set's."""
    model: ModelSection = ModelSection()
    rollout: RolloutSection = RolloutSection()
    evaluation: EvaluationSection = EvaluationSection()
    run: RunSection = RunSection()

    def of(self, method: str | dict[str, Any], asked: QuestionSet) -> EvalConfig:
        """The config of one evaluation."""
        evaluation = self.evaluation.model_copy(update={"split": asked.split} if asked.split else {})
        return EvalConfig(
            method=method,
            env=self.env.model_copy(update={"id": asked.id, "data": asked.data}),
            model=self.model,
            rollout=self.rollout,
            evaluation=evaluation,
            run=self.run,
        )


class SampleConfig(AgentConfig):
    """Everything that decides a rejection sampling."""

    sampling: SamplingSection = SamplingSection()
    keep: KeepSection = KeepSection()
    run: RunSection = RunSection()


class SFTConfig(AgentConfig):
    """Everything that decides a supervised training run."""

    sft: SFTSection = SFTSection()
    learner: OptimizerSection = OptimizerSection()
    evaluation: HeldOutSection = HeldOutSection()
    run: SFTRunSection = SFTRunSection()

    @model_validator(mode="after")
    def _samples_nothing(self) -> SFTConfig:
        if self.model.engine != "transformers":
            raise ValueError("supervised training samples no episodes but those of its evaluation: remove model.engine")
        return self

    @model_validator(mode="after")
    def _trains_float32(self) -> SFTConfig:
        _check_what_is_trained(self.model, self.learner)
        return self


class JudgeConfig(Section):
    """Which model judges answers, and how."""

    model: ModelSection | None = None
    """The judge; null asks nobody."""
    judge: JudgeSection = JudgeSection()
