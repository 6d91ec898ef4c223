"""A comparison runs every method on every set under one setting, once."""

import json

import pytest
from search_agents.cli import main
from search_agents.config import ComparisonConfig
from search_agents.evaluation.comparison import run_comparison
from search_agents.evaluation.evaluation_run import EvaluationRun
from search_agents.methods import method_key
from search_agents.methods.floor_and_ceiling import RandomAgent

from search_env.errors import ConfigError, EngineUnavailable

SETS = [{"split": "test"}, {"split": "train"}]
SMALL = {"questions": 4, "temperatures": [0.0], "batch_size": 4}


def config(*methods, sets=SETS, **more):
    return ComparisonConfig(methods=methods, sets=sets, evaluation=SMALL, **more)


def test_a_comparison_leaves_an_evaluation_for_each_pair_and_a_table(tmp_path):
    told = []
    text = run_comparison(config("oracle", "standard-rag"), tmp_path, tell=told.append)
    found = json.loads((tmp_path / "results.json").read_text())["sets"]
    assert list(found) == ["FictionalWiki-v0-test", "FictionalWiki-v0-train"]
    for rows in found.values():
        assert list(rows) == ["oracle", "standard-rag"]
        assert rows["oracle"]["f1"] > rows["standard-rag"]["f1"]
        assert rows["oracle"]["calls_per_question"] == 0 < rows["standard-rag"]["calls_per_question"]
        assert rows["standard-rag"]["searches_per_question"] == 1
    assert text == (tmp_path / "results.md").read_text() and "## FictionalWiki-v0-test: 4 questions" in text
    lines = (tmp_path / "FictionalWiki-v0-test" / "oracle" / "transcripts-0.jsonl").read_text().splitlines()
    assert len(lines) == 4 and len(told) == 8


def test_started_again_it_does_what_is_left_and_nothing_else(tmp_path, monkeypatch):
    run_comparison(config("oracle"), tmp_path, tell=lambda line: None)
    before = (tmp_path / "FictionalWiki-v0-test" / "oracle" / "result.json").stat().st_mtime_ns
    transcripts = tmp_path / "FictionalWiki-v0-test" / "random" / "transcripts-0.jsonl"

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationRun, "_measure", stop)
        with pytest.raises(KeyboardInterrupt, match="go on with the same command"):
            run_comparison(config("oracle", "random"), tmp_path, tell=lambda line: None)
    assert not transcripts.exists()
    told = []
    text = run_comparison(config("oracle", "random"), tmp_path, tell=told.append)
    assert told[0] == "SearchQA-FictionalWiki-v0 oracle: finished before" and "| random" in text
    assert (tmp_path / "FictionalWiki-v0-test" / "oracle" / "result.json").stat().st_mtime_ns == before


def test_after_a_failure_in_an_evaluation_the_same_command_asks_what_is_left(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    argv = ["--methods", "[oracle, random]", "--sets", "[{split: test}]", "--limit", "4", "--out", str(out)]
    segment, said = RandomAgent._segment, []

    def failing(agent, transcript):
        said.append(transcript.question.id)
        if len(said) == 7:  # four queries, then the third answer
            raise EngineUnavailable("the server is gone")
        return segment(agent, transcript)

    with monkeypatch.context() as patch:
        patch.setattr(RandomAgent, "_segment", failing)
        assert main(["bench", "methods", *argv]) == 2
    told = "the server is gone; what was answered is kept; go on with the same command\n"
    assert capsys.readouterr().err.endswith(told)
    kept = (out / "FictionalWiki-v0-test" / "random" / "transcripts-0.jsonl").read_text()
    assert kept.count("\n") == 2
    assert main(["bench", "methods", *argv]) == 0
    assert (out / "FictionalWiki-v0-test" / "random" / "transcripts-0.jsonl").read_text().startswith(kept)
    assert "oracle: finished before" in capsys.readouterr().out


def test_another_comparison_in_the_same_folder_is_refused(tmp_path):
    run_comparison(config("random", sets=SETS[:1]), tmp_path, tell=lambda line: None)
    with pytest.raises(ConfigError, match=r"differs from what it was started with in: config\.env\.top_k"):
        run_comparison(config("random", sets=SETS[:1], env={"top_k": 1}), tmp_path, tell=lambda line: None)
    (tmp_path / "FictionalWiki-v0-test" / "random" / "result.json").unlink()
    with pytest.raises(ConfigError, match="cannot go on"):
        run_comparison(config("random", sets=SETS[:1], env={"top_k": 1}), tmp_path, tell=lambda line: None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ["oracle", {"name": "oracle"}]}, "methods must differ"),
        ({"sets": [{}, {"data": "elsewhere"}]}, "sets must differ in id or split; given: FictionalWiki-v0"),
        ({"methods": ["oracel"]}, "Did you mean 'oracle'"),
        ({"sets": [{"id": "SearchQA-Nothing-v0"}]}, "SearchQA-Nothing-v0"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(given, message, tmp_path):
    wrong = ComparisonConfig.model_validate({"methods": ["random"], **given})
    with pytest.raises(ConfigError, match=message):
        run_comparison(wrong, tmp_path, tell=lambda line: pytest.fail("it has begun"))
    assert not list(tmp_path.iterdir())


def test_options_are_part_of_a_methods_name():
    assert method_key({"name": "standard-rag"}) == "standard-rag"
    assert method_key({"name": "oracle", "part": "/a/b/c", "rounds": 2}) == "oracle-part=c-rounds=2"


def test_the_command_runs_the_shipped_recipe(tmp_path, capsys):
    sets = "[{split: test}]"
    arguments = ["--methods", "[oracle, random]", "--sets", sets, "--limit", "3", "--out", str(tmp_path / "out")]
    assert main(["bench", "methods", *arguments]) == 0
    out = capsys.readouterr().out
    assert "## FictionalWiki-v0-test: 3 questions" in out and "| oracle" in out
