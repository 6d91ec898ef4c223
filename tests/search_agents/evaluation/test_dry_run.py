"""``search-env eval --dry-run``: what would run, without the weights, without a file, without a request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from search_agents.cli import main
from search_agents.config import recipes
from search_agents.engines.transformers import TransformersEngine

Captured = pytest.CaptureFixture[str]
CHECKPOINTS = {
    "r1-searcher-qwen-7b": ("XXsongLALA/Qwen-2.5-7B-base-RAG-RL", "r1-searcher-pipes"),
    "r1-searcher-llama-8b": ("XXsongLALA/Llama-3.1-8B-instruct-RAG-RL", "r1-searcher-pipes"),
    "search-r1-qwen-7b": ("PeterJinGo/SearchR1-nq_hotpotqa_train-qwen2.5-7b-em-ppo", "search-r1"),
    "research-qwen-7b": ("agentrl/ReSearch-Qwen-7B-Instruct", "research"),
}


@pytest.fixture(autouse=True)
def nothing_heavy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading weights or asking the hub fails the test; files that are written would lie in an empty folder."""

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(TransformersEngine, "from_pretrained", loaded)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    question = {"id": "q1", "question": "Who leads \u202eOslo\u001b[31m?", "answers": ["Kari"]}
    (tmp_path / "dev.jsonl").write_text(json.dumps(question) + "\n" + json.dumps(question | {"id": "q2"}) + "\n")
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"id": "1", "title": "Oslo", "text": "A city."}) + "\n")
    return str(tmp_path)


def told(capsys: Captured, *arguments: str) -> str:
    assert main(["eval", "--dry-run", *arguments]) == 0
    assert list(Path().iterdir()) == []
    return capsys.readouterr().out


def refused(capsys: Captured, *arguments: str) -> str:
    assert main(["eval", "--dry-run", *arguments]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(recipes("eval")))
def test_every_shipped_recipe_is_validated(name: str, capsys: Captured) -> None:
    out = told(capsys, "--config", name)
    assert "is read as search: 'capital Norway'" in out
    assert "is read as answer: 'Oslo'" in out
    assert "weights not loaded" in out


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_a_released_checkpoint_is_named_with_its_dialect_and_its_data_as_missing(name: str, capsys: Captured) -> None:
    model, dialect = CHECKPOINTS[name]
    out = told(capsys, "--config", name)
    assert f"{model} (from the hub" in out
    assert f"{dialect}, stops at " in out
    assert "missing: hotpotqa/dev" in out
    assert "`search-env data pull hotpotqa --out FOLDER`" in out


def test_data_that_is_there_is_opened_and_its_first_question_worded(folder: str, capsys: Captured) -> None:
    out = told(capsys, "--config", "search-r1-qwen-7b", "--data", folder)
    assert "2 of 2 of hotpotqa/dev, 1 documents" in out
    assert "prompt of question q1:" in out
    assert "Who leads Oslo[31m?" in out
    assert "\x1b" not in out


def test_tokens_are_counted_where_the_tokenizer_is_here(capsys: Captured) -> None:
    assert "21 of 768 tokens" in told(capsys, "--config", "fictional-wiki")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "/no/such/folder"], "there is no file or folder '/no/such/folder'"),
        (["--env.dialect", "reserch"], "unknown dialect 'reserch'. Did you mean 'research'"),
        (["--retriever", "{name: http, url: nowhere}"], "must be an address"),
        (["--env.topk", "3"], "top_k"),
        (["--env.prompt", "nowhere.txt"], "nowhere.txt"),
        (["--env", "SearchQA-FictionalWiki-v0", "--evaluation.split", "nope"], "unknown split 'nope'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_and_exit_code_2(arguments: list[str], expected: str, capsys: Captured) -> None:
    assert expected in refused(capsys, "--config", "search-r1-qwen-7b", *arguments)


def test_a_retriever_that_needs_a_corpus_is_refused_without_one(folder: str, capsys: Captured) -> None:
    Path(folder, "corpus.jsonl").unlink()
    message = refused(capsys, "--config", "search-r1-qwen-7b", "--data", folder, "--retriever", "bm25")
    assert "there are no documents to search" in message


def test_a_prompt_that_does_not_fit_is_refused(capsys: Captured) -> None:
    message = refused(
        capsys, "--config", "fictional-wiki", "--rollout.max-episode-tokens", "20", "--rollout.max-segment-tokens", "8"
    )
    assert "the prompt alone has 21 tokens. Give at least 29" in message


def test_a_set_of_ones_own_is_missing_without_a_command_to_fetch_it(capsys: Captured) -> None:
    out = told(capsys, "--config", "search-r1-qwen-7b", "--env", "SearchQA-Custom-v0")
    assert "missing: custom/dev is not shipped; give --data FOLDER" in out
