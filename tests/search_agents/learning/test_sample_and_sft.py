"""`sample` and `sft`: what they leave, that a stop changes nothing in it, and what they refuse."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("torch")

from search_agents.cli import main
from search_agents.engines.scripted import ScriptedEngine, ScriptedSession
from search_agents.engines.transformers import TransformersEngine
from search_agents.learning import trajectories as folder_module
from search_agents.learning.run_folder import RunFolder
from search_agents.learning.trajectories import TrajectoryFolder
from search_agents.models import find_model
from search_agents.rollout import Episode

from search_env.errors import RetrieverUnavailable
from search_env.retrieval.bm25 import BM25Retriever

Captured = pytest.CaptureFixture[str]

PEOPLE = ("Ann", "Ben", "Cas", "Dag", "Eve", "Fay")
SETTINGS: dict[str, Any] = {
    "env": {"id": "SearchQA-HotpotQA-v0", "prompt": "bare", "top_k": 1, "max_searches": 2},
    "rollout": {"max_segment_tokens": 90, "max_episode_tokens": 400},
    "run": {"threads": 1},
}


class Killed(BaseException):
    """Ends a process as abruptly as a test can."""


class Teacher(ScriptedEngine):
    """Searches and is right with two seeds of three; else it guesses. Speaks in bytes, and can be interrupted."""

    left = 1000

    def __init__(self) -> None:
        super().__init__({})

    def open(self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], max_tokens: int) -> ScriptedSession:
        Teacher.left -= 1
        if Teacher.left < 0:
            raise KeyboardInterrupt
        names = [next(name for name in PEOPLE if name in self.tokenizer.decode(prompt)) for prompt in prompts]
        right = [[f" <begin_of_query> {n} <end_of_query>", f"</think><answer> {n}-town </answer>"] for n in names]
        scripts = [good if seed % 3 else ["</think><answer> Rome </answer>"] for good, seed in zip(right, seeds)]  # noqa: B905
        return ScriptedSession(scripts, prompts, max_tokens)


def write_jsonl(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, make_model: Callable[..., Any]) -> Path:
    """A folder with data, a model and the recipes of both verbs."""
    folder = tmp_path_factory.mktemp("recipes")
    documents = [{"id": name, "title": name, "text": f"{name} lives in {name}-town."} for name in PEOPLE]
    asked = [
        {"id": name, "question": f"Where does {name} live?", "answers": [f"{name}-town"], "gold_titles": [name]}
        for name in PEOPLE
    ]
    for name, rows in (("corpus", documents), ("train", asked), ("dev", asked[:2])):
        write_jsonl(folder / f"{name}.jsonl", rows)
    make_model(initializer_range=0.05).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    shared = {**SETTINGS, "env": {**SETTINGS["env"], "data": str(folder)}, "model": {"path": str(folder / "model")}}
    rollout = {**SETTINGS["rollout"], "num_envs": 6}
    sampling = {"split": "train", "questions": 6, "samples": 3}
    (folder / "sample.yaml").write_text(json.dumps({**shared, "rollout": rollout, "sampling": sampling}))
    supervised = {
        "sft": {"epochs": 3},
        "learner": {"lr": 3e-3, "minibatch_size": 4},
        "evaluation": {"split": "dev", "questions": 2, "batch_size": 2, "baselines": False},
        "run": {**SETTINGS["run"], "name": "tiny-sft", "checkpoint_every": 2},
    }
    (folder / "sft.yaml").write_text(json.dumps({**shared, **supervised}))
    return folder


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What every model folder becomes where episodes are sampled."""
    monkeypatch.setattr(TransformersEngine, "from_pretrained", lambda *_, **__: Teacher())
    yield
    Teacher.left = 1000


def quietly(argv: list[str]) -> str:
    with redirect_stdout(io.StringIO()) as printed:
        assert main(argv) == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def sampled(recipes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sampling that was never stopped."""
    out = tmp_path_factory.mktemp("sampled") / "right"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersEngine, "from_pretrained", lambda *_, **__: Teacher())
        printed = quietly(["sample", "--config", str(recipes / "sample.yaml"), "--out", str(out)])
    (out.parent / "printed").write_text(printed)
    return out


@pytest.fixture(scope="module")
def trained(recipes: Path, sampled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supervised run that was never stopped."""
    out = tmp_path_factory.mktemp("trained") / "run"
    printed = quietly(sft(recipes, sampled, out))
    (out.parent / "printed").write_text(printed)
    return out


def sft(recipes: Path, trajectories: Path, out: Path, *more: str) -> list[str]:
    argv = ["sft", "--config", str(recipes / "sft.yaml"), "--trajectories", str(trajectories), "--out", str(out)]
    return [*argv, *more]


def left_by_sampling(folder: Path) -> dict[str, Any]:
    """Everything that a sampling left, but for its origin."""
    description = json.loads((folder / "sampling.json").read_text())
    texts = {name: (folder / name).read_text() for name in ("trajectories.jsonl", "questions.jsonl")}
    return {**description, "origin": 0, **texts}


def left_by_training(run: Path) -> dict[str, Any]:
    """Everything that a run left, but for times."""
    rows = read_jsonl(run / "metrics.jsonl")
    return {
        "metrics": [{k: v for k, v in row.items() if k not in ("seconds", "elapsed", "learn_seconds")} for row in rows],
        "weights": (run / "model" / "model.safetensors").read_bytes(),
        "transcripts": {file.name: file.read_text() for file in (run / "evaluations").glob("*.jsonl")},
        "checkpoints": sorted(folder.name for folder in (run / "checkpoints").iterdir()),
    }


def test_a_sampling_keeps_what_is_right_and_counts_what_it_threw_away(sampled: Path) -> None:
    episodes = [Episode.from_json(line) for line in (sampled / "trajectories.jsonl").read_text().splitlines()]
    questions = read_jsonl(sampled / "questions.jsonl")
    description = json.loads((sampled / "sampling.json").read_text())
    assert [row["question_id"] for row in questions] == list(PEOPLE)
    assert all(episode.metrics["em"] == 1 and episode.action_mask.any() for episode in episodes)
    counts = description["counts"]
    assert counts["sampled"] == 18 and 0 < counts["right"] < 18
    assert counts["kept"] == counts["right"] == counts["kept_with_search"] == counts["searched"] == len(episodes)
    assert description["environment"]["dataset_fingerprint"] and description["model_fingerprint"]
    lines = (sampled.parent / "printed").read_text().splitlines()
    assert f"{counts['right']} right, {counts['kept']} kept" in lines[-2]
    assert lines[-1] == str(sampled)


def test_an_annotated_set_can_be_the_teacher_and_is_imitated_in_the_tokens_of_the_model(
    recipes: Path, tmp_path: Path
) -> None:
    settings = ["--sampling.teacher", "annotation", "--out", str(tmp_path / "shown")]
    printed = quietly(["sample", "--config", str(recipes / "sample.yaml"), *settings])
    assert "6 questions, 6 episodes: 6 right, 6 kept (6 with a search) of 6 questions" in printed
    described = json.loads((tmp_path / "shown" / "sampling.json").read_text())
    assert described["config"]["sampling"]["teacher"] == "annotation" and described["model_fingerprint"] is None
    quietly(sft(recipes, tmp_path / "shown", tmp_path / "run", "--sft.epochs", "1"))
    imitated = json.loads((tmp_path / "run" / "summary.json").read_text())["imitated"]
    assert (imitated["episodes"], imitated["too_long"], imitated["encoded_again"]) == (6, 0, True)


def test_a_set_without_annotation_cannot_be_the_teacher(recipes: Path, tmp_path: Path, capsys: Captured) -> None:
    shutil.copytree(recipes, tmp_path / "plain")
    rows = read_jsonl(recipes / "train.jsonl")
    write_jsonl(tmp_path / "plain" / "train.jsonl", [{**row, "gold_titles": []} for row in rows])
    settings = ["--data", str(tmp_path / "plain"), "--sampling.teacher", "annotation", "--out", str(tmp_path / "shown")]
    assert main(["sample", "--config", str(recipes / "sample.yaml"), *settings]) == 2
    assert "no question of SearchQA-HotpotQA-v0 (train) tells how it can be answered" in capsys.readouterr().err


def test_when_the_search_of_annotated_ways_fails_what_is_done_is_kept(
    recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    search = BM25Retriever.search

    def failing(retriever: BM25Retriever, queries: Sequence[str], top_k: int) -> Any:
        if (out / "questions.jsonl").exists() and len(read_jsonl(out / "questions.jsonl")) == 2:
            raise RetrieverUnavailable("no answer")
        return search(retriever, queries, top_k)

    out = tmp_path / "shown"
    argv = ["sample", "--config", str(recipes / "sample.yaml"), "--sampling.teacher", "annotation", "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(BM25Retriever, "search", failing)
        assert main([*argv, "--rollout.num-envs", "2"]) == 2
    assert f"no answer. What was sampled so far is kept: search-env resume {out}" in capsys.readouterr().err
    assert len(read_jsonl(out / "questions.jsonl")) == 2
    assert "6 right, 6 kept" in quietly(["resume", str(out)])


def test_a_sampling_that_is_killed_and_interrupted_and_resumed_ends_as_if_it_had_not_been(
    recipes: Path, sampled: Path, tmp_path: Path, teacher: None, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    out, append, calls = tmp_path / "right", folder_module._append, []

    def killed_between_the_files(file: Path, lines: Sequence[str]) -> None:
        calls.append(file)
        if len(calls) == 4:  # the second chunk's episodes are written, its questions are not
            raise Killed
        append(file, lines)

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_append", killed_between_the_files)
        with pytest.raises(Killed):
            main(["sample", "--config", str(recipes / "sample.yaml"), "--out", str(out)])
    with (out / "questions.jsonl").open("a") as stream:
        stream.write('{"question_id": "Ca')  # a line that the stop cut short
    Teacher.left = 1
    assert main(["resume", str(out)]) == 130
    assert f"search-env resume {out}" in capsys.readouterr().err
    Teacher.left = 1000
    assert main(["resume", str(out), "--config", str(recipes / "sample.yaml")]) == 0
    assert left_by_sampling(out) == left_by_sampling(sampled)
    before = left_by_sampling(out)
    assert main(["resume", str(out)]) == 0
    assert "nothing to go on with" in capsys.readouterr().out
    assert left_by_sampling(out) == before


def test_when_the_search_fails_what_is_done_is_kept_and_the_rest_is_sampled_later(
    recipes: Path, sampled: Path, tmp_path: Path, teacher: None, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    out, search = tmp_path / "right", BM25Retriever.search

    def search_that_fails(self: BM25Retriever, queries: Sequence[str], top_k: int) -> Any:
        if any("Dag" in query for query in queries):
            raise RetrieverUnavailable("the index is gone")
        return search(self, queries, top_k)

    with monkeypatch.context() as patch:
        patch.setattr(BM25Retriever, "search", search_that_fails)
        assert main(["sample", "--config", str(recipes / "sample.yaml"), "--out", str(out)]) == 2
    assert "search-env resume" in capsys.readouterr().err
    assert len(read_jsonl(out / "questions.jsonl")) == 2
    assert main(["resume", str(out)]) == 0
    assert left_by_sampling(out) == left_by_sampling(sampled)


def test_a_sampling_is_not_gone_on_with_under_another_rule(sampled: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["resume", str(sampled), "--keep.min-searches", "2"]) == 2
    assert "config.keep.min_searches" in capsys.readouterr().err


def test_a_supervised_run_leaves_a_run_folder(trained: Path, sampled: Path) -> None:
    kept = json.loads((sampled / "sampling.json").read_text())["counts"]["kept"]
    per_epoch = -(-kept // 4)
    rows = read_jsonl(trained / "metrics.jsonl")
    assert [row["stage"] for row in rows] == [f"epoch{n}" for n in (1, 2, 3) for _ in range(per_epoch)]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert sum(row["trained_tokens"] for row in rows[:per_epoch]) == sum(
        row["trained_tokens"] for row in rows[-per_epoch:]
    )
    summary = json.loads((trained / "summary.json").read_text())
    assert {"before", "after", "floors"} <= summary.keys()
    imitated = summary["imitated"]
    assert imitated["episodes"] == imitated["with_search"] == kept
    assert imitated["encoded_again"] is True, "the teacher spoke in bytes"
    assert imitated["imitated_tokens"] < imitated["tokens"]
    assert not (trained / "episodes").exists()
    assert "Loss" in (trained / "report.html").read_text() and (trained / "plots" / "training.svg").is_file()
    lines = (trained.parent / "printed").read_text().splitlines()
    assert lines[-1] == str(trained)
    assert any(line.startswith("| search agent, trained ") for line in lines)


def test_its_model_is_taken_wherever_a_run_is(trained: Path, recipes: Path, tmp_path: Path, capsys: Captured) -> None:
    assert find_model(str(trained)) == str(trained / "model")
    argv = ["eval", "--model", str(trained), "--evaluation.split", "dev", "--limit", "2", "--out", str(tmp_path / "e")]
    assert main(argv) == 0
    assert json.loads((tmp_path / "e" / "result.json").read_text())["environment"]["prompt"] == "bare"
    capsys.readouterr()
    asked = ["--env.id", "SearchQA-Custom-v0", "--data", str(recipes), "--evaluation.split", "dev"]
    assert main(["train", "--model", str(trained), *asked, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["path"] == str(trained)


def test_a_supervised_run_that_is_killed_and_interrupted_and_resumed_ends_as_if_it_had_not_been(
    trained: Path, recipes: Path, sampled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    out, append = tmp_path / "run", RunFolder.append_metrics

    def stopped_at(step: int, stop: Callable[[], None]) -> Callable[..., None]:
        def append_and_stop(folder: RunFolder, row: dict[str, Any]) -> None:
            append(folder, row)
            if row["step"] == step:
                stop()

        return append_and_stop

    def kill() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_metrics", stopped_at(3, kill))
        with pytest.raises(Killed):
            main(sft(recipes, sampled, out))
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_metrics", stopped_at(5, lambda: os.kill(os.getpid(), signal.SIGINT)))
        assert main(["resume", str(out)]) == 130
    told = capsys.readouterr()
    assert "going on after step 2" in told.out
    assert f"search-env resume {out}" in told.err
    assert main(["resume", str(out), "--learner.lr", "3e-3"]) == 0
    assert left_by_training(out) == left_by_training(trained)


def test_what_it_imitates_is_in_its_own_tokens_and_short_enough(
    recipes: Path, sampled: Path, tmp_path: Path, capsys: Captured
) -> None:
    short = ["--rollout.max-segment-tokens", "20", "--rollout.max-episode-tokens", "30"]
    assert main(sft(recipes, sampled, tmp_path / "run", *short)) == 2
    err = capsys.readouterr().err
    assert "more than rollout.max_episode_tokens = 30 tokens. Write --rollout.max-episode-tokens" in err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def damaged(sampled: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the sampling that something has been done to."""

    def copy(**changes: Any) -> Path:
        copied = tmp_path / "copied"
        shutil.copytree(sampled, copied)
        file = copied / "sampling.json"
        description = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({key: value for key, value in description.items() if value is not None}))
        return copied

    return copy


def refusal(recipes: Path, trajectories: Path, out: Path, capsys: Captured, *more: str) -> str:
    assert main(sft(recipes, trajectories, out, *more)) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert not out.exists(), "the mended command must find its folder free"
    return err


def test_a_folder_that_holds_no_finished_sampling_is_refused(
    recipes: Path, damaged: Callable[..., Path], tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "run"
    assert main(["sft", "--out", str(out)]) == 2
    assert "--trajectories FOLDER" in capsys.readouterr().err
    assert "does not exist. Give a folder that `search-env sample`" in refusal(recipes, tmp_path / "x", out, capsys)
    assert "sampling.json is missing" in refusal(recipes, recipes, out, capsys)
    unfinished = damaged(counts=None)
    assert f"not finished. Go on with: search-env resume {unfinished}" in refusal(recipes, unfinished, out, capsys)


def test_a_sampling_that_kept_nothing_or_was_damaged_is_refused(
    recipes: Path, sampled: Path, damaged: Callable[..., Path], tmp_path: Path, capsys: Captured
) -> None:
    out, counts = tmp_path / "run", json.loads((sampled / "sampling.json").read_text())["counts"]
    folder = damaged()
    lines = (folder / "trajectories.jsonl").read_text().splitlines(keepends=True)
    (folder / "trajectories.jsonl").write_text("".join(lines[:-1]))
    assert f"holds {len(lines) - 1} episodes, but {len(lines)} were kept" in refusal(recipes, folder, out, capsys)
    (folder / "trajectories.jsonl").write_text('{"question_id": 1}\n')
    assert "a line is no episode" in refusal(recipes, folder, out, capsys)
    (folder / "trajectories.jsonl").write_text("")
    description = json.loads((folder / "sampling.json").read_text())
    (folder / "sampling.json").write_text(json.dumps({**description, "counts": {**counts, "kept": 0}}))
    assert "has kept none of 18 episodes: nothing to imitate" in refusal(recipes, folder, out, capsys)


def test_another_dialect_or_another_end_of_the_prompt_is_refused(
    recipes: Path, sampled: Path, damaged: Callable[..., Path], tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "run"
    spoken = refusal(recipes, sampled, out, capsys, "--env.dialect", "search-r1")
    assert "Write --env.dialect r1-searcher." in spoken
    assert "go on from '<thought>'. Write --env.prompt bare" in refusal(
        recipes, damaged(prefill="<thought>"), out, capsys
    )


def test_trajectories_that_changed_since_the_run_was_started_are_refused(
    recipes: Path, damaged: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    folder, out, append = damaged(), tmp_path / "run", RunFolder.append_metrics

    def interrupted(run: RunFolder, row: dict[str, Any]) -> None:
        append(run, row)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_metrics", interrupted)
        assert main(sft(recipes, folder, out)) == 130
    lines = (folder / "trajectories.jsonl").read_text().splitlines(keepends=True)
    (folder / "trajectories.jsonl").write_text("".join(reversed(lines)))
    assert main(["resume", str(out)]) == 2
    assert "not those that the run was started with" in capsys.readouterr().err


def test_a_folder_in_use_is_refused(sampled: Path, recipes: Path, capsys: Captured) -> None:
    assert main(["sample", "--config", str(recipes / "sample.yaml"), "--out", str(sampled)]) == 2
    assert f"search-env resume {sampled}" in capsys.readouterr().err
    assert TrajectoryFolder.open(sampled).counts() is not None
