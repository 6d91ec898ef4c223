"""The command itself: help, exit codes, and one message for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from search_agents.cli import main
from search_agents.config import recipes

from search_env.registration import ENVIRONMENTS

VERBS = (
    *("list", "play", "train", "sample", "sft", "eval", "score", "compare"),
    *("report", "leaderboard", "resume", "index", "serve", "ask", "doctor"),
)

Captured = pytest.CaptureFixture[str]


def failure(argv: list[str], capsys: Captured) -> str:
    """The one block on stderr of a command that the user must put right."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("search-env: error: ")
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_the_command_alone_names_every_verb(argv: list[str], capsys: Captured) -> None:
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_shows_three_examples_of_it(verb: str, capsys: Captured) -> None:
    assert main([verb, "--help"]) == 0
    examples = capsys.readouterr().out.split("examples:\n")[1].split("\n\n")[0].splitlines()
    assert len(examples) == 3
    assert all(f"search-env {verb}" in line for line in examples)


@pytest.mark.parametrize("verb", ["train", "sample", "sft", "eval", "ask", "serve", "doctor"])
def test_the_help_of_a_verb_that_takes_a_retriever_says_in_which_forms(verb: str, capsys: Captured) -> None:
    assert main([verb, "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "--retriever" in out
    assert "a name, '{name: NAME, …}' with its settings, or a YAML file of these" in out


def test_the_help_of_train_tells_every_setting_with_its_default(capsys: Captured) -> None:
    main(["train", "--help"])
    out = capsys.readouterr().out
    assert "--learner.group-size INT" in out
    assert "Episodes for each question. [4]" in out


def test_the_version_is_told(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("search-env ")


def test_help_loads_nothing_heavy_and_takes_under_a_second_of_processor_time() -> None:
    script = (
        "import sys, time; start = time.process_time()\n"
        "from search_agents.cli import main\n"
        "assert all(main([verb, '--help']) == 0 for verb in ('train', 'sample', 'sft', 'ask'))\n"
        "assert time.process_time() - start < 1.0, time.process_time() - start\n"
        "heavy = {'torch', 'ray', 'transformers', 'tantivy', 'matplotlib', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["trian"], ["unknown verb 'trian'", "Did you mean 'train'?", "search-env --help"]),
        (["--seed"], ["unknown verb '--seed'"]),
        (["list", "reward"], ["unknown kind 'reward'", "Did you mean 'rewards'?"]),
        (["list", "rewards", "--jsn"], ["unknown argument '--jsn'", "search-env list --help"]),
        (["play", "--seed", "-1"], ["'-1' is not a whole number of 0 or more", "search-env play --help"]),
        (["plan", "--gpu-memory", "nan"], ["'nan' is not a number of gigabytes above 0"]),
        (["plan", "--gpu-memory", "-5"], ["'-5' is not a number of gigabytes above 0"]),
        (["plan", "--gpus", "-1"], ["'-1' is not a whole number of 0 or more"]),
        (["ask"], ["the following arguments are required", "search-env ask --help"]),
        (["train", "--sed", "1"], ["unknown argument '--sed'", "Did you mean --seed?"]),
        (["train", "--env", "X"], ["unknown argument '--env'", "Did you mean --env.id?"]),
        (["train", "--temperature", "1"], ["Did you mean --rollout.temperature?"]),
        (["eval", "--top-k", "3"], ["Did you mean --env.top-k?"]),
        (["eval", "--temperature", "0"], ["Did you mean --evaluation.temperatures?"]),
        (["eval", "--tempreature", "0"], ["Did you mean --evaluation.temperatures?"]),
        (["eval", "--evaluation.temperature", "0"], ["Did you mean 'evaluation.temperatures'?"]),
        (["eval", "--evaluation.temperatures", "0"], ["a list, for example '[0]' (given: '0')"]),
        (["eval", "--evaluation.limit", "2"], ["Did you mean 'evaluation.questions'?"]),
        (["eval", "--method", "{name: ircot, varient: flashrag}"], ["ircot': varient: ", "did you mean 'variant'?"]),
        (["bench", "methods", "--out", "x", "--methods", "standard-rag"], ["a list, for example '[standard-rag]'"]),
        (["resume", "nowhere", "--limit", "10"], ["Did you mean --evaluation.questions?"]),
        (["play", "--topk", "10"], ["unknown argument '--topk'. Did you mean --top-k? `search-env play --help`"]),
        (["ask", "what", "is", "it", "--corpus", "my.jsonl"], ["unknown argument 'is'", "put the question in quotes"]),
        (["train", "--learner.lrr", "1"], ["--learner.lrr", "Did you mean 'learner.lr'?"]),
        (["train", "--set", "learner.lr"], ["KEY=VALUE"]),
        (["train", "--config", "fictional-wikki"], ["Did you mean 'fictional-wiki'?"]),
        (["train", "--env.id", "SearchQA-HotpotQA-v1"], ["unknown environment", "SearchQA-HotpotQA-v0"]),
        (["train", "--env.dialect", "r1"], ["unknown dialect 'r1'"]),
        (["train", "--env.retriever", "bm52"], ["unknown retriever 'bm52'"]),
        (["eval", "--retriever", "{name: cached, of: bm52}", "--dry-run"], ["unknown retriever 'bm52'"]),
        (["train", "--env.prompt", "nowhere.txt"], ["nowhere.txt"]),
        (["train", "--stages.0.reward", "stage3"], ["unknown reward"]),
        (["train", "--model", "./nowhere"], ["no model folder at './nowhere'"]),
        (["sample", "--keep.metrics", "em"], ["--keep.metrics", "Did you mean 'keep.metric'?"]),
        (["sft"], ["nothing to imitate", "--trajectories FOLDER"]),
        (["sft", "--trajectories", "nowhere"], ["nowhere does not exist", "search-env sample"]),
        (["resume", "nowhere"], ["nowhere does not exist", "`search-env sample` or `search-env eval` printed last"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_and_exit_code_2(argv: list[str], expected: list[str], capsys: Captured) -> None:
    message = failure(argv, capsys)
    for part in expected:
        assert part in message


@pytest.mark.parametrize("inside", ["", "/x"])
def test_a_file_in_the_place_of_a_folder_is_one_message(inside: str, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main(["data", "info", "fictional-wiki", "--out", f"{file}/x{inside}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"search-env: error: {file}") and err.count("\n") == 1
    assert "Give a" in err and main(["new", "agent", "zzz", "--out", f"{file}/x{inside}"]) == 2


@pytest.mark.parametrize("kind", [NotADirectoryError, FileExistsError, IsADirectoryError, PermissionError])
def test_only_a_failure_that_names_a_path_is_a_mistake(
    kind: type[OSError], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def failing(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr("search_agents.cli.command._dispatch", failing)
    error = kind(1, "no", "results/x")
    assert "results/x: " in failure(["list"], capsys)
    error = kind(1, "no")
    with pytest.raises(kind):
        main(["list"])


def test_text_of_the_user_cannot_command_the_terminal(capsys: Captured) -> None:
    assert "\x1b" not in failure(["\x1b[31mred"], capsys)


def test_an_unexpected_failure_keeps_its_traceback_and_exits_with_1() -> None:
    script = (
        "import sys; from search_agents.cli import command\n"
        "command._dispatch = lambda arguments: 1 / 0\n"
        "sys.exit(command.main(['list']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt("go on with: search-env resume outputs/run")

    monkeypatch.setattr("search_agents.cli.command._dispatch", interrupted)
    assert main(["train"]) == 130
    assert "search-env resume outputs/run" in capsys.readouterr().err


def test_list_names_every_kind_of_thing(capsys: Captured) -> None:
    assert main(["list", "--json"]) == 0
    named = json.loads(capsys.readouterr().out)
    assert {"SearchQA-FictionalWiki-v0", "SearchQA-HotpotQA-v0"} <= set(named["environments"])
    assert {"r1-searcher", "r1-searcher-pipes", "search-r1"} <= set(named["dialects"])
    assert {"stage1", "stage2"} <= set(named["rewards"])
    assert "gold_recall" in named["reward-parts"]
    assert "fictional-wiki" in named["datasets"]
    assert "r1-searcher" in named["methods"]
    assert "bm25" in named["retrievers"]
    assert {f"train/{name}" for name in recipes("train")} <= set(named["recipes"])


def test_list_of_one_kind_is_plain_lines(capsys: Captured) -> None:
    assert main(["list", "environments"]) == 0
    assert capsys.readouterr().out.splitlines() == ["environments:", *(f"  {name}" for name in ENVIRONMENTS)]


def test_a_dry_run_prints_the_resolved_config_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--model", str(tmp_path), "--seed", "4", "--set", "learner.lr=1e-3", "--dry-run"]) == 0
    config = json.loads(capsys.readouterr().out)
    assert (config["run"]["seed"], config["learner"]["lr"], config["model"]["path"]) == (4, 1e-3, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(recipes("algorithms")))
def test_every_algorithm_is_dry_run_over_a_recipe(name: str, capsys: Captured) -> None:
    assert main(["train", "--config", "fictional-wiki", "--config", f"algorithms/{name}", "--dry-run"]) == 0
    learner = json.loads(capsys.readouterr().out)["learner"]
    assert learner["lr"] == 5e-4, "the recipe's own"
    assert learner["advantage"] == {"dapo": "grpo", "gspo": "grpo", "cispo": "grpo"}.get(name, name)


def test_a_dry_run_of_a_training_opens_its_questions(tmp_path: Path, capsys: Captured) -> None:
    question = '{"id": "q", "question": "Capital of Norway?", "answers": ["Oslo"]}\n'
    (tmp_path / "train.jsonl").write_text(question)
    argv = ["train", "--env.id", "SearchQA-HotpotQA-v0", "--dry-run"]
    assert main([*argv, "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert (
        "unknown split 'test'. Known: train." in error
        and "--evaluation.split NAME" in error
        and "--split NAME" in error
    )
    assert main([*argv, "--data", str(tmp_path / "nowhere")]) == 2
    assert "no file or folder" in capsys.readouterr().err
    (tmp_path / "dev.jsonl").write_text(question)
    assert main([*argv, "--data", str(tmp_path), "--evaluation.split", "dev"]) == 0
    assert main([*argv, "--evaluation.split", "dev"]) == 0
    assert "not checked: hotpotqa/train is not shipped; give --data FOLDER" in capsys.readouterr().err


def test_a_comparison_misses_a_set_before_it_asks_anything(tmp_path: Path, capsys: Captured) -> None:
    sets = "[{id: SearchQA-FictionalWiki-v0}, {id: SearchQA-HotpotQA-v0, data: nowhere}]"
    argv = ["bench", "methods", "--methods", "[random]", "--sets", sets, "--limit", "2", "--evaluation.split", "test"]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 2
    assert "no file or folder 'nowhere'" in capsys.readouterr().err and not (tmp_path / "out").exists()
