"""`score` and `compare` as the user meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from search_agents.cli import main
from search_agents.engines import build
from search_agents.engines.scripted import ScriptedEngine

from search_env.errors import EngineUnavailable

Captured = pytest.CaptureFixture[str]

ROWS = [
    {"question": "Capital of Norway?", "answer": "Oslo", "pred_ans": "Oslo", "gpt4o_output": "True"},
    {"question": "Capital of Peru?", "answer": "Lima", "pred_ans": "city of Lima", "gpt4o_output": "True"},
    {"question": "Capital of Fiji?", "answer": "Suva", "pred_ans": "Nadi", "gpt4o_output": "False"},
    {"question": "Capital of Mali?", "answer": "Bamako", "pred_ans": "Mali", "gpt4o_output": "no idea"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def unjudged(tmp_path: Path) -> Path:
    path = tmp_path / "unjudged.jsonl"
    path.write_text("".join(json.dumps({**row, "gpt4o_output": None}) + "\n" for row in ROWS))
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the judge was asked: it says True where the gold answer stands in the candidate's line."""
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        gold, candidate = (
            next(line.removeprefix(name) for line in prompt.splitlines() if line.startswith(name))
            for name in ("Accepted answers: ", "Candidate answer: ")
        )
        return str(gold in candidate)

    monkeypatch.setattr(build, "make_engine", lambda section: ScriptedEngine(reply))
    monkeypatch.setattr(build, "model_identity", lambda section: "0123abcd")
    return prompts


def scored(argv: list[str], capsys: Captured) -> dict[str, Any]:
    assert main(["score", *argv, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_scores_are_percent_with_the_stored_judgements(file: Path, capsys: Captured) -> None:
    found = scored([str(file), "--format", "r1-searcher"], capsys)
    assert {key: found[key] for key in ("em", "acc_r", "cem", "f1", "acc_l", "n")} == {
        "em": 25.0, "acc_r": 50.0, "cem": 50.0, "f1": 37.5, "acc_l": 50.0, "n": 4,
    }  # fmt: skip
    assert (found["judges"], found["unclear_judgements"]) == ({"gpt4o_output": 4}, 1)


def test_the_report_says_the_same_for_people(file: Path, capsys: Captured) -> None:
    assert main(["score", str(file), "--format", "r1-searcher"]) == 0
    out = capsys.readouterr().out
    assert "| EM            |            25.0 |" in out
    assert "| ACC_L (judge) |            50.0 |" in out
    assert "ended: answered 4" in out
    assert "4 of 4 judged by gpt4o_output (4); 1 replies say neither true nor false" in out


def test_the_other_normalisation_is_taken_when_asked_for(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "?", "answer": "U.S.", "pred_ans": "US"}))
    argv = [str(tmp_path / "rows.jsonl"), "--format", "r1-searcher"]
    assert scored(argv, capsys)["em"] == 0.0
    other = scored([*argv, "--normalisation", "flashrag"], capsys)
    assert (other["em"], other["by_normalisation"]["r1-searcher"]["em"]) == (100.0, 0.0)


def test_a_judge_is_asked_once_and_only_where_no_judgement_is_stored(
    file: Path, unjudged: Path, asked: list[str], capsys: Captured
) -> None:
    judge = ["--format", "r1-searcher", "--judge", "some-model", "--judge.chat", "false"]
    assert scored([str(file), *judge], capsys)["judges"] == {"gpt4o_output": 4}
    assert asked == []
    found = scored([str(unjudged), *judge], capsys)
    assert (found["acc_l"], found["judges"]) == (50.0, {"some-model (0123abcd)": 4})
    assert len(asked) == 4
    kept = unjudged.with_name("judgements-unjudged.jsonl")
    assert [json.loads(line)["reply"] for line in kept.read_text().splitlines()] == ["True", "True", "False", "False"]
    assert scored([str(unjudged), *judge], capsys) == found
    assert scored([str(unjudged), "--format", "r1-searcher"], capsys) == found, "what is stored needs no judge"
    assert len(asked) == 4


def test_a_judge_without_a_chat_template_is_told_the_setting_that_helps(
    unjudged: Path, asked: list[str], capsys: Captured
) -> None:
    judge = ["score", str(unjudged), "--format", "r1-searcher", "--judge", "some-model"]
    assert main(judge) == 2
    said = capsys.readouterr().err
    assert "--judge.chat false" in said and "style" not in said and asked == []
    assert main([*judge, "--judge.chat", "false"]) == 0
    assert len(asked) == 4


def test_without_a_judge_nobody_is_asked(unjudged: Path, asked: list[str], capsys: Captured) -> None:
    found = scored([str(unjudged), "--format", "r1-searcher"], capsys)
    assert (found["acc_l"], found["judges"], asked) == (None, {}, [])
    assert main(["score", str(unjudged), "--format", "r1-searcher"]) == 0
    assert "--judge MODEL asks a model" in capsys.readouterr().out
    assert not unjudged.with_name("judgements-unjudged.jsonl").exists()


def test_malformed_rows_are_named_or_left_out_when_asked(file: Path, capsys: Captured) -> None:
    with file.open("a") as opened:
        opened.write("{}\n")
    assert main(["score", str(file), "--format", "r1-searcher"]) == 2
    assert "rows.jsonl:5: 'question' is missing" in capsys.readouterr().err
    assert main(["score", str(file), "--format", "r1-searcher", "--skip-malformed", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["n"] == 4 and "1 malformed row was left out" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--format", "r1-search"], "unknown format 'r1-search'. Did you mean 'r1-searcher'"),
        ([], "--format"),
        (["--format", "ours", "--normalisation", "squad"], "--normalisation"),
        (["--format", "ours", "--judge.tokens", "3"], "judge.tokens"),
    ],
)
def test_a_mistake_is_one_message(argv: list[str], message: str, file: Path, capsys: Captured) -> None:
    assert main(["score", str(file), *argv]) == 2
    out, err = capsys.readouterr()
    assert message in err and out == ""


def test_a_judge_whose_server_failed_is_asked_the_rest_by_the_same_command(
    unjudged: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    argv = [
        str(unjudged),
        "--format",
        "r1-searcher",
        "--judge",
        "m",
        "--judge.chat",
        "false",
        "--judge.batch-size",
        "2",
    ]
    generate = ScriptedEngine.generate

    def failing(engine: ScriptedEngine, requests: Any, **settings: Any) -> Any:
        if asked:
            raise EngineUnavailable("the server is gone.")
        return generate(engine, requests, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(ScriptedEngine, "generate", failing)
        assert main(["score", *argv]) == 2
    told = "error: the server is gone; what was judged is kept; go on with the same command\n"
    assert capsys.readouterr().err.endswith(told)
    scored(argv, capsys)
    assert len(asked) == len(ROWS)


Evaluate = Callable[..., Path]


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Evaluates a method that needs no model on FictionalWiki."""
    pytest.importorskip("torch")
    monkeypatch.setenv("SEARCH_ENV_CACHE", str(tmp_path / "cache"))

    def run(name: str, method: str, *more: str) -> Path:
        out = tmp_path / name
        argv = ["eval", "--method", method, "--limit", "20", "--out", str(out), "--evaluation.temperatures", "[0]"]
        assert main([*argv, *more]) == 0
        return out

    return run


def test_two_evaluations_are_compared_question_by_question(evaluate: Evaluate, capsys: Captured) -> None:
    random, oracle = evaluate("a", "random"), evaluate("b", "oracle")
    row = json.loads((oracle / "result.json").read_text())["results"][0]
    assert row["gold_recall"] > 0.9 and row["first_hit_turn"] >= 1 and row["seconds_per_question"] > 0
    capsys.readouterr()
    assert main(["compare", str(random), str(oracle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    f1 = found["metrics"]["f1"]
    assert (f1["n"], found["left_out"], f1["b"]) == (20, 0, row["f1"])
    assert f1["difference"] == pytest.approx(f1["b"] - f1["a"])
    assert 0 < f1["low"] < f1["difference"] < f1["high"] and f1["p_value"] < 0.01
    assert found["differing"] == ["config.method"] and "acc_l" not in found["metrics"]
    assert main(["compare", str(random), str(oracle)]) == 0
    out = capsys.readouterr().out
    assert "20 questions" in out and "| F1 " in out and "They differ in: config.method" in out


def test_eval_and_score_tell_the_same_figures_of_an_evaluation(evaluate: Evaluate, capsys: Captured) -> None:
    run = evaluate("a", "oracle")
    shown = capsys.readouterr().out
    row = json.loads((run / "result.json").read_text())["results"][0]
    file = str(run / "transcripts-0.jsonl")
    found = scored([file, "--format", "ours"], capsys)
    same = ("gold_recall", "gold_recall_by_hop", "gold_hit_rate", "truncated", "stop_reasons", "calls_per_question")
    assert {key: found[key] for key in same} == {key: row[key] for key in same}
    assert {"1", "2"} <= set(row["gold_recall_by_hop"])
    # The saved episodes tell when the last of them ended, the evaluation when it had scored them.
    assert 0 < found["seconds_per_question"] <= row["seconds_per_question"] + 1e-4
    assert (found["cost_per_question"], found["read_tokens_per_question"]) == (0.0, 0.0)
    assert {hops: each["n"] for hops, each in found["by_hops"].items()} == {
        hops: each["n"] for hops, each in row["by_hops"].items()
    }
    assert " ACC_R |" in shown and " CEM |" in shown
    assert main(["score", file, "--format", "ours"]) == 0
    told = capsys.readouterr().out
    for words in ("gold documents found ", "(hop 1 ", "ended: answered 20, truncated by a budget 0.0%", "F1: "):
        assert words in shown and words in told
    assert " s, searches paid 0" in shown and " s, searches paid 0" in told


def test_what_a_foreign_file_does_not_tell_is_left_out(file: Path, capsys: Captured) -> None:
    found = scored([str(file), "--format", "r1-searcher"], capsys)
    assert "truncated" in found and not {"calls_per_question", "cost_per_question", "seconds_per_question"} & set(found)


def test_an_evaluation_compared_with_itself_differs_in_nothing(evaluate: Evaluate, capsys: Captured) -> None:
    run = str(evaluate("a", "random"))
    capsys.readouterr()
    assert main(["compare", run, run, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"].values()
    assert all((each["difference"], each["p_value"]) == (0.0, 1.0) for each in metrics)


def test_other_questions_or_another_corpus_are_refused_by_name(
    evaluate: Evaluate, tmp_path: Path, capsys: Captured
) -> None:
    run = evaluate("a", "random")
    for name, more, problems in (
        ("fewer", ["--limit", "19"], ["questions are only in", "--limit"]),
        ("split", ["--evaluation.split", "train"], ["split is 'test' and 'train'"]),
    ):
        other = evaluate(name, "random", *more)
        capsys.readouterr()
        assert main(["compare", str(run), str(other)]) == 2
        err = capsys.readouterr().err
        assert "cannot be compared" in err and all(problem in err for problem in problems)
    result = json.loads((run / "result.json").read_text())
    result["environment"]["corpus_fingerprint"] = "another"
    (tmp_path / "fewer" / "result.json").write_text(json.dumps(result))
    (tmp_path / "fewer" / "transcripts-0.jsonl").write_bytes((run / "transcripts-0.jsonl").read_bytes())
    assert main(["compare", str(run), str(tmp_path / "fewer")]) == 2
    assert "corpus_fingerprint is " in capsys.readouterr().err


def test_an_invalid_episode_is_left_out_of_both_and_counted(evaluate: Evaluate, capsys: Captured) -> None:
    run, other = evaluate("a", "random"), evaluate("b", "oracle")
    file = other / "transcripts-0.jsonl"
    first, *rest = [json.loads(line) for line in file.read_text().splitlines()]
    first["stop_reason"] = "retriever_unavailable"
    file.write_text("".join(json.dumps(row) + "\n" for row in (first, *rest)))
    capsys.readouterr()
    assert main(["compare", str(run), str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["left_out"], found["metrics"]["f1"]["n"]) == (1, 19)


def test_acc_l_is_compared_once_both_are_judged(evaluate: Evaluate, asked: list[str], capsys: Captured) -> None:
    random, oracle = evaluate("a", "random"), evaluate("b", "oracle")
    for run in (random, oracle):
        argv = ["score", str(run / "transcripts-0.jsonl"), "--format", "ours"]
        assert main([*argv, "--judge", "some-model", "--judge.chat", "false"]) == 0
    capsys.readouterr()
    assert main(["compare", str(random), str(oracle), "--json"]) == 0
    acc_l = json.loads(capsys.readouterr().out)["metrics"]["acc_l"]
    assert acc_l["b"] > 0.9 > acc_l["a"] and acc_l["n"] == 20
    assert main(["compare", str(random), str(oracle)]) == 0
    assert "ACC_L by some-model (0123abcd)" in capsys.readouterr().out


@pytest.fixture
def judged_apart(evaluate: Evaluate) -> tuple[Path, Path]:
    """One evaluation by two judges who contradict one another, the other by the second of them only."""
    from search_agents.evaluation.judge import Judgement, JudgementLog, judge_prompt
    from search_agents.evaluation.saved import read_saved

    runs = evaluate("a", "random"), evaluate("b", "oracle")
    two = {"judge-two (02)": "True"}
    for run, judges in zip(runs, ({"judge-one (01)": "False", **two}, two), strict=True):
        file = run / "transcripts-0.jsonl"
        asked = [(each.transcript.question.id, judge_prompt(each.transcript).user) for each in read_saved(file, "ours")]
        JudgementLog(file.with_name("judgements-transcripts-0.jsonl")).add(
            Judgement(question_id=id_, model=model, prompt=prompt, reply=reply)
            for model, reply in judges.items()
            for id_, prompt in asked
        )
    return runs


def test_the_verdicts_of_two_judges_are_not_compared(
    judged_apart: tuple[Path, Path], tmp_path: Path, capsys: Captured
) -> None:
    first, second = judged_apart
    log = first / "judgements-transcripts-0.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if "judge-one" in line))
    capsys.readouterr()
    assert main(["compare", str(first), str(second), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "acc_l" not in found["metrics"] and found["judge"] is None
    assert "A is judged by judge-one (01) and B by judge-two (02)" in found["no_acc_l"]
    assert main(["compare", str(first), str(second)]) == 0
    out = capsys.readouterr().out
    assert "ACC_L is left out: A is judged by judge-one (01)" in out and "ACC_L (judge)" not in out


@pytest.mark.parametrize("name", ["judge-two", "judge-two (02)"])
def test_of_several_judges_the_one_named_counts(judged_apart: tuple[Path, Path], name: str, capsys: Captured) -> None:
    argv = ["compare", *map(str, judged_apart)]
    capsys.readouterr()
    assert main(argv) == 2
    assert "Say which one counts: --judge MODEL" in capsys.readouterr().err
    assert main([*argv, "--judge", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    acc_l = found["metrics"]["acc_l"]
    assert (acc_l["a"], acc_l["b"], found["judge"], found["no_acc_l"]) == (1.0, 1.0, "judge-two (02)", "")


def test_a_judge_who_has_judged_nothing_there_is_refused_with_those_who_have(
    judged_apart: tuple[Path, Path], capsys: Captured
) -> None:
    capsys.readouterr()
    assert main(["compare", *map(str, judged_apart), "--judge", "judge-one"]) == 2
    err = capsys.readouterr().err
    assert "'judge-one' has judged no answer of" in err and "who has: judge-two (02)" in err


def test_an_answer_without_a_verdict_leaves_acc_l_out_and_is_counted(
    judged_apart: tuple[Path, Path], capsys: Captured
) -> None:
    log = judged_apart[1] / "judgements-transcripts-0.jsonl"
    log.write_text("".join(log.read_text().splitlines(True)[1:]))
    capsys.readouterr()
    assert main(["compare", *map(str, judged_apart), "--judge", "judge-two"]) == 0
    assert "ACC_L is left out: judge-two (02) has not judged " in capsys.readouterr().out


def test_an_evaluation_that_is_not_finished_is_told_how_to_go_on(
    evaluate: Evaluate, tmp_path: Path, capsys: Captured
) -> None:
    run = evaluate("a", "random")
    (run / "result.json").unlink()
    assert main(["compare", str(run), str(run)]) == 2
    assert f"search-env resume {run}" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), str(run)]) == 2
    assert "holds no evaluation" in capsys.readouterr().err
