"""What ``search-env sample`` does: play every question several times, and keep the episodes that are right.

Who plays is a model, or the set's own annotation, which has one way to play a question.

Questions are played chunk by chunk, and a chunk is on the disk as soon as it is done. What
is sampled depends on the seed, the question and the number of the attempt alone, and chunks
always hold the same questions, so a sampling that was stopped ends as one that was not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from search_agents.config import EvalConfig, SampleConfig
from search_agents.config.sections import EvaluationSection
from search_agents.engines.base import SamplingParams, TokenEngine
from search_agents.engines.build import make_engine, model_identity
from search_agents.evaluation.evaluate import HeldOut
from search_agents.learning.demonstrations import Demonstrator, is_annotated
from search_agents.learning.encode import prefill_of, tokenizer_fingerprint
from search_agents.learning.progress import make_progress
from search_agents.learning.provenance import describe_origin
from search_agents.learning.rejection import choose, is_right
from search_agents.learning.start import quiet_libraries
from search_agents.learning.trajectories import Outcome, TrajectoryFolder
from search_agents.methods.base import require_sessions
from search_agents.rollout import Episode, Task, derive_seed, play
from search_env.errors import ConfigError, RetrieverUnavailable, SearchEnvError
from search_env.types import Question

__all__ = ["resume_sampling", "sample"]


def sample(config: SampleConfig, *, out: Path, display: str = "auto") -> str:
    """Sample episodes and keep the right ones.

    Args:
        config: Everything about the sampling.
        out: The folder for the episodes, new or empty.
        display: See `search_agents.learning.progress.DISPLAYS`.

    Returns:
        How many episodes were sampled, right and kept, as a line to print.

    Raises:
        ConfigError: If a setting is wrong.
        DatasetError: If the data is missing or malformed.
        ModelError: If the model cannot be used.
        RetrieverUnavailable: If the search failed for good; what is done is kept.
        KeyboardInterrupt: If the user stopped it; its text says how to go on.
    """
    run = _Sampling(config)
    folder = TrajectoryFolder.create(out, run.description, describe_origin())
    try:
        return run.go(folder, display)
    except RetrieverUnavailable:
        raise
    except SearchEnvError:
        folder.remove_if_unused()  # so that the same command works once the mistake is mended
        raise


def resume_sampling(folder: TrajectoryFolder, *, display: str = "auto") -> str:
    """Go on with a sampling; a finished one is left as it is.

    Args:
        folder: The sampling.
        display: See `search_agents.learning.progress.DISPLAYS`.

    Returns:
        See `sample`.

    Raises:
        ConfigError: If questions, retriever or model are not those that it was started with.
        RunError: If a file is damaged.
        SearchEnvError: See `sample`.
    """
    counts = folder.counts()
    if counts is not None:
        return f"The sampling is finished; there is nothing to go on with.\n{_told(counts)}"
    run = _Sampling(folder.config())
    folder.require_same(run.description, "what is sampled")
    return run.go(folder, display)


class _Sampling:
    """One start of a sampling."""

    def __init__(self, config: SampleConfig) -> None:
        torch.set_num_threads(config.run.threads)
        quiet_libraries()
        self._config = config
        asked, slots = config.sampling, config.rollout.num_envs
        self._play = HeldOut(
            EvalConfig(
                env=config.env,
                rollout=config.rollout,
                evaluation=EvaluationSection(split=asked.split, questions=asked.questions, batch_size=slots),
                run=config.run,
            )
        )
        self._annotated = asked.teacher == "annotation"
        self._samples = 1 if self._annotated else asked.samples
        self._engine = self._demonstrator(self._play.questions[:0]) if self._annotated else self._model()
        self._setting = self._play.setting(self._engine, temperature=config.rollout.temperature)
        if self._annotated:
            self._require_annotation()
            room = self._engine.max_context  # it counts bytes; the tokens of whoever imitates it are counted then
            unbounded = SamplingParams(max_tokens=room)
            self._setting = dataclasses.replace(self._setting, sampling=unbounded, max_tokens=room, chat=False)
        self.description = {
            "config": config.model_dump(mode="json"),
            "environment": self._play.describe(),
            "model_fingerprint": None if self._annotated else model_identity(config.model),
            "tokenizer_fingerprint": tokenizer_fingerprint(self._engine.tokenizer),
            "prefill": prefill_of(self._play.env.rules),
        }

    def _model(self) -> TokenEngine:
        return require_sessions(make_engine(self._config.model), "`search-env sample`")

    def _demonstrator(self, questions: Sequence[Question]) -> Demonstrator:
        env = self._play.env
        return Demonstrator(questions, env.retriever, env.rules, top_k=self._config.env.top_k)

    def _require_annotation(self) -> None:
        if not any(map(is_annotated, self._play.questions)):
            raise ConfigError(
                f"no question of {self._config.env.id} ({self._config.sampling.split}) tells how it can be answered: "
                "none has gold_titles, decomposition or evidences. Let a model be the teacher: --sampling.teacher model"
            )

    def go(self, folder: TrajectoryFolder, display: str) -> str:
        """Do all that is left to do."""
        questions = self._play.questions
        size = max(1, self._config.rollout.num_envs // self._samples)
        first = len(folder.outcomes()) // size * size
        folder.rewind(first)
        progress = make_progress(display, len(questions))
        try:
            for start in range(first, len(questions), size):
                self._chunk(folder, questions[start : start + size], start)
                done = folder.outcomes()
                progress.count(len(done), f"{len(done)}/{len(questions)} questions  {_kept(done)}")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"go on with: search-env resume {folder.path}") from None
        finally:
            progress.close()
        return _told(folder.finish())

    def _chunk(self, folder: TrajectoryFolder, questions: Sequence[Question], start: int) -> None:
        """Play the questions, and write what is kept of them."""
        config, setting, samples, seed = self._config, self._setting, self._samples, self._config.run.seed
        tasks = [
            Task(question.id, number, derive_seed(seed, number, attempt))
            for number, question in enumerate(questions, start)
            for attempt in range(samples)
        ]
        try:
            engine = self._demonstrator(questions) if self._annotated else self._engine
            played = play(
                engine, setting.env, tasks, sampling=setting.sampling, max_tokens=setting.max_tokens, chat=setting.chat
            )
            if not all(episode.valid for episode in played):
                raise RetrieverUnavailable("the search failed for good")
        except RetrieverUnavailable as error:
            raise RetrieverUnavailable(
                f"{error}. What was sampled so far is kept: search-env resume {folder.path}"
            ) from error
        groups = [played[place : place + samples] for place in range(0, len(played), samples)]
        kept = [choose(group, config.keep, seed=derive_seed(seed, start + n)) for n, group in enumerate(groups)]
        outcomes = [
            self._outcome(question, group, chosen)
            for question, group, chosen in zip(questions, groups, kept, strict=True)
        ]
        folder.append(outcomes, [episode for chosen in kept for episode in chosen])

    def _outcome(self, question: Question, played: Sequence[Episode], kept: Sequence[Episode]) -> Outcome:
        return Outcome(
            question_id=question.id,
            hops=question.hops,
            sampled=len(played),
            searched=_searched(played),
            right=sum(is_right(episode, self._config.keep) for episode in played),
            kept=len(kept),
            kept_with_search=_searched(kept),
        )


def _searched(episodes: Sequence[Episode]) -> int:
    return sum(episode.metrics["searches"] > 0 for episode in episodes)


def _kept(outcomes: Sequence[Outcome]) -> str:
    sampled, right, kept = (sum(getattr(each, name) for each in outcomes) for name in ("sampled", "right", "kept"))
    return f"{sampled} episodes  right {right}  kept {kept}"


def _told(counts: Mapping[str, int]) -> str:
    return (
        "{questions} questions, {sampled} episodes: {right} right, {kept} kept ({kept_with_search} with a search) "
        "of {questions_with_kept} questions".format_map(counts)
    )
