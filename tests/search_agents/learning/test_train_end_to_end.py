"""Whole runs on a tiny random model: what a run leaves, and that a stop changes nothing in it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("torch")

import torch
from search_agents.cli import main
from search_agents.learning import train as driver
from search_agents.learning.run_folder import RunFolder

Captured = pytest.CaptureFixture[str]

PEOPLE = ("Ann", "Ben", "Cas", "Dag", "Eve", "Fay")
SETTINGS: dict[str, Any] = {
    "env": {"id": "SearchQA-HotpotQA-v0", "prompt": "bare", "top_k": 1, "max_searches": 2},
    "rollout": {"max_segment_tokens": 12, "max_episode_tokens": 120, "num_envs": 8},
    "learner": {"lr": 1e-3, "prompts_per_batch": 2, "group_size": 4, "minibatch_size": 4},
    "stages": [
        {"name": "stage1", "reward": "stage1", "max_steps": 2},
        {"name": "stage2", "reward": "stage2", "max_steps": 2},
    ],
    "evaluation": {"split": "dev", "questions": 4, "batch_size": 4, "temperatures": [1.0, 0.0]},
    "run": {"name": "tiny", "checkpoint_every": 1, "keep_checkpoints": 2, "sampled_groups": 1, "threads": 1},
}


def write_jsonl(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    documents = [{"id": name, "title": name, "text": f"{name} lives in {name[0]}-town."} for name in PEOPLE]
    questions = [
        {
            "id": name,
            "question": f"Where does {name} live?",
            "answers": ["the"],
            "type": "single",
            "gold_titles": [name],
        }
        for name in PEOPLE
    ]
    for name, rows in (("corpus", documents), ("train", questions), ("dev", questions)):
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def recipe(
    tmp_path_factory: pytest.TempPathFactory, data: Path, tokenizer: Any, make_model: Callable[..., Any]
) -> Path:
    """A recipe whose model is random, but likes to write the protocol's tags, so that rewards differ."""
    folder = tmp_path_factory.mktemp("recipe")
    model = make_model(initializer_range=0.05)
    tags = tokenizer.convert_tokens_to_ids(["</think>", "<answer>", "</answer>", "<begin_of_query>", "<end_of_query>"])
    with torch.no_grad():
        # Embeddings that share a direction make every hidden state point in it; so does the bias towards the tags.
        model.model.embed_tokens.weight += 1.0
        model.lm_head.weight[tags] += 5.0 / model.config.hidden_size
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    settings = {**SETTINGS, "env": {**SETTINGS["env"], "data": str(data)}, "model": {"path": str(folder / "model")}}
    (folder / "tiny.yaml").write_text(json.dumps(settings))
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with redirect_stdout(io.StringIO()) as printed:
        assert main(["train", "--config", str(recipe), "--out", str(out)]) == 0
    (out.parent / "printed").write_text(printed.getvalue())
    return out


def outcome(run: Path) -> dict[str, Any]:
    """All that a run leaves, without the times."""
    timeless = {"seconds", "elapsed", "sample_seconds", "learn_seconds"}
    rows = [
        {key: value for key, value in row.items() if key not in timeless} for row in read_jsonl(run / "metrics.jsonl")
    ]
    return {
        "metrics": rows,
        "weights": (run / "model" / "model.safetensors").read_bytes(),
        "episodes": {file.name: file.read_text() for file in (run / "episodes").iterdir()},
        "transcripts": {file.name: file.read_text() for file in (run / "evaluations").glob("*.jsonl")},
        "checkpoints": sorted(folder.name for folder in (run / "checkpoints").iterdir()),
    }


def test_a_run_leaves_all_that_is_promised(finished: Path) -> None:
    names = {"config.json", "meta.json", "metrics.jsonl", "examples.md", "report.html", "summary.json"}
    assert names | {"model", "plots", "tensorboard", "episodes", "checkpoints", "evaluations"} == {
        path.name for path in finished.iterdir()
    }
    assert {path.name for path in (finished / "plots").iterdir()} == {
        "training.png", "training.svg", "comparison.png", "comparison.svg",
    }  # fmt: skip
    rows = read_jsonl(finished / "metrics.jsonl")
    assert [(row["step"], row["stage"]) for row in rows] == [(1, "stage1"), (2, "stage1"), (3, "stage2"), (4, "stage2")]
    assert any(row["grad_norm"] > 0 for row in rows), (
        "the fixture's rewards must differ for the other tests to say anything"
    )
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["step_000003", "step_000004"]
    assert not [path for path in finished.rglob("*") if path.suffix in (".pkl", ".pt", ".bin", ".tmp")]


def test_the_summary_has_the_promised_keys_and_figures(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    for name in (
        "before",
        "stage1",
        "after",
        "rag",
        "rag_before",
        "forced_query",
        "closed_book_before",
        "closed_book_after",
        "oracle",
        "random",
    ):
        for key in ("f1", "em", "search_rate", "format_rate", "searches_per_question", "by_kind", "by_hops"):
            assert key in summary[name], (name, key)
    assert summary["rag"] == summary["rag_after"]
    assert summary["rag"]["method"] == "standard-rag"
    assert summary["rag"]["searches_per_question"] == 1.0
    assert summary["seed"] == 0
    assert summary["seconds"] > 0
    assert set(summary["temperatures"]["0"]) == {"before", "stage1", "after"}
    assert summary["floors"]["majority_answer"]["em"] == 1.0
    assert summary["question_as_query_recall"]["all_gold_rate"] == 1.0
    assert summary["steps"] == {"stage1": 2, "stage2": 2}
    assert summary["environment"]["retriever_fingerprint"].startswith("bm25-")


def test_the_report_shows_curves_floors_and_the_samples_of_each_step(finished: Path, tmp_path: Path) -> None:
    page = (finished / "report.html").read_text()
    payload = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    curves = {curve["key"]: curve for panel in payload["panels"] for curve in panel["curves"]}
    rows = read_jsonl(finished / "metrics.jsonl")
    assert curves["reward"]["mean"] == [row["reward"] for row in rows]
    assert {"f1", "searches_per_question", "response_tokens", "kl", "entropy", "format_rate"} <= curves.keys()
    assert payload["runs"][0]["bounds"] == [{"place": 2.5, "stage": "stage2"}] and payload["runs"][0]["finished"]
    evaluated = [row[0] for row in payload["tables"][0]["rows"]]
    assert {"search agent, trained", "search agent, trained, temperature 0", "floor: random answer"} <= {*evaluated}
    assert [step["step"] for step in payload["samples"][0]] == [1, 2, 3, 4]
    assert main(["report", str(finished), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text() == page


def test_the_scalars_of_every_step_and_evaluation_are_there_for_tensorboard(finished: Path) -> None:
    (file,) = (finished / "tensorboard").iterdir()
    told = file.read_bytes()
    assert told.count(b"train/reward") >= 4 and told.count(b"evaluation-t1/f1") == 3 == told.count(b"evaluation-t0/f1")


def test_the_sampled_episodes_are_the_best_and_worst_of_a_group(finished: Path) -> None:
    for step, row in enumerate(read_jsonl(finished / "metrics.jsonl"), start=1):
        episodes = read_jsonl(finished / "episodes" / f"step_{step:06d}.jsonl")
        assert 1 <= len(episodes) <= 2
        assert episodes[0]["reward"] >= episodes[-1]["reward"]
        prompt, *others = episodes[0]["segments"]
        assert (prompt["kind"], prompt["text"]) == ("prompt", f"Question: {episodes[0]['question']}\n<think>")
        assert prompt["token_ids"] and not prompt["logprobs"]
        assert all(len(each["token_ids"]) == len(each["logprobs"]) for each in others if each["kind"] == "sampled")
        assert episodes[0]["transcript"]["question"]["id"] == episodes[0]["question_id"]
        assert sum(episodes[0]["reward_parts"].values()) == pytest.approx(episodes[0]["reward"])
        assert row["step"] == step


def test_the_trained_model_can_be_evaluated_with_its_protocol(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    argv = [
        "eval",
        "--model",
        str(finished),
        "--evaluation.split",
        "dev",
        "--limit",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(argv) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    described = result["environment"]
    assert (described["id"], described["prompt"], described["split"]) == ("SearchQA-HotpotQA-v0", "bare", "dev")


def test_a_run_shows_each_step_and_the_final_tables_and_last_of_all_its_folder(finished: Path) -> None:
    lines = (finished.parent / "printed").read_text().splitlines()
    assert lines[-1] == str(finished)
    assert [line.split()[1] for line in lines if line.startswith("step ")] == ["1/4", "2/4", "3/4", "4/4"]
    for row in ("search agent, untrained", "single-retrieval RAG, trained", "floor: random answer", "single", "1"):
        assert any(line.startswith(f"| {row} ") for line in lines), row


def test_a_finished_run_is_left_as_it_is(finished: Path, capsys: Captured) -> None:
    before = outcome(finished)
    assert main(["resume", str(finished)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "nothing to go on with" in lines[0]
    assert lines[-1] == str(finished)
    assert outcome(finished) == before


class Killed(BaseException):
    """Ends a run as abruptly as a test can: nothing in the driver may catch it."""


def test_a_run_that_is_killed_and_interrupted_and_resumed_ends_as_if_it_had_not_been(
    finished: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    out = tmp_path / "run"
    write_episodes = RunFolder.write_episodes

    def killed_at_step_2(folder: RunFolder, step: int, episodes: Any) -> None:
        write_episodes(folder, step, episodes)
        if step == 2:
            raise Killed  # after the metrics are written, before the checkpoint

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_episodes", killed_at_step_2)
        with pytest.raises(Killed):
            main(["train", "--config", str(recipe), "--out", str(out)])
    assert [row["step"] for row in read_jsonl(out / "metrics.jsonl")] == [1, 2]

    def interrupted_at_step_3(folder: RunFolder, step: int, episodes: Any) -> None:
        write_episodes(folder, step, episodes)
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_episodes", interrupted_at_step_3)
        assert main(["resume", str(out)]) == 130
    told = capsys.readouterr()
    assert "going on after step 1" in told.out
    assert "stopping after this step" in told.out
    assert f"search-env resume {out}" in told.err
    assert (out / "checkpoints" / "step_000003" / "COMPLETE").is_file()
    assert not (out / "summary.json").exists()

    assert main(["resume", str(out), "--config", str(recipe)]) == 0
    assert "going on after step 3" in capsys.readouterr().out
    assert outcome(out) == outcome(finished)
    assert [attempt["after_step"] for attempt in json.loads((out / "meta.json").read_text())["attempts"]] == [0, 1, 3]


def test_a_finished_run_made_longer_ends_as_if_it_had_been_so_long_from_the_start(
    finished: Path, recipe: Path, tmp_path: Path, capsys: Captured
) -> None:
    argv = ["train", "--config", str(recipe), "--stages.1.max-steps", "4", "--out", str(tmp_path / "at-once")]
    assert main(argv) == 0
    shutil.copytree(finished, tmp_path / "longer")
    assert main(["resume", str(tmp_path / "longer"), "--max-steps", "4"]) == 0
    assert "going on after step 4" in capsys.readouterr().out
    assert outcome(tmp_path / "longer") == outcome(tmp_path / "at-once") != outcome(finished)
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("longer", "at-once")]
    assert summaries[0]["after"]["f1"] == summaries[1]["after"]["f1"] and summaries[0]["steps"]["stage2"] == 4

    before = outcome(tmp_path / "longer")
    assert main(["resume", str(tmp_path / "longer"), "--max-steps", "4"]) == 0
    assert "nothing to go on with" in capsys.readouterr().out and outcome(tmp_path / "longer") == before


def test_a_run_that_cannot_be_made_longer_is_left_as_it_is(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = outcome(run)
    for steps, message in (("1", "stage2, has 2 steps already"), ("0", "--max-steps")):
        assert main(["resume", str(run), "--max-steps", steps]) == 2
        assert message in capsys.readouterr().err
    shutil.move(run / "checkpoints", tmp_path / "elsewhere")
    assert main(["resume", str(run), "--max-steps", "4"]) == 2
    assert "no checkpoint left to go on from" in capsys.readouterr().err
    shutil.move(tmp_path / "elsewhere", run / "checkpoints")
    (run / "metrics.jsonl").write_text("".join((run / "metrics.jsonl").read_text().splitlines(keepends=True)[:3]))
    assert main(["resume", str(run), "--max-steps", "4"]) == 2
    assert "stage2, ended by `until` after 1 of 2 steps" in capsys.readouterr().err
    shutil.copy(finished / "metrics.jsonl", run / "metrics.jsonl")
    assert outcome(run) == before and (run / "summary.json").exists()


def test_an_interrupt_during_an_evaluation_stops_at_once_and_that_evaluation_is_done_again(
    finished: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    out = tmp_path / "run"
    measure = driver.HeldOut.measure

    def interrupted(held_out: Any, method: str, *rest: Any, **named: Any) -> Any:
        if method == "standard-rag":
            raise KeyboardInterrupt
        return measure(held_out, method, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(driver.HeldOut, "measure", interrupted)
        assert main(["train", "--config", str(recipe), "--out", str(out)]) == 130
    assert (out / "evaluations" / "before.json").is_file()
    assert not (out / "evaluations" / "rag_before.json").exists()
    assert main(["resume", str(out)]) == 0
    assert outcome(out) == outcome(finished)


def test_resuming_with_another_config_is_refused_with_the_keys(finished: Path, capsys: Captured) -> None:
    assert main(["resume", str(finished), "--learner.lr", "1", "--seed", "5"]) == 2
    assert "differs from the config that the run was started with in: learner.lr, run.seed." in capsys.readouterr().err


def test_a_second_run_in_the_same_folder_is_refused(finished: Path, recipe: Path, capsys: Captured) -> None:
    assert main(["train", "--config", str(recipe), "--out", str(finished)]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--evaluation.split", "tset"], "tset"),
        (["--rollout.max-episode-tokens", "4096"], "rollout.max_episode_tokens is 4096"),
    ],
)
def test_what_shows_only_when_the_run_starts_is_still_one_message(
    breakage: list[str], message: str, recipe: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert main(["train", "--config", str(recipe), "--out", str(tmp_path / "run"), *breakage]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists(), "the mended command must find its folder free"


def test_a_broken_line_of_the_dataset_is_told_with_file_and_line(
    recipe: Path, data: Path, tmp_path: Path, capsys: Captured
) -> None:
    for file in data.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    with (tmp_path / "dev.jsonl").open("a") as stream:
        stream.write('{"id": "x", "question": \n')
    assert main(["train", "--config", str(recipe), "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "dev.jsonl:7: broken JSON" in capsys.readouterr().err


def test_a_model_folder_without_tokenizer_is_told(recipe: Path, tmp_path: Path, capsys: Captured) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_bytes((recipe.parent / "model" / name).read_bytes())
    assert main(["train", "--config", str(recipe), "--model", str(model), "--out", str(tmp_path / "run")]) == 2
    assert "tokenizer" in capsys.readouterr().err
