"""What ``search-env new`` writes works as it stands: it passes its own test, and takes part once it is installed."""

import json
import subprocess
import sys

import pytest
from search_agents.cli import main


@pytest.mark.parametrize("kind", ["agent", "retriever", "dataset", "reward"])
def test_a_new_package_passes_its_own_test(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = f"my-{kind}"
    assert main(["new", kind, name]) == 0
    out = capsys.readouterr().out
    assert f"cd {name} && pip install -e . && pytest" in out
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "tests"]
    environment = {"PYTHONPATH": ".", "PATH": "", "SEARCH_ENV_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    ran = subprocess.run(
        command, cwd=tmp_path / name, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout


def test_an_installed_agent_is_measured_like_any_method(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["new", "agent", "first-hit-agent"])
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*install, "--target", site, tmp_path / "first-hit-agent"], check=True, timeout=300)
    command = [sys.executable, "-c", "from search_agents.cli import main; raise SystemExit(main())", "eval"]
    settings = ["--method", "first-hit-agent", "--limit", "10", "--env.prompt", "base", "--out", "result"]
    environment = {
        "PYTHONPATH": str(site),
        "PATH": "",
        "SEARCH_ENV_CACHE": str(tmp_path / "cache"),
    }
    ran = subprocess.run(
        [*command, *settings], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads((tmp_path / "result" / "result.json").read_text())
    (row,) = result["results"][:1]
    assert (row["n"], row["searches_per_question"], row["format_rate"]) == (10, 1.0, 1.0)
    assert result["model"] is None and result["model_fingerprint"] is None  # no model took part


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["agent", "9lives"], "cannot be the name of a package"),
        (["agent", "my agent"], "cannot be the name of a package"),
        (["agent", "json"], "there is a Python module 'json' already"),
        (["agent", "class"], "cannot be the name of a package"),
        (["agent", "oracle"], "the name 'oracle' of the agent is taken. Choose another name"),
        (["retriever", "bm25"], "the name 'bm25' of the retriever is taken"),
        (["dataset", "hotpotqa"], "the name 'hotpotqa' of the dataset is taken"),
        (["dataset", "HotpotQA"], "the name 'HotpotQA' of the dataset is taken"),
        (["reward", "stage2"], "the name 'stage2' of the reward is taken"),
        (["reward", "f1"], "the name 'f1' of the reward is taken"),
        (["robot", "r2"], "invalid choice: 'robot'"),
    ],
)
def test_a_name_that_cannot_be_is_refused(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", *argv]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert main(["new", "agent", "mine"]) == 2
    assert "exists already" in capsys.readouterr().err and not list((tmp_path / "mine").iterdir())
