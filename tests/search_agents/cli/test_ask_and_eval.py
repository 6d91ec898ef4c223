"""`ask` and `eval` with a scripted model: answers with their passages, scores with their circumstances."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch")

from search_agents.cli import main
from search_agents.engines.scripted import ScriptedEngine
from search_agents.engines.transformers import TransformersEngine

from search_env.datasets import load
from search_env.retrieval.bm25_folder import build_folder

Captured = pytest.CaptureFixture[str]

SEARCH = " I look it up. <begin_of_query> mayor Oslo <end_of_query>"
ANSWER = " So it is her. </think>\n\n<answer> Kari Nordmann </answer>"


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Makes every model folder say what it is told to, by question."""
    monkeypatch.setenv("SEARCH_ENV_CACHE", str(tmp_path / "cache"))

    def set_scripts(scripts: Mapping[str, Sequence[str]]) -> None:
        monkeypatch.setattr(TransformersEngine, "from_pretrained", lambda *_, **__: ScriptedEngine(scripts))

    return set_scripts


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "search_env.json").write_text('{"env": {"prompt": "bare", "top_k": 2}}')
    return str(folder)


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    documents = [
        {"id": "d1", "title": "Oslo", "text": "The mayor of Oslo is Kari\nNordmann."},
        {"id": "d2", "title": "Mayor", "text": "A mayor leads a city. \u001b[31m"},
        {"id": "d3", "title": "Bergen", "text": "Rain."},
    ]
    file = tmp_path / "my.jsonl"
    file.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return str(file)


def test_an_answer_comes_with_its_searches_and_cites_the_passage_that_holds_it(
    say: object, model: str, corpus: str, capsys: Captured
) -> None:
    say({"": [SEARCH, ANSWER]})  # type: ignore[operator]
    assert main(["ask", "Who is mayor of Oslo?", "--model", model, "--corpus", corpus]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "Answer: Kari Nordmann"
    assert "  mayor Oslo\n" in out
    assert " *[1] d1: Oslo\n      The mayor of Oslo is Kari Nordmann." in out
    assert "  [2] d2: Mayor" in out
    assert "Bergen" not in out
    assert "\x1b" not in out


def test_the_tiny_model_is_not_for_documents_of_one_s_own(say: object, corpus: str, capsys: Captured) -> None:
    say({"": [ANSWER]})  # type: ignore[operator]
    assert main(["ask", "Who is mayor of Oslo?", "--corpus", corpus]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Answer: ") and "note: the model 'tiny'" in printed.err and "--model" in printed.err


def test_json_holds_the_same(say: object, model: str, corpus: str, capsys: Captured) -> None:
    say({"": [SEARCH, SEARCH, ANSWER]})  # type: ignore[operator]
    assert main(["ask", "Who?", "--model", model, "--corpus", corpus, "--json"]) == 0
    reply = json.loads(capsys.readouterr().out)
    assert (reply["answer"], reply["stop_reason"]) == ("Kari Nordmann", "answered")
    assert reply["queries"] == ["mayor Oslo", "mayor Oslo"]
    assert [(passage["document"]["id"], passage["holds_answer"]) for passage in reply["passages"]] == [
        ("d1", True),
        ("d2", False),
    ]


def test_an_engine_with_documents_of_its_own_needs_no_corpus(
    say: object, model: str, corpus: str, tmp_path: Path, capsys: Captured
) -> None:
    say({"": [SEARCH, ANSWER]})  # type: ignore[operator]
    build_folder(corpus, tmp_path / "index")
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"name: bm25\nindex: {tmp_path / 'index'}\n")
    for retriever in (str(spec), f"{{name: bm25, index: {tmp_path / 'index'}}}"):
        assert main(["ask", "Who is mayor of Oslo?", "--model", model, "--retriever", retriever]) == 0
        assert " *[1] d1: Oslo\n" in capsys.readouterr().out
    assert main(["ask", "Who is mayor of Oslo?", "--model", model]) == 2
    assert "no documents to search" in capsys.readouterr().err


def test_an_evaluation_over_questions_only_says_what_searched(
    say: object, model: str, corpus: str, tmp_path: Path, capsys: Captured
) -> None:
    say({"": [SEARCH, ANSWER]})  # type: ignore[operator]
    index = build_folder(corpus, tmp_path / "index")
    (tmp_path / "dev.jsonl").write_text(json.dumps({"id": "q", "question": "Who?", "answers": ["Kari Nordmann"]}))
    argv = ["eval", "--model", model, "--env", "SearchQA-HotpotQA-v0", "--data", str(tmp_path / "dev.jsonl")]
    argv += ["--evaluation.split", "dev", "--out", str(tmp_path / "out")]
    assert main([*argv, "--retriever", f"{{name: bm25, index: {tmp_path / 'index'}}}"]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["results"][0]["em"] == 1.0
    assert result["environment"]["documents"] == 0 and result["environment"]["corpus_fingerprint"] is None
    assert result["environment"]["retriever_fingerprint"] == index.fingerprint
    capsys.readouterr()
    argv[-1] = str(tmp_path / "other")
    assert main(argv) == 2
    assert "no documents to search" in capsys.readouterr().err


def test_no_answer_is_told_as_such(say: object, model: str, corpus: str, capsys: Captured) -> None:
    say({"": [" I do not know"]})  # type: ignore[operator]
    assert main(["ask", "Who?", "--model", model, "--corpus", corpus]) == 0
    assert capsys.readouterr().out == "No answer (malformed).\n\nNo passage was read.\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", ":1: broken JSON"),
        ('{"id": "1", "title": "x"}', ":1: 'text' is missing"),
        ("", "holds no documents"),
    ],
)
def test_a_broken_corpus_is_one_message(line: str, message: str, model: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "bad.jsonl").write_text(line)
    assert main(["ask", "Who?", "--model", model, "--corpus", str(tmp_path / "bad.jsonl")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["ask", " ", "--corpus", "x"], "the question is empty"),
        (["ask", "Who?", "--corpus", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["eval", "--method", "r1"], "unknown method 'r1'"),
        (["eval", "--limit", "0"], "--limit: evaluation.questions: input should be greater than 0"),
        (["eval", "--learner.lr", "1"], "--learner.lr: learner: unknown key"),
        (["eval", "--evaluation.split", "tset"], "tset"),
    ],
)
def test_a_mistake_is_one_message(argv: list[str], message: str, model: str, capsys: Captured) -> None:
    assert main([*argv, "--model", model]) == 2
    assert message in capsys.readouterr().err


def test_a_model_folder_without_tokenizer_is_one_message(tmp_path: Path, corpus: str, capsys: Captured) -> None:
    folder = tmp_path / "bare-weights"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"")
    assert main(["ask", "Who?", "--model", str(folder), "--corpus", corpus]) == 2
    message = capsys.readouterr().err
    assert "bare-weights" in message
    assert "tokenizer" in message


def test_the_table_names_a_method_with_its_options_and_what_is_not_quite_its_papers(
    say: object, model: str, tmp_path: Path, capsys: Captured
) -> None:
    say({"": ["1", "So the answer is Lima."]})  # type: ignore[operator]
    argv = ["eval", "--model", model, "--limit", "1", "--evaluation.temperatures", "[0]", "--out", str(tmp_path / "x")]
    assert main([*argv, "--method", "{name: cr-planner, critic: llm, max_steps: 1}"]) == 0
    printed = capsys.readouterr().out
    assert "| cr-planner-critic=llm-max_steps=1, temperature 0 |" in printed
    assert "itself, the paper's ablation." in printed


def test_an_evaluation_leaves_scores_transcripts_and_circumstances(
    say: object, model: str, tmp_path: Path, capsys: Captured
) -> None:
    questions = load("fictional-wiki", split="test").questions
    first, second = questions[0], questions[len(questions) // 2]
    right = f" </think>\n<answer> {first.answers[0]} </answer>"
    say({"": [" </think>\n<answer> nobody </answer>"], first.text: [right]})  # type: ignore[operator]
    out = tmp_path / "out"
    argv = ["eval", "--model", model, "--limit", "2", "--out", str(out), "--evaluation.temperatures", "[0, 1]"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(out)
    assert "| r1-searcher, temperature 0 | 0.500 | 0.000 to 1.000 | 0.500 |" in printed
    result = json.loads((out / "result.json").read_text())
    assert [(row["temperature"], row["n"], row["em"], row["search_rate"]) for row in result["results"]] == [
        (0, 2, 0.5, 0.0),
        (1, 2, 0.5, 0.0),
    ]
    assert result["environment"]["top_k"] == 2
    assert result["environment"]["retriever_fingerprint"].startswith("bm25-")
    dataset = load("fictional-wiki", split="test")
    assert result["environment"]["dataset_fingerprint"] == dataset.fingerprint
    assert result["environment"]["corpus_fingerprint"] == dataset.corpus_fingerprint is not None
    rows = [json.loads(line) for line in (out / "transcripts-0.jsonl").read_text().splitlines()]
    assert [row["question"]["id"] for row in rows] == [first.id, second.id]


@pytest.mark.parametrize("verb", ["eval", "difficulty"])
def test_agent_is_another_name_of_method(verb: str, tmp_path: Path, capsys: Captured) -> None:
    assert main([verb, "--help"]) == 0
    assert "--method METHOD, --agent METHOD" in capsys.readouterr().out
    assert main([verb, "--agent", "oracel", "--out", str(tmp_path / "out")]) == 2
    assert "Did you mean 'oracle'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_agent_is_evaluated_by_its_name(tmp_path: Path) -> None:
    argv = ["eval", "--agent", "oracle", "--limit", "2", "--evaluation.temperatures", "[0]"]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text())["method"] == "oracle"


def test_an_evaluation_never_overwrites(model: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    assert main(["eval", "--model", model, "--out", str(tmp_path / "out")]) == 2
    assert "--out" in capsys.readouterr().err
