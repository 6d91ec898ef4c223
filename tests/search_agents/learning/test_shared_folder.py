"""Several machines: weights that one of them writes and another does not find are no checkpoint, and no model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from search_agents.learning import ReinforcePP, build
from search_agents.learning.build import evaluation_engine
from search_agents.learning.checkpoint import load_checkpoint, save_checkpoint
from search_agents.learning.shared_folder import holds_weights

from search_env.errors import RunError

FILES = ("model.safetensors", "optimizer.safetensors")


class Group:
    """Learners on machines that have a disk of their own, or one with the driver."""

    is_remote = True
    folder: Path

    def __init__(self, *, shared: bool, disk: Path) -> None:
        self.shared, self.disk = shared, disk

    def on_first_learner(self, function: Callable[[Any], Any]) -> Any:
        return function(self)

    def on_every_learner(self, function: Callable[[Any], Any]) -> list[Any]:
        """The first learner runs on the driver's machine, the second on its own."""
        results = [function(self)]
        if self.shared:
            return [*results, function(self)]
        kept = [path.rename(self.disk / path.name) for path in self.folder.iterdir()]
        results.append(function(self))
        for path in kept:
            path.rename(self.folder / path.name)
        return results

    def save_to_folder(self, folder: str, *, files: tuple[str, ...] = FILES) -> None:
        here = Path(folder) if self.shared else self.disk
        for name in files:
            (here / name).write_text("weights")

    def save_pretrained(self, folder: str) -> None:
        Path(folder).mkdir(exist_ok=True)
        self.save_to_folder(folder, files=("model.safetensors",))

    def load_from_folder(self, folder: str, *, env_steps: int) -> None:
        self.loaded = folder


@pytest.fixture
def run(tmp_path: Path) -> Any:
    (tmp_path / "other").mkdir()
    group = Group(shared=True, disk=tmp_path / "other")
    return SimpleNamespace(
        learner_group=group,
        get_progress=lambda: {"env_steps": 0, "steps_done": 3},
        set_progress=lambda state: None,
        get_sampler=lambda: None,
    )


def test_a_checkpoint_whose_weights_are_elsewhere_is_none(run: Any, tmp_path: Path) -> None:
    run.learner_group.shared = False
    with pytest.raises(RunError, match=r"weights are not in .*step_3 where the driver looks .* --out FOLDER"):
        save_checkpoint(run, tmp_path / "run" / "step_3")
    assert not list((tmp_path / "run").iterdir()), "neither a checkpoint nor the beginning of one"
    run.learner_group.shared = True
    assert (save_checkpoint(run, tmp_path / "run" / "step_3") / "COMPLETE").exists()


def test_a_learner_that_does_not_see_the_checkpoint_says_so(run: Any, tmp_path: Path) -> None:
    folder = run.learner_group.folder = save_checkpoint(run, tmp_path / "step_3")
    load_checkpoint(run, folder)
    assert run.learner_group.loaded == str(folder) and run._iteration == 3
    run.learner_group.shared, run.learner_group.loaded = False, None
    with pytest.raises(RunError, match=r"step_3 where a learner looks for them.* all machines mount"):
        load_checkpoint(run, folder)
    assert run.learner_group.loaded is None


def test_a_model_that_was_written_elsewhere_is_not_taken_for_one(run: Any, tmp_path: Path) -> None:
    ReinforcePP.save_model(run, tmp_path / "model")
    run.learner_group.shared = False
    with pytest.raises(RunError, match="do not share that disk"):
        ReinforcePP.save_model(run, tmp_path / "model-2")


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        (("model.safetensors", "optimizer.safetensors"), True),
        (("adapter_model.safetensors", "optimizer.safetensors"), True),
        (("model-00001-of-00002.safetensors", "optimizer.safetensors"), True),
        (("model.safetensors",), False),
        (("sampler.safetensors", "optimizer.safetensors"), False),
    ],
)
def test_weights_are_a_model_or_an_adapter_and_the_moments(tmp_path: Path, files: tuple[str, ...], whole: bool) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert holds_weights(tmp_path, "optimizer.safetensors") is whole


def test_a_copy_to_evaluate_takes_the_last_gpu_in_the_format_that_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[dict[str, str]] = []
    engine = SimpleNamespace(from_pretrained=lambda path, **given: loaded.append(given) or SimpleNamespace())
    monkeypatch.setattr(build, "TransformersEngine", engine)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    for settings in (
        {"autocast": True, "engine": "transformers"},
        {"autocast": False, "engine": "vllm", "engine_dtype": "bfloat16"},
        {"autocast": False, "engine": "vllm", "engine_dtype": None, "num_gpus_per_learner": 0},
    ):
        config = {
            "shares_module": False,
            "dtype": "float32",
            "engine_dtype": None,
            "continuous": None,
            "num_gpus_per_learner": 1,
            **settings,
        }
        algorithm: Any = SimpleNamespace(config=SimpleNamespace(**config), save_model=lambda path: None)
        evaluation_engine(algorithm, tmp_path)
    assert loaded == [
        {"dtype": "bfloat16", "device": "cuda:7", "continuous": None},
        {"dtype": "bfloat16", "device": "cuda:7", "continuous": None},
        {"dtype": "float32", "device": "cpu", "continuous": None},
    ]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        ({}, torch.float32),
        ({"autocast": True}, torch.bfloat16),
    ],
)
def test_weights_for_an_evaluation_pass_through_the_run_folder_and_leave_nothing(
    make_config: Callable[..., Any],
    start: Callable[[Any], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    dtype: torch.dtype,
) -> None:
    algorithm = start(make_config(**settings).learners(num_learners=1).env_runners(num_env_runners=0))
    (tmp_path / ".evaluated").mkdir()
    (tmp_path / ".evaluated" / "of a stopped run").touch()
    written: list[Path] = []

    def save_model(folder: Path) -> None:
        written.append(folder)
        ReinforcePP.save_model(algorithm, folder)

    monkeypatch.setattr(algorithm, "save_model", save_model)
    engine = evaluation_engine(algorithm, tmp_path)
    assert written == [tmp_path / ".evaluated"] and not list(tmp_path.iterdir())
    assert engine.model.dtype == dtype and engine.autocast is bool(settings)
