"""What an ablation reached is kept as a page that leans on nothing that is not kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from search_agents.ablations.results import ablation_results
from search_agents.config import AblationConfig, load_config
from search_agents.config.recipes import find_recipe

from benchmarks import ablations


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """The folder of an ablation with one finished training of each arm."""
    folder = tmp_path / "ablation-mask"
    results: dict[str, Any] = ablation_results(load_config(AblationConfig, [find_recipe("mask", "ablations")], []), {})
    figures = {"mean": 0.5, "low": 0.5, "high": 0.5}
    metrics = dict.fromkeys(("em", "cem", "f1", "searches", "response_tokens", "answer_words"), figures)
    for day, arm in enumerate(("masked", "unmasked"), start=1):
        results["arms"][arm] = {
            "seeds": {"0": {}},
            "invalid": 0,
            "metrics": metrics,
            "f1_by_kind": {},
            "f1_by_hops": {},
        }
        run = folder / arm / "seed0"
        run.mkdir(parents=True)
        (run / "summary.json").write_text("{}")
        meta = {
            "command": f"search-env bench ablation {'reward' if day == 1 else 'mask'} --out /home/me/x",
            "started": f"2026-01-0{day}T00:00:00Z",
            "commit": "abcdef0123",
            "machine": {"cores": 2, "processor": "P"},
            "versions": {"torch": "1", "transformers": "2"},
        }
        (run / "meta.json").write_text(json.dumps(meta))
    (folder / "ablation.json").write_text(json.dumps({**results, "finished": 2}))
    (folder / "training.png").write_bytes(b"png")
    return folder


def test_figures_page_and_curves_are_kept_with_how_they_were_made(mask: Path, tmp_path: Path) -> None:
    ablations.main([str(mask), "--out", str(tmp_path / "kept")])
    kept = tmp_path / "kept" / "mask"
    assert {file.name for file in kept.iterdir()} == {"ablation.json", "ablation.md", "training.png"}
    text = (kept / "ablation.md").read_text()
    assert "| masked" in text and "cannot be said yet" in text
    assert "`search-env bench ablation mask`, 2026-01-01 and 2026-01-02: 2 trainings, each on 2 cores of P" in text
    assert "Copied from another ablation that had the same settings (`--reuse`): 1." in text
    assert all((kept / link).is_file() for link in re.findall(r"\]\((.+?)\)", text)) and "/home/me" not in text


@pytest.mark.parametrize(
    ("name", "message"), [("mine", "is not named as an ablation is: algorithm, data"), ("reward", "no training")]
)
def test_a_folder_that_is_no_ablation_is_refused_before_anything_is_kept(
    name: str, message: str, mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(SystemExit):
        ablations.main([str(mask), str(tmp_path / name), "--out", str(tmp_path / "kept")])
    assert message in capsys.readouterr().err and not (tmp_path / "kept").exists()
