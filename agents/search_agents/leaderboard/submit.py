"""From finished evaluations to rows: what ``search-env leaderboard add`` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search_agents.config.schema import EvalConfig
from search_agents.evaluation.evaluation_folder import EvaluationFolder
from search_agents.evaluation.evaluation_run import is_whole
from search_agents.evaluation.judge import judges_of
from search_agents.leaderboard.board import Candidate
from search_agents.leaderboard.measure import judge_named, judgements_of, measure, read_episodes
from search_agents.leaderboard.questions import is_here, problem_of_questions
from search_agents.leaderboard.row import AgentPart, Benchmark, Measured, ModelPart, Row, SettingPart, portable
from search_agents.leaderboard.wording import wording_hash
from search_agents.methods import method_key
from search_env.errors import RunError
from search_env.types import Transcript

__all__ = ["candidates", "evaluations_in"]

Json = Mapping[str, Any]

_STORED = {"f1": "f1", "em": "em", "cem": "acc_r", "cem_contiguous": "cem"}


def evaluations_in(path: Path) -> tuple[list[EvaluationFolder], list[Path]]:
    """The evaluations of a folder.

    Args:
        path: The folder of one evaluation, or of a comparison of many.

    Returns:
        Those that are finished, and the folders of those that are not.

    Raises:
        RunError: If there is none that is finished.
    """
    alone = EvaluationFolder.is_at(path)
    places = [path] if alone else sorted(file.parent for file in path.rglob("evaluation.json"))
    if not places:
        raise RunError(f"{path} holds no evaluation. Give a folder of `search-env eval` or `search-env bench methods`.")
    folders = [EvaluationFolder.open(place) for place in places]
    finished = [folder for folder in folders if (result := folder.result()) is not None and is_whole(result)]
    if not finished:
        go_on = f"search-env resume {path}" if alone else "the same `search-env bench` again"
        raise RunError(f"{path}: no evaluation in it has come to its end. Go on with it: {go_on}")
    return finished, [folder.path for folder in folders if folder not in finished]


def candidates(folder: EvaluationFolder, *, judge: str | None = None, data: Sequence[str] = ()) -> Iterator[Candidate]:
    """The rows of a finished evaluation, one for each temperature, scored anew from its episodes.

    Args:
        folder: The evaluation.
        judge: Whose judgements count; None takes those of the only judge.
        data: Where data of sets lies. Where the set is in none of it, the evaluation's own data is taken.

    Raises:
        ConfigError: If several judges have judged and none is named, or the config is of another version.
        RunError: If the evaluation's own scores are not those of its episodes, or their gold answers not those of the
            set; names the folder.
    """
    result = folder.result() or {}
    config = folder.config()
    for scores in result["results"]:
        file = folder.path / f"transcripts-{scores['temperature']:g}.jsonl"
        transcripts = read_episodes(file)
        judgements = judgements_of(file, transcripts, judge_named(file, transcripts, judge))
        measured = measure(file, transcripts, judgements)
        _require_same_scores(file, scores, measured)
        by = None if measured.scores.acc_l is None else next(iter(judges_of(judgements)), None)
        row = _row(result, config, scores, measured, transcripts, by)
        own = config.env.data
        # What is named is asked first and alone: the evaluation's own data agrees with its episodes, forged or not.
        problem = problem_of_questions(row.benchmark, transcripts, data)
        if problem is None and own is not None and is_here(own):
            problem = problem_of_questions(row.benchmark, transcripts, [own])
        if problem:
            raise RunError(f"{file}: {problem}. The row is refused; evaluate anew with `search-env eval`.")
        yield Candidate(row=row, episodes=file, judgements=judgements)


def _row(
    result: Json, config: EvalConfig, scores: Json, measured: Measured, transcripts: list[Transcript], judge: str | None
) -> Row:
    environment, origin = result["environment"], result.get("origin", {})
    asks = result["model"] is not None
    return Row(
        benchmark=Benchmark(
            environment=environment["id"],
            data=portable(environment["data"]),
            split=environment["split"],
            questions=measured.episodes,
            dataset_hash=environment["dataset_fingerprint"],
            questions_hash=measured.questions_hash,
        ),
        setting=SettingPart(
            corpus_hash=environment["corpus_fingerprint"],
            documents=environment["documents"],
            retriever=portable(environment["retriever"]),
            retriever_fingerprint=environment["retriever_fingerprint"],
            k=environment["top_k"],
            **{key: environment[key] for key in ("max_searches", "max_turns", "max_chars")},
            max_segment_tokens=config.rollout.max_segment_tokens,
            max_episode_tokens=config.rollout.max_episode_tokens,
        ),
        agent=AgentPart(
            name=method_key(config.method),
            method=portable(config.method),
            fingerprint=result.get("method_fingerprint"),
            dialect=environment["dialect"],
            prompt=portable(environment["prompt"]),
            # A method that words its own prompts tells them call by call; others read the environment's.
            prompt_hash=(wording_hash(transcripts) or origin.get("prompt_hash")) if asks else None,
            temperature=scores["temperature"],
            note=scores.get("note", ""),
        ),
        model=ModelPart(name=portable(result["model"]), fingerprint=result["model_fingerprint"]) if asks else None,
        seed=config.run.seed,
        judge=judge,
        cost=measured.cost,
        scores=measured.scores,
        episodes_hash=measured.episodes_hash,
        versions=origin.get("versions", {}),
        commit=origin.get("commit"),
        evaluated=origin.get("started"),
    )


def _require_same_scores(file: Path, stored: Json, found: Measured) -> None:
    differing = [
        f"{key} is {stored[key]:.4f} in result.json and {getattr(found.scores, name):.4f} in the episodes"
        for key, name in _STORED.items()
        if key in stored and abs(stored[key] - getattr(found.scores, name)) > 1e-4
    ]
    if stored["n"] != found.episodes:
        differing.append(f"n is {stored['n']} in result.json, and there are {found.episodes} episodes")
    if differing:
        raise RunError(f"{file}: {'; '.join(differing)}. The row is refused; evaluate anew with `search-env eval`.")
