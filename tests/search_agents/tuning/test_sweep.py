"""Whole sweeps with the tiny model: what they leave, that a stop changes nothing in it, and that pbt moves trials."""

from __future__ import annotations

import csv
import gc
import io
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("torch")

from search_agents.config import TrainConfig, load_config
from search_agents.config.tuning import SweepConfig, base_recipe
from search_agents.tuning.sweep import run_sweep

from search_env.errors import RunError

TINY = {
    "learner.prompts_per_batch": 2,
    "learner.group_size": 2,
    "learner.minibatch_size": 4,
    "rollout.max_segment_tokens": 12,
    "rollout.max_episode_tokens": 96,
    "evaluation.questions": 2,
    "evaluation.batch_size": 2,
    "stages.0.max_steps": 3,
    "stages.1.max_steps": 1,
}
# The untrained model searches and keeps the format now and then, so the first reward is the larger one.
LARGE, SMALL = {"retrieval": 1.0, "format": 1.0}, {"retrieval": 1e-3, "format": 1e-3}
TOLD: list[str] = []
RAY_CPUS = 1  # one trial runs at a time
pytestmark = pytest.mark.usefixtures("ray_cluster")


def tell(line: str) -> None:
    """Keeps what a sweep tells; a function of a module, because Tune pickles it."""
    TOLD.append(line)


def tell_and_interrupt(line: str) -> None:
    begins = "trial 1, iteration 2:"
    if line.startswith(begins) and not any(told.startswith(begins) for told in TOLD):
        os.kill(os.getpid(), signal.SIGINT)
    tell(line)


def sweep_of(**values: Any) -> SweepConfig:
    return SweepConfig.model_validate(
        {"settings": TINY, "metric": "train/reward", "max_iterations": 3, "steps_per_iteration": 1, **values}
    )


ASHA = sweep_of(
    space={"stages.0.reward": {"grid": [LARGE, SMALL, "no-such-reward"]}},
    samples=1,
    asha={"grace_period": 1, "reduction_factor": 2},
)


def trials_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / "sweep.json").read_text())["trials"]
    return rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was never stopped."""
    out = tmp_path_factory.mktemp("sweeps") / "asha"
    (out.parent / "printed").write_text(run_sweep(ASHA, base_recipe(ASHA), out, tell=tell))
    return out


def test_asha_stops_the_weak_trial_and_a_trial_that_fails_is_in_the_table(finished: Path) -> None:
    strong, weak, failed = trials_of(finished)
    assert [row["status"] for row in (strong, weak, failed)] == ["finished", "stopped early", "failed"]
    assert [row["iterations"] for row in (strong, weak, failed)] == [3, 1, 0]
    assert strong["last"] > weak["last"] >= 0
    assert strong["best"] == max(value for _, value in strong["curve"])
    assert failed["config"] == {"stages.0.reward": "no-such-reward"}
    assert "unknown reward 'no-such-reward'" in failed["error"]
    printed = (finished.parent / "printed").read_text()
    assert "trial 3: " in printed and "no-such-reward" in printed


def test_a_sweep_leaves_tables_plots_logs_and_the_best_recipe(finished: Path) -> None:
    assert {path.name for path in (finished / "plots").iterdir()} == {
        "curves.png", "curves.svg", "fields.png", "fields.svg",
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO((finished / "sweep.csv").read_text())))
    assert [row["trial"] for row in rows] == ["1", "2", "3"]
    assert json.loads(rows[0]["stages.0.reward"]) == LARGE
    best = load_config(TrainConfig, [finished / "best.yaml"])
    assert best.stages[0].reward == LARGE
    assert best.run == base_recipe(ASHA).run, "a trial's threads are its own"
    strong = trials_of(finished)[0]
    assert {"progress.csv", "result.json"} < {path.name for path in (finished / strong["folder"]).iterdir()}
    assert list((finished / strong["folder"]).glob("events.out.tfevents.*"))
    assert (finished / strong["checkpoint"] / "agent" / "COMPLETE").is_file()


def test_a_sweep_that_is_interrupted_and_begun_again_ends_as_if_it_had_not_been(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "asha"
    TOLD.clear()
    with warnings.catch_warnings():  # Tune leaves the files of its loggers to the end of the process
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(KeyboardInterrupt, match="the same command"):
            run_sweep(ASHA, base_recipe(ASHA), out, tell=tell_and_interrupt)
        gc.collect()
    assert [row["status"] for row in trials_of(out)] == ["unfinished"]
    run_sweep(ASHA, base_recipe(ASHA), out, tell=tell)
    assert sum(line.startswith("trial 1, iteration 1:") for line in TOLD) == 1, (
        "what has a checkpoint is not done again"
    )
    ignored = {"seconds", "folder", "checkpoint"}
    untimed = [
        [{key: value for key, value in row.items() if key not in ignored} for row in trials_of(folder)]
        for folder in (out, finished)
    ]
    assert untimed[0] == untimed[1]


def test_another_sweep_in_the_same_folder_is_refused_with_the_keys_that_differ(finished: Path) -> None:
    other = ASHA.model_copy(update={"seed": 1})
    with pytest.raises(RunError, match=r"differs from the one that began it in: sweep\.seed\."):
        run_sweep(other, base_recipe(other), finished, tell=tell)


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="holds no sweep"):
        run_sweep(ASHA, base_recipe(ASHA), tmp_path, tell=tell)


def test_pbt_lets_the_weak_trial_go_on_from_the_strong_one_with_a_value_in_the_range(tmp_path: Path) -> None:
    sweep = sweep_of(
        space={"stages.0.reward": {"grid": [LARGE, SMALL]}, "learner.lr": {"loguniform": [1e-5, 1.1e-5]}},
        samples=1,
        scheduler="pbt",
        pbt={"perturbation_interval": 1, "quantile_fraction": 0.5, "resample_probability": 0.0},
    )
    run_sweep(sweep, base_recipe(sweep), tmp_path / "pbt", tell=tell)
    strong, weak = trials_of(tmp_path / "pbt")
    assert [row["status"] for row in (strong, weak)] == ["finished", "finished"]
    assert not strong["changes"]
    assert weak["changes"], "it was never moved"
    for change in weak["changes"]:
        assert 1e-5 <= change["config"]["learner.lr"] <= 1.1e-5
    assert weak["steps"] == strong["steps"] == 3, "a trial that is moved goes on where the other stood"


def test_a_trial_knows_its_threads_before_torch_is_loaded() -> None:
    script = "import sys, search_agents.tuning.trial, search_agents.tuning.sweep; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
