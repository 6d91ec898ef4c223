"""The environment and the command line start at once and drag no framework in."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("search-env")
FRAMEWORKS = {"torch", "ray", "transformers", "datasets", "matplotlib", "vllm"}
VERBS = ("list", "play", "train", "eval", "resume", "index", "serve", "ask")


def run(arguments):
    """Run a Python command: (what it printed, top-level packages it imported, seconds of processor time)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        arguments, capture_output=True, text=True, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    imported = {
        line.rsplit("|", 1)[1].strip().split(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "encodings" in imported, "the interpreter told nothing of its imports"
    return done.stdout, imported, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_environment_is_imported_within_a_second_and_without_frameworks_or_agents():
    _, imported, seconds = run([sys.executable, "-c", "import search_env"])
    assert "search_env" in imported
    assert not imported & (FRAMEWORKS | {"search_agents", "tantivy", "Stemmer"})
    assert seconds < 1  # Of processor time, which a busy machine does not stretch much; measured: 0.2.


def test_help_is_printed_within_a_second_and_without_frameworks():
    printed, imported, seconds = run([COMMAND, "--help"])
    assert all(verb in printed for verb in VERBS)
    assert "search_agents" in imported
    assert not imported & FRAMEWORKS
    assert seconds < 1


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_three_examples_and_imports_no_framework(verb):
    printed, imported, seconds = run([COMMAND, verb, "--help"])
    assert printed.count(f"search-env {verb}") >= 3
    assert not imported & FRAMEWORKS
    assert seconds < 3


@pytest.mark.parametrize("module", ["search_agents", "search_agents.cli", "search_agents.config"])
def test_what_every_command_imports_needs_no_framework(module):
    _, imported, _ = run([sys.executable, "-c", f"import {module}"])
    assert "search_agents" in imported
    assert not imported & FRAMEWORKS
