"""The page of the evidence: gains against the best without RL, and what was not run is told as such."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks import evidence


def test_the_gain_is_against_the_best_method_without_rl_that_was_measured_alike(tmp_path: Path) -> None:
    scores = {"f1": 0.2, "em": 0.0, "cem": 0.1, "temperature": 0.0}
    environment = {"id": "SearchQA-FictionalWiki-v0", "questions": 9, "documents": 1234, "top_k": 3, "max_searches": 8}
    without = {key: scores for key in evidence._WITHOUT_RL} | {"forced_query": {**scores, "f1": 0.25}}
    folder = tmp_path / "fictional-wiki"
    folder.mkdir()
    for seed, f1 in enumerate((0.4, 0.6)):
        after = {**scores, "f1": f1, "em": 0.3}
        (folder / f"summary-seed{seed}.json").write_text(
            json.dumps({"environment": environment, "after": after, **without})
        )
    text = evidence.page(tmp_path)
    assert "Gain in F1 over the best method without RL (search agent, untrained, first query forced): +100 %." in text
    assert "No method without RL has EM above 0, and RL reaches 0.300." in text
    assert "0.500 (0.400 to 0.600)" in text and "1,234 passages" in text
    sft = {"sft": [{"scores": {"0": {"after": {"f1": 0.625, "em": 0.5}}}}]}
    (tmp_path / "fictional-wiki-sft.json").write_text(json.dumps(sft))
    text = evidence.page(tmp_path)
    assert (
        "Gain in F1 over the best method without RL (imitation (SFT)): -20 %." in text and "Gain in ACC_R" not in text
    )


def test_what_was_not_run_is_told_and_a_page_that_is_there_is_taken_over(tmp_path: Path) -> None:
    assert evidence.page(tmp_path).count(evidence.NOT_YET) == 5
    (tmp_path / "generalisation.md").write_text("# Title\n\nIn short.\n\n## F1\n\n| a |\n")
    text = evidence.page(tmp_path)
    assert "In short.\n\n### F1\n\n| a |" in text and "# Title" not in text
    assert text.count(evidence.NOT_YET) == 4


def test_the_page_that_is_kept_is_the_one_of_the_results_that_are_kept(tmp_path: Path) -> None:
    shutil.copytree(evidence.RESULTS, tmp_path / "results")
    assert (evidence.RESULTS / "evidence.md").read_text() == evidence.page(tmp_path / "results")
