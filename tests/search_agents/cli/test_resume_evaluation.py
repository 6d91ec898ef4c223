"""`resume` of an evaluation: it goes on where it was stopped, asks again what failed, and mixes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from search_agents.cli import main
from search_agents.engines.scripted import ScriptedEngine, ScriptedSession
from search_agents.engines.transformers import TransformersEngine
from search_agents.methods.skr.encoders import HASHED_WORDS
from search_agents.methods.skr.knn import NeighbourJudge
from search_agents.methods.skr.rule import Label

from search_env.errors import RetrieverUnavailable
from search_env.retrieval.bm25 import BM25Retriever

Captured = pytest.CaptureFixture[str]

SEARCH = " I look it up. <begin_of_query> mayor <end_of_query>"
ANSWER = " So it is her. </think>\n\n<answer> nobody </answer>"
QUESTIONS = 6


class Engine(ScriptedEngine):
    """Searches once, then answers; counts its episodes, and is interrupted at a batch if told."""

    def __init__(self) -> None:
        super().__init__({"": [SEARCH, ANSWER]})
        self.episodes = 0
        self.left = 1000

    def open(self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], max_tokens: int) -> ScriptedSession:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.episodes += len(prompts)
        return super().open(prompts, seeds=seeds, max_tokens=max_tokens)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """What every model folder becomes."""
    made = Engine()
    monkeypatch.setattr(TransformersEngine, "from_pretrained", lambda *_, **__: made)
    return made


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Breaks the search, or mends it."""
    search, broken = BM25Retriever.search, [False]

    def search_if_it_works(self: BM25Retriever, queries: Sequence[str], top_k: int) -> Any:
        if broken[0]:
            raise RetrieverUnavailable("the index is gone")
        return search(self, queries, top_k)

    monkeypatch.setattr(BM25Retriever, "search", search_if_it_works)

    def fail(now: bool) -> None:
        broken[0] = now

    return fail


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def argv(model: Path) -> list[str]:
    """Six questions in batches of two, at two temperatures."""
    return ["eval", "--model", str(model), "--limit", str(QUESTIONS), "--evaluation.batch-size", "2",
            "--evaluation.temperatures", "[0, 1]"]  # fmt: skip


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that an evaluation left, but for times and origin."""
    result = json.loads((folder / "result.json").read_text())
    rows = {
        file.name: [{**json.loads(line), "elapsed": 0} for line in file.read_text().splitlines()]
        for file in folder.glob("transcripts-*.jsonl")
    }
    timeless = [{**row, "seconds": 0, "seconds_per_question": 0} for row in result["results"]]
    return {**result, "origin": 0, "results": timeless, **rows}


def interrupted(argv: Sequence[str], out: Path, engine: Engine, *, after: int) -> None:
    engine.left = after
    assert main([*argv, "--out", str(out)]) == 130
    engine.left = 1000


@pytest.mark.parametrize(("after", "answered"), [(0, 0), (2, 4), (4, 8)])
def test_after_ctrl_c_only_the_rest_is_asked_and_the_outcome_is_the_same(
    argv: list[str], engine: Engine, tmp_path: Path, capsys: Captured, after: int, answered: int
) -> None:
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    out = tmp_path / "out"
    interrupted(argv, out, engine, after=after)
    assert f"interrupted; go on with: search-env resume {out}\n" in capsys.readouterr().err
    assert sum(len(file.read_text().splitlines()) for file in out.glob("*.jsonl")) == answered
    assert not (out / "result.json").exists()
    before = engine.episodes
    assert main(["resume", str(out)]) == 0
    assert engine.episodes - before == 2 * QUESTIONS - answered
    printed = capsys.readouterr().out
    assert "| r1-searcher, temperature 1 |" in printed
    assert printed.splitlines()[-1] == str(out)
    assert outcome(out) == outcome(tmp_path / "whole")
    before = engine.episodes
    assert main(["resume", str(out)]) == 0
    assert "nothing to go on with" in capsys.readouterr().out
    assert engine.episodes == before


def test_an_evaluation_whose_lines_tell_no_tokens_goes_on_and_scores_the_same(
    argv: list[str], engine: Engine, tmp_path: Path
) -> None:
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    out = tmp_path / "out"
    interrupted(argv, out, engine, after=2)
    file = out / "transcripts-0.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    calls = [call for row in rows for turn in row["turns"] for call in turn["calls"]]
    assert calls and all(call.pop("token_ids") and call.pop("logprobs") for call in calls)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["resume", str(out)]) == 0
    assert outcome(out)["results"] == outcome(tmp_path / "whole")["results"]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert ["token_ids" in row["turns"][0]["calls"][0] for row in lines] == [False] * len(rows) + [True] * (
        QUESTIONS - len(rows)
    )


def test_invalid_episodes_are_counted_and_asked_again_by_the_command_that_is_told(
    argv: list[str], engine: Engine, fail: Callable[[bool], None], tmp_path: Path, capsys: Captured
) -> None:
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    assert "episodes are invalid" not in capsys.readouterr().out
    out = tmp_path / "out"
    interrupted(argv, out, engine, after=1)  # two questions are answered
    fail(True)
    assert main(["resume", str(out)]) == 2
    told = "10 of 12 episodes are invalid, for their search failed for good; they are not in the scores. "
    printed = capsys.readouterr()
    assert f"{told}Ask their questions again: search-env resume {out}\n" in printed.out
    assert "there is no score at temperature 1: 10 of 12 episodes are invalid" in printed.err
    rows = json.loads((out / "result.json").read_text())["results"]
    assert [(row["n"], row["invalid"]) for row in rows] == [(2, 4), (0, 6)]
    fail(False)
    before = engine.episodes
    assert main(["resume", str(out)]) == 0
    assert engine.episodes - before == 10
    assert "episodes are invalid" not in capsys.readouterr().out
    assert outcome(out) == outcome(tmp_path / "whole")


def test_an_evaluation_whose_searches_all_failed_has_no_score_and_fails(
    argv: list[str], engine: Engine, fail: Callable[[bool], None], tmp_path: Path, capsys: Captured
) -> None:
    fail(True)
    out = tmp_path / "out"
    assert main([*argv, "--out", str(out)]) == 2
    printed = capsys.readouterr()
    (row,) = [line for line in printed.out.splitlines() if line.startswith("| r1-searcher, temperature 0 ")]
    assert {cell.strip() for cell in row.split("|")[2:-1]} == {"-"}
    assert "0.00" not in printed.out and "0.0%" not in printed.out
    (message,) = [line for line in printed.err.splitlines() if "error" in line]
    assert "no score at temperature 0, 1: 12 of 12 episodes are invalid" in message
    assert message.endswith(f"search-env resume {out}")
    assert main(["score", str(out / "transcripts-0.jsonl"), "--format", "ours"]) == 0
    rescored = capsys.readouterr().out
    assert "0.0" not in rescored and "left out, for their search failed for good: 6" in rescored


def test_another_model_is_refused(
    argv: list[str], engine: Engine, model: Path, tmp_path: Path, capsys: Captured
) -> None:
    interrupted(argv, tmp_path / "out", engine, after=1)
    (model / "config.json").write_text('{"other": 1}')
    before = engine.episodes
    assert main(["resume", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "what is measured differs from what it was started with in: model_fingerprint." in message
    assert "search-env eval --out FOLDER" in message
    assert engine.episodes == before


def train_part(folder: Path, question: str) -> None:
    """A part of SKR that says to search whatever is asked."""
    rows = [{"question": question, "label": Label.BETTER}] * 5
    judge = NeighbourJudge.fit(rows, HASHED_WORDS, neighbours=5, index_same=False)
    judge.save(folder / "knn", encoder=HASHED_WORDS, model=Engine.name)


@pytest.fixture
def with_part(argv: list[str], fail: Callable[[bool], None], engine: Any, tmp_path: Path) -> tuple[Path, Path]:
    """A part, and an evaluation with it that is left to go on with, for its searches failed."""
    part, out = tmp_path / "part", tmp_path / "out"
    train_part(part, "Who?")
    fail(True)
    assert main([*argv, "--method", f"{{name: skr, part: {part}}}", "--out", str(out)]) == 2
    fail(False)
    return part, out


def test_a_part_that_was_trained_anew_is_refused(with_part: tuple[Path, Path], capsys: Captured) -> None:
    part, out = with_part
    train_part(part, "Where?")
    capsys.readouterr()
    assert main(["resume", str(out)]) == 2
    message = capsys.readouterr().err
    assert "what is measured differs from what it was started with in: method_fingerprint. Undo that" in message
    assert json.loads((out / "result.json").read_text())["results"][0]["n"] == 0
    train_part(part, "Who?")
    assert main(["resume", str(out)]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["results"][0]["n"] == QUESTIONS and len(result["method_fingerprint"]) == 16


def test_an_evaluation_of_a_version_that_did_not_keep_the_part_is_gone_on_with(with_part: tuple[Path, Path]) -> None:
    _, out = with_part
    description = json.loads((out / "evaluation.json").read_text())
    del description["method_fingerprint"]
    (out / "evaluation.json").write_text(json.dumps(description))
    assert main(["resume", str(out)]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["results"][0]["n"] == QUESTIONS and "method_fingerprint" not in result


@pytest.mark.parametrize("what", ["dataset_fingerprint", "corpus_fingerprint", "retriever_fingerprint"])
def test_other_questions_and_another_retriever_are_refused(
    argv: list[str], engine: Engine, tmp_path: Path, capsys: Captured, what: str
) -> None:
    out = tmp_path / "out"
    interrupted(argv, out, engine, after=1)
    description = json.loads((out / "evaluation.json").read_text())
    description["environment"][what] = "another"
    (out / "evaluation.json").write_text(json.dumps(description))
    assert main(["resume", str(out)]) == 2
    assert f"in: environment.{what}." in capsys.readouterr().err


def test_settings_may_be_repeated_and_not_changed(
    argv: list[str], engine: Engine, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    interrupted(argv, out, engine, after=1)
    assert main(["resume", str(out), "--evaluation.batch-size", "3", "--seed", "4"]) == 2
    assert (
        "the command line differs from what it was started with in: config.evaluation.batch_size, config.run.seed"
        in (capsys.readouterr().err)
    )
    assert main(["resume", str(out), "--seed", "0", "--evaluation.questions", str(QUESTIONS)]) == 0


def test_an_evaluation_has_no_steps(argv: list[str], engine: Engine, tmp_path: Path, capsys: Captured) -> None:
    interrupted(argv, tmp_path / "out", engine, after=1)
    assert main(["resume", str(tmp_path / "out"), "--max-steps", "9"]) == 2
    assert "--max-steps makes a training longer" in capsys.readouterr().err


def test_a_begun_evaluation_is_not_begun_again_in_its_folder(
    argv: list[str], engine: Engine, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    interrupted(argv, out, engine, after=1)
    capsys.readouterr()
    assert main([*argv, "--out", str(out)]) == 2
    assert f"or go on with the evaluation in it: search-env resume {out}." in capsys.readouterr().err


@pytest.mark.usefixtures("engine")
def test_a_mistake_leaves_no_folder_behind(argv: list[str], tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    mistaken = [*argv, "--rollout.max-segment-tokens", "1", "--rollout.max-episode-tokens", "2", "--out", str(out)]
    assert main(mistaken) == 2
    assert "2 tokens an episode" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("evaluation.json", "{", r"evaluation.json: is not JSON"),
        ("evaluation.json", '{"config": {"learner": 1}}', r"written by another version of search-env"),
        ("transcripts-0.jsonl", "nonsense\n", r"transcripts-0.jsonl: a line is no transcript"),
    ],
)
def test_a_damaged_file_is_one_message(
    argv: list[str], engine: Engine, tmp_path: Path, capsys: Captured, name: str, text: str, message: str
) -> None:
    interrupted(argv, tmp_path / "out", engine, after=1)
    (tmp_path / "out" / name).write_text(text)
    assert main(["resume", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_neither_run_nor_evaluation_is_refused(tmp_path: Path, capsys: Captured) -> None:
    assert main(["resume", str(tmp_path)]) == 2
    assert "config.json is missing" in capsys.readouterr().err


def test_a_comparison_without_a_score_is_not_done(
    engine: Engine, fail: Callable[[bool], None], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--limit", str(QUESTIONS), "--sets", "[{split: test}]", "--methods", "[standard-rag, naive-generation]"]
    argv = ["bench", "methods", "--model", str(model), *asked, "--env.prompt", "base", "--out", str(tmp_path / "out")]
    fail(True)
    assert main(argv) == 2
    assert "there is no score of standard-rag on FictionalWiki-v0-test: every" in capsys.readouterr().err
    fail(False)
    assert main(argv) == 0
