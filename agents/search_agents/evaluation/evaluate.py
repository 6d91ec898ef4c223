"""Held-out evaluation: methods on questions, with everything that a comparison needs to be fair.

All methods of one evaluation share the questions, the corpus, the retriever, the number
of documents and the budgets. An invalid episode is not scored; it is counted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from search_agents.config import EvalConfig, TrainConfig
from search_agents.engines.base import Engine, SamplingParams
from search_agents.evaluation.environments import make_vector_env
from search_agents.evaluation.scorer import Scores, score
from search_agents.evaluation.transcript_log import TranscriptLog, is_valid, transcript_record
from search_agents.methods import Method, MethodSpec, Setting, make_method
from search_env import Dataset
from search_env.retrieval.metering import add_spent
from search_env.types import Question, Transcript

__all__ = ["Evaluation", "HeldOut", "evaluate", "spread"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a method did on some questions."""

    method: str
    scores: Scores
    transcripts: tuple[Transcript, ...]
    """One a question, in order."""
    seconds: float
    note: str = ""
    """What else a reader of the row must know; see `StepwiseMethod.note`."""

    def to_dict(self) -> dict[str, Any]:
        """The scores and their circumstances as plain values; the transcripts are stored beside them.

        What the searches have spent in all is part of it if they have spent anything.
        """
        spent = add_spent(transcript.spending for transcript in self.transcripts)
        return {
            "method": self.method,
            **({"note": self.note} if self.note else {}),
            **self.scores.to_dict(),
            "seconds": round(self.seconds, 3),
            "seconds_per_question": round(self.seconds / max(1, len(self.transcripts)), 4),
            **({"spending": {name: dataclasses.asdict(each) for name, each in spent.items()}} if spent else {}),
        }

    def records(self) -> list[dict[str, Any]]:
        """The transcripts as plain values; see `transcript_record`."""
        return [transcript_record(transcript) for transcript in self.transcripts]


class HeldOut:
    """The questions of an evaluation in their environment: whatever is measured here can be compared.

    Args:
        config: Says which questions, and the budgets.
        data: A dataset that takes the place of the one the config names.

    Raises:
        ConfigError: If a setting is wrong.
        DatasetError: If the data is missing or malformed.
    """

    def __init__(self, config: TrainConfig | EvalConfig, *, data: Dataset | None = None) -> None:
        arguments = {} if data is None else {"data": data}
        evaluation = config.evaluation
        self.env = make_vector_env(config.env, num_envs=evaluation.batch_size, split=evaluation.split, **arguments)
        self.questions = spread(self.env.dataset.questions, evaluation.questions)
        self._config = config

    def measure(self, method: MethodSpec, engine: Engine, *, temperature: float) -> Evaluation:
        """Let a method answer all questions.

        Args:
            method: A method, as a config names it.
            engine: The model.
            temperature: Of its sampling; 0 is greedy.

        Raises:
            ConfigError: If there is no such method, or a budget cannot hold any prompt.
            ModelError: If the prompt style needs a chat template that the model lacks.
        """
        return evaluate(make_method(method, self.setting(engine, temperature=temperature)), self.questions)

    def setting(self, engine: Engine, *, temperature: float) -> Setting:
        """What methods work with here: the environment, and the budgets of the config."""
        rollout = self._config.rollout
        return Setting(
            engine=engine,
            env=self.env,
            sampling=SamplingParams(temperature=temperature, max_tokens=rollout.max_segment_tokens),
            max_tokens=rollout.max_episode_tokens,
            chat=self._config.chat,
            seed=self._config.run.seed,
        )

    @property
    def prompt_hash(self) -> str:
        """Of the words that open an episode, 16 hex digits; a prompt file's name does not tell what it said."""
        prompt = self.env.rules.dialect.prompt("{question}", self.env.rules.style)
        words = json.dumps([prompt.system, prompt.user, prompt.prefill])
        return hashlib.sha256(words.encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What was asked and searched: the part of a score that makes it comparable."""
        dataset = self.env.dataset
        return {
            **self._config.env.model_dump(mode="json"),
            "split": dataset.split,
            "questions": len(self.questions),
            "documents": len(dataset.documents),
            "dataset_fingerprint": dataset.fingerprint,
            "corpus_fingerprint": dataset.corpus_fingerprint,
            "retriever_fingerprint": self.env.retriever.fingerprint,
        }


def evaluate(
    method: Method,
    questions: Sequence[Question],
    log: TranscriptLog | None = None,
    tell: Callable[[Transcript], None] | None = None,
) -> Evaluation:
    """Let a method answer questions, and score it.

    Args:
        method: The method.
        questions: The questions, at least one.
        log: Takes each transcript as soon as its episode has ended. Questions that have a valid one in it are not asked
            again; those whose episode was invalid are, and what that one has spent is added to the new one's.
        tell: Is told each transcript that counts: at first those that the log holds already, then each new one.
    """
    begun, earlier = time.perf_counter(), 0.0 if log is None else log.seconds
    found = {} if log is None else dict(log.transcripts)
    answered = {
        number for number, question in enumerate(questions) if question.id in found and is_valid(found[question.id])
    }
    if tell is not None:
        for number in sorted(answered):
            tell(found[questions[number].id])
    for transcript in method.run(questions, skip=answered):
        id_ = transcript.question.id
        if id_ in found:
            spent = add_spent([found[id_].spending, transcript.spending])
            transcript = dataclasses.replace(transcript, spending=spent)
        found[id_] = transcript
        if log is not None:
            log.append(transcript, earlier + time.perf_counter() - begun)
        if tell is not None:
            tell(transcript)
    if log is not None:
        log.finish(questions)
    transcripts = tuple(found[question.id] for question in questions)
    seconds = earlier + time.perf_counter() - begun
    return Evaluation(
        method=method.name,
        scores=score(transcripts),
        transcripts=transcripts,
        seconds=seconds,
        note=getattr(method, "note", ""),
    )


def spread(questions: Sequence[Question], count: int) -> list[Question]:
    """Choose questions spread evenly over a split, the same ones each time; all of them if there are no more."""
    if count >= len(questions):
        return list(questions)
    return [questions[index * len(questions) // count] for index in range(count)]
