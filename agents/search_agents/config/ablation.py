"""An ablation: a finding of the paper, and the trainings that differ in what it is about.

Every arm is a recipe with some keys of its own. What an arm trains on, by which seed and
for how long, follows from the file and the command line alone, so all of it is checked
before anything is trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, model_validator

from search_agents.config.load import Override, dotted_keys, load_config
from search_agents.config.recipes import find_recipe
from search_agents.config.schema import SampleConfig, SFTConfig, TrainConfig
from search_agents.config.sections import PlainName, Section

__all__ = [
    "METRICS",
    "AblationConfig",
    "ArmSection",
    "ClaimSection",
    "PaperSection",
    "PlannedRun",
    "SubsetSection",
    "trajectories",
]

Metric = Literal["em", "cem", "f1", "searches", "response_tokens", "answer_words"]
METRICS: tuple[str, ...] = get_args(Metric)
"""What is compared, of each held-out question."""

_IMITATION = (SampleConfig, SFTConfig)
_SUBSETS_ENV = "SearchQA-Custom-v0"


class PaperSection(Section):
    """What the paper says."""

    source: str
    """Where it says so, and of which model."""
    finding: str
    """The finding, in one sentence."""
    figures: dict[str, dict[str, tuple[float, float, float]]] = Field(default={})
    """Its EM, CEM (ACC_R) and F1 in percent, by arm and set of questions; none if it gives no figures."""


class SubsetSection(Section):
    """A part of the training questions."""

    hops: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    """Numbers of hops that its questions have; null takes all."""
    kinds: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Kinds that its questions are of; null takes all."""


class ArmSection(Section):
    """One side of the comparison."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]*$")]
    """Its name in folders and tables."""
    verb: Literal["train", "sft"] = "train"
    """What trains it: reinforcement learning, or imitation of episodes that are sampled first."""
    base: tuple[str, ...] | None = None
    """Its recipes; null takes those of the ablation for ``train``."""
    sample: str | None = None
    """Recipe of ``search-env sample`` for the episodes that ``sft`` imitates."""
    overrides: dict[str, Any] = Field(default={})
    """What makes it differ: dotted keys of its recipe and their values."""

    @model_validator(mode="after")
    def _imitates_something(self) -> ArmSection:
        if self.verb == "sft" and (self.sample is None or self.base is None):
            raise ValueError("an arm of sft needs base, a recipe of sft, and sample, the recipe of what it imitates")
        if self.verb == "train" and self.sample is not None:
            raise ValueError("sample is the recipe of what an arm of sft imitates: remove it, or write verb: sft")
        return self


class ClaimSection(Section):
    """One point of the finding, as a difference that can be measured."""

    metric: Metric
    """What differs."""
    higher: str
    """The arm in which it is higher, by the paper."""
    lower: str
    """The arm in which it is lower."""


class PlannedRun(NamedTuple):
    """One training: of an arm, by a seed."""

    arm: str
    seed: int
    config: TrainConfig | SFTConfig
    sampling: SampleConfig | None
    """What `config` imitates; None for reinforcement learning."""


class AblationConfig(Section):
    """A finding and the trainings that test it."""

    title: str
    paper: PaperSection
    here: str
    """What is trained here, and in what it differs from the paper's experiment."""
    base: tuple[str, ...] = ("fictional-wiki",)
    """Recipes of ``search-env train`` for the arms, the last wins."""
    overrides: dict[str, Any] = Field(default={})
    """Dotted keys and values for every arm whose recipe has the key."""
    subsets: dict[PlainName, SubsetSection] = Field(default={})
    """Parts of the training questions, which stages name as their split."""
    arms: tuple[ArmSection, ...]
    """At least two."""
    claims: Annotated[tuple[ClaimSection, ...], Field(min_length=1)]
    """The finding, point by point."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 2)
    """Every arm is trained by each."""

    @model_validator(mode="after")
    def _names_are_of_arms(self) -> AblationConfig:
        names = [arm.name for arm in self.arms]
        if len(names) < 2:
            raise ValueError(f"arms must be at least 2 to be compared, not {names}")
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"arms and seeds must differ, not {names} by {list(self.seeds)}")
        named = {*self.paper.figures, *(name for claim in self.claims for name in (claim.higher, claim.lower))}
        if unknown := sorted(named - set(names)):
            raise ValueError(f"figures and claims are about {', '.join(unknown)}, but the arms are {', '.join(names)}")
        if "data" in names:
            raise ValueError("no arm can be called data: that is the folder of the subsets")
        if reserved := sorted({"train", "test", "dev", "corpus"} & set(self.subsets)):
            raise ValueError(f"a subset cannot be called {', '.join(reserved)}: that is a file of the whole set")
        return self

    def plan(self, given: Sequence[Override], out: Path, *, source: str) -> list[PlannedRun]:
        """Put together the config of every training.

        Precedence: recipe < the ablation's overrides < the command line < what makes the arm.

        Args:
            given: Settings of the command line, for every arm whose recipe has the key.
            out: The folder of the ablation.
            source: Name of the ablation's file, for messages.

        Returns:
            The trainings in the order in which they are done: every arm by the first seed comes before the second.

        Raises:
            ConfigError: If a recipe is missing, or a key or value is wrong; names arm and key.
        """
        common = [*_overrides(self.overrides, source), *given]
        return [
            PlannedRun(arm.name, seed, *self._configs(arm, seed, common, out, source))
            for seed in self.seeds
            for arm in self.arms
        ]

    def _configs(
        self, arm: ArmSection, seed: int, common: Sequence[Override], out: Path, source: str
    ) -> tuple[TrainConfig | SFTConfig, SampleConfig | None]:
        own = _overrides(arm.overrides, f"{source}: arm {arm.name}")
        data = {"env.id": _SUBSETS_ENV, "env.data": str(out / "data")} if self.subsets else {}
        placed = _overrides({**data, "run.seed": seed}, source)
        if arm.verb == "train":
            files = [find_recipe(name, "train") for name in arm.base or self.base]
            # What nobody knows stays in, so that it is told to be wrong.
            meant = [each for each in common if not _knows(_IMITATION, each) or _knows((TrainConfig,), each)]
            return load_config(TrainConfig, files, [*meant, *own, *placed]), None
        meant = [each for each in common if _knows((SampleConfig,), each)]
        sampling = load_config(SampleConfig, [find_recipe(str(arm.sample), "sample")], [*meant, *placed])
        lengths = {"max_segment_tokens", "max_episode_tokens"}
        sampled = sampling.model_dump(mode="json", include={"env": True, "model": True, "rollout": lengths})
        imitated = _overrides({"sft.trajectories": str(trajectories(out, arm.name, seed))}, source)
        files = [find_recipe(name, "sft") for name in arm.base or ()]
        meant = [each for each in common if _knows((SFTConfig,), each)]
        given = [*meant, *own, *placed, *imitated]
        return load_config(SFTConfig, files, given, base=sampled, base_source=str(arm.sample)), sampling


def trajectories(out: Path, arm: str, seed: int) -> Path:
    """Where the episodes lie that an arm imitates."""
    return out / arm / f"seed{seed}-trajectories"


def _overrides(values: Mapping[str, Any], source: str) -> list[Override]:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return [Override(key=key, value=text, source=source) for key, text in texts.items()]


def _knows(schemas: Sequence[type[BaseModel]], override: Override) -> bool:
    """Whether one of the configs has the key of an override, be it a section or a leaf."""
    key = re.sub(r"\.\d+(?=\.|$)", ".0", override.key)
    known = (name for schema in schemas for name, _ in dotted_keys(schema))
    return any(name == key or name.startswith(f"{key}.") for name in known)
