"""What is kept of a sweep can be read without it, and on the page of the evidence."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import evidence, sweep


def test_every_trial_the_plot_and_the_winner_are_kept(tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "plots").mkdir(parents=True)
    settings = {"name": "small", "recipe": "fictional-wiki", "settings": {"evaluation.split": "dev"}, "concurrent": 1,
                "scheduler": "asha", "steps_per_iteration": 4, "metric": "held_out/f1"}  # fmt: skip
    (made / "config.json").write_text(json.dumps({"sweep": settings}))
    (made / "sweep.json").write_text("{}")
    (made / "sweep.csv").write_text("trial,status,last,seconds,learner.lr,error\n2,finished,0.81,90,0.000321456,\n"
                                    "1,stopped early,0.3,30,0.0001,\n")  # fmt: skip
    for name in ("curves.png", "fields.png"):
        (made / "plots" / name).write_bytes(b"a picture")
    won = tmp_path / "won"
    won.mkdir()
    scores = {"after": {"f1": 0.8, "em": 0.75}, "environment": {"questions": 200, "split": "test"}}
    (won / "summary.json").write_text(json.dumps(scores))
    sweep.main(
        [
            str(made),
            "--winner",
            str(won),
            "--remark",
            "On a busy machine.",
            "--out",
            str(tmp_path / "results" / "sweeps"),
        ]
    )
    kept = tmp_path / "results" / "sweeps" / "small"
    assert (kept / "curves.png").read_bytes() == b"a picture" and (kept / "sweep.json").is_file()
    text = evidence.page(tmp_path / "results").split("## A sweep")[1]
    assert "2 minutes of training" in text and "evaluation.split dev" in text and "![Every trial](sweeps/small/" in text
    assert "On a busy machine." in text
    assert text.index("0.0003215") < text.index("stopped early") and "error" not in text
    assert "values of trial 2, the model has F1 0.800 and EM 0.750 on 200 test questions" in text
