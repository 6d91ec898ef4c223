"""`make` passes on what it is told and how it went."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make(tmp_path):
    """Runs a target with an installation whose programs only say how they were called, and exit with a code."""

    def run(target, *, code=0, **variables):
        for name in ("python", "search-env", "ruff", "mypy", "lint-imports"):
            program = tmp_path / name
            program.write_text(f'#!/bin/sh\necho "{name} $@ HF_HUB_OFFLINE=$HF_HUB_OFFLINE"\nexit {code}\n')
            program.chmod(0o755)
        settings = [f"BIN={tmp_path}"]
        for stamp in ("INSTALLED", "DEVELOPED"):
            (tmp_path / stamp).touch()
            settings += [f"{stamp}={tmp_path / stamp}", "--assume-old", tmp_path / stamp]
        more = [f"{name}={value}" for name, value in variables.items()]
        # Not as a part of the `make` that may run these tests.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        environment.pop("HF_HUB_OFFLINE", None)
        return subprocess.run(
            [shutil.which("make"), "--silent", "-C", ROOT, target, *settings, *more],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )

    return run


def test_make_test_runs_pytest_offline_with_the_arguments_given(make):
    assert make("test", ARGS="-k bm25").stdout == "python -m pytest -n 2 -k bm25 HF_HUB_OFFLINE=1\n"


@pytest.mark.parametrize("target", ["test", "train", "check", "bench"])
def test_a_target_fails_when_its_program_fails(make, target):
    assert make(target).returncode == 0
    assert make(target, code=1).returncode != 0


def test_make_train_trains_the_shipped_recipe(make):
    expected = "search-env train --config configs/train/fictional-wiki.yaml --seed 1 HF_HUB_OFFLINE=\n"
    assert make("train", ARGS="--seed 1").stdout == expected
    assert (ROOT / "configs/train/fictional-wiki.yaml").is_file()


def test_make_check_runs_every_checker(make):
    said = [line.removesuffix(" HF_HUB_OFFLINE=") for line in make("check").stdout.splitlines()]
    assert said == ["ruff check .", "ruff format --check .", "mypy ", "lint-imports "]


def test_make_bench_measures_against_the_peers_that_are_given(make):
    said = make("bench", ARGS="--rounds 1").stdout
    assert said == "python benchmarks/bench.py --rounds 1 HF_HUB_OFFLINE=1\n"


def test_make_test_vllm_runs_in_an_environment_of_its_own(make, tmp_path):
    stamp = tmp_path / "vllm"
    stamp.touch()
    said = make("test-vllm", VLLM_BIN=tmp_path, VLLM_INSTALLED=stamp, ARGS="-x").stdout
    assert said.startswith("python -m pytest tests/search_agents/engines/test_vllm_engine.py")
    assert all((ROOT / word).is_file() for word in said.split() if word.startswith("tests/"))


def test_without_network_make_test_vllm_says_what_it_needs(make, tmp_path):
    done = make("test-vllm", code=1, PYTHON="true", VLLM_BIN=tmp_path, VLLM_INSTALLED=tmp_path / "vllm")
    assert done.returncode != 0
    assert "needs the network once" in done.stderr and not (tmp_path / "vllm").exists()


@pytest.mark.parametrize(
    ("failing", "ran"), [("none", ["check", "test", "test-vllm"]), ("check", ["check"]), ("test", ["check", "test"])]
)
def test_ci_runs_the_checks_and_then_the_tests(tmp_path, failing, ran):
    log = tmp_path / "log"
    (tmp_path / "make").write_text(f'#!/bin/sh\necho "$1" >> {log}\n[ "$1" != {failing} ]\n')
    (tmp_path / "make").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run([ROOT / ".ci" / "run"], cwd=tmp_path, env={**os.environ, "PATH": path}, check=False)
    assert (done.returncode == 0) == (failing == "none")
    assert log.read_text().split() == ran
