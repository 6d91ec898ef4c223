"""One row of a leaderboard: who answered which questions under which setting, at what cost, how well.

A row is a JSON file. It names everything that makes two rows comparable by content, never
by path: what a name on somebody's disk means is nobody else's business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from search_env.errors import RunError

__all__ = [
    "SCHEMA_VERSION",
    "AgentPart",
    "Benchmark",
    "Cost",
    "Measured",
    "ModelPart",
    "Row",
    "RowScores",
    "SettingPart",
    "digest",
    "portable",
    "read_row",
]

SCHEMA_VERSION: Final = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Benchmark(_Part):
    """The questions."""

    environment: str
    """Registered id of the environment."""
    data: str | None
    """Its data as the evaluation named it; of an absolute path the last part."""
    split: str
    questions: PositiveInt
    dataset_hash: str
    """Of all questions and documents of the split."""
    questions_hash: str
    """Of the questions that were asked: ids, texts and gold answers, as the stored episodes hold them."""


class SettingPart(_Part):
    """What was searched, and within which budgets."""

    corpus_hash: str | None
    """None if the retriever has documents of its own."""
    documents: NonNegativeInt
    retriever: str | dict[str, Any]
    """The spec."""
    retriever_fingerprint: str
    """Of engine, settings and index."""
    k: PositiveInt
    """Documents of one search."""
    max_searches: NonNegativeInt
    max_turns: PositiveInt
    max_chars: PositiveInt
    max_segment_tokens: PositiveInt
    max_episode_tokens: PositiveInt


class AgentPart(_Part):
    """Who answered."""

    name: str
    """Name of the method, with its options."""
    method: str | dict[str, Any]
    """The method as a config names it."""
    fingerprint: str | None = None
    """Of the method's trained part; None if it has none, or an older version of search-env did not keep it."""
    dialect: str
    prompt: str
    """Wording of the environment's prompt."""
    prompt_hash: str | None
    """Of the words that a method puts around questions and passages, as the episodes hold them (see
    `search_agents.leaderboard.wording`); else of the environment's prompt; None if no model was asked, or an older
    version of search-env kept neither. In rows of earlier versions it covers the first question and its passages."""
    temperature: NonNegativeFloat
    note: str = ""


class ModelPart(_Part):
    """The language model of the agent."""

    name: str
    fingerprint: str | None


class Cost(_Part):
    """Means over the questions; all of it is computed from the episodes."""

    searches: NonNegativeFloat
    calls: NonNegativeFloat
    """Of the model."""
    read_tokens: NonNegativeFloat | None
    written_tokens: NonNegativeFloat | None
    """None, like those that were read, if a server did not tell."""
    seconds: NonNegativeFloat | None
    """Wall-clock time of the whole evaluation over its questions; None if the episodes do not tell."""
    money: NonNegativeFloat | None
    """Price of searches and model; None if the model's is not known. Rows of earlier versions count the searches."""
    search_money: NonNegativeFloat | None = None
    """Price of the searches, in the currency of the retriever's settings."""
    model_money: NonNegativeFloat | None = None
    """Price of the model's calls, in USD; 0 for a model that nobody charges for."""


class RowScores(_Part):
    """Answer metrics in [0, 1], in the normalisation of R1-Searcher."""

    f1: float
    em: float
    acc_r: float
    """Every word of a gold answer is in the answer."""
    cem: float
    """A gold answer is a piece of the answer."""
    acc_l: float | None
    """Share of answers that the judge holds to be right; None unless all are judged."""
    intervals: dict[str, tuple[float, float]]
    """95 % bootstrap interval of each metric."""


class Measured(_Part):
    """What the stored episodes say: everything that is computed again before a row is shown."""

    questions_hash: str
    episodes: PositiveInt
    episodes_hash: str
    """SHA-256 of the episodes, uncompressed."""
    scores: RowScores
    cost: Cost


class Row(_Part):
    """One row. Its file and that of its episodes carry the same name."""

    schema_version: Literal[1] = SCHEMA_VERSION
    benchmark: Benchmark
    setting: SettingPart
    agent: AgentPart
    model: ModelPart | None
    """None for an agent that asks no model."""
    seed: NonNegativeInt
    judge: str | None
    """Who gave the verdicts of ACC_L."""
    cost: Cost
    scores: RowScores
    episodes_hash: str
    versions: dict[str, str | None]
    commit: str | None
    evaluated: str | None = Field(description="When the evaluation began, UTC.")

    def identity(self) -> dict[str, Any]:
        """What the row is about, apart from what came out: two rows of one identity are the same experiment."""
        untold = {"fingerprint"} if self.agent.fingerprint is None else set()  # so that older rows keep their names
        return {
            "benchmark": self.benchmark.model_dump(exclude={"data"}),
            "setting": self.setting.model_dump(exclude={"retriever", "documents"}),
            "agent": self.agent.model_dump(exclude={"prompt_hash", "note", *untold}),
            "model": self.model and (self.model.fingerprint or self.model.name),
            "seed": self.seed,
        }

    def measured(self) -> Measured:
        """What the row says of its episodes."""
        return Measured(
            questions_hash=self.benchmark.questions_hash,
            episodes=self.benchmark.questions,
            episodes_hash=self.episodes_hash,
            scores=self.scores,
            cost=self.cost,
        )

    def text(self) -> str:
        """The content of its file."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_row(file: Path) -> Row:
    """Read a row.

    Raises:
        RunError: If the file is no row of this version; names file and key.
    """
    try:
        return Row.model_validate_json(file.read_bytes())
    except OSError as error:
        raise RunError(f"{file}: cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}"
            for each in error.errors(include_url=False)
        ]
        raise RunError(
            f"{file}: is no row of a leaderboard (schema version {SCHEMA_VERSION}): {'; '.join(problems)}. "
            "Write it anew: search-env leaderboard add EVALUATION --board BOARD --replace"
        ) from None


def digest(value: Any) -> str:
    """SHA-256 of a plain value, 64 hex digits; the order of keys does not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def portable(value: Any) -> Any:
    """A setting without the folders of somebody's disk: of every absolute path the last part."""
    if isinstance(value, Mapping):
        return {key: portable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [portable(each) for each in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value
