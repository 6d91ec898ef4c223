"""Where the metrics of trials go while a sweep runs: files, TensorBoard, trackers, and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback, LoggerCallback, TBXLoggerCallback

from search_agents.config.tuning import SweepConfig
from search_env.errors import MissingDependencyError

__all__ = ["JSONLogger", "TrackioLogger", "check_loggers", "make_callbacks", "numbers", "trial_number"]

_PACKAGES = {
    "tensorboard": ("tensorboardX", "search-env[train]"),
    "wandb": ("wandb", "search-env[wandb]"),
    "trackio": ("trackio", "search-env[trackio]"),
}


def check_loggers(sweep: SweepConfig) -> None:
    """Check that what the loggers need is installed.

    Raises:
        MissingDependencyError: If not; its text holds the command that installs it.
    """
    for name in sweep.loggers:
        package, extra = _PACKAGES.get(name, (None, None))
        if package is not None and find_spec(package) is None:
            raise MissingDependencyError(
                f"the logger {name!r} needs the package {package}. Install it: pip install '{extra}', "
                f"or leave {name} out of `loggers`."
            )


def make_callbacks(sweep: SweepConfig, tell: Callable[[str], None]) -> list[Callback]:
    """What Tune tells of every result.

    Args:
        sweep: Says which loggers.
        tell: Is told of every iteration, in a line.
    """
    makers: dict[str, Callable[[], Callback]] = {
        "csv": _CSVLogger,
        "tensorboard": TBXLoggerCallback,
        "wandb": lambda: _wandb(sweep.name),
        "trackio": lambda: TrackioLogger(sweep.name),
    }
    # The tables of a sweep are made from the JSON files.
    return [JSONLogger(), *(makers[name]() for name in sweep.loggers), _Terminal(sweep.metric, tell)]


def numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers among nested values, under names joined by a slash."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix + name] = value
    return found


def trial_number(trial: Any) -> int:
    """Number of a trial, from 1, in the order in which they were drawn."""
    return int(trial.trial_id.rpartition("_")[2]) + 1


class _KeepsWhatItWrote(LoggerCallback):  # type: ignore[misc]  # ray is untyped
    """Takes up a trial's stored file only where there is none beside it.

    Tune copies the stored file over the local one whenever a trial starts again, as each does that pbt moves. The
    stored one is older by what has been reported since Tune last stored it, which would be lost.
    """

    def _restore_from_remote(self, file_name: str, trial: Any) -> None:
        if not Path(trial.local_path, file_name).exists():
            super()._restore_from_remote(file_name, trial)


class JSONLogger(_KeepsWhatItWrote, JsonLoggerCallback):  # type: ignore[misc]  # ray is untyped
    """Writes each report of a trial into its ``result.json``, a line each."""


class _CSVLogger(_KeepsWhatItWrote, CSVLoggerCallback):  # type: ignore[misc]  # ray is untyped
    pass


def _wandb(project: str) -> Callback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(project=project, log_config=True)


class TrackioLogger(LoggerCallback):  # type: ignore[misc]  # ray is untyped
    """Sends the metrics of each trial to trackio, a run for each.

    Args:
        project: The project in trackio.
    """

    def __init__(self, project: str) -> None:
        self._project = project
        self._runs: dict[str, Any] = {}

    def log_trial_start(self, trial: Any) -> None:
        """Begin the trial's run, or take it up again."""
        trackio = import_module("trackio")
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = trackio.init(
                project=self._project, name=trial.trial_id, config=dict(trial.config), resume="allow"
            )

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Send the metrics of an iteration."""
        self.log_trial_start(trial)
        metrics = {name: value for name, value in result.items() if name in ("train", "held_out", "steps")}
        self._runs[trial.trial_id].log(metrics=numbers(metrics), step=result["training_iteration"])

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """End the trial's run."""
        run = self._runs.pop(trial.trial_id, None)
        if run is not None:
            run.finish()


class _Terminal(Callback):  # type: ignore[misc]  # ray is untyped
    """A line for each iteration and each failure."""

    def __init__(self, metric: str, tell: Callable[[str], None]) -> None:
        self._metric, self._tell = metric, tell

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        # The result's values, not the trial's: pbt may have given it others already.
        drawn = ", ".join(f"{key} {_short(value)}" for key, value in result["config"].items())
        value = numbers(result).get(self._metric)
        measured = f"{self._metric} {'not measured' if value is None else format(value, '.3f')}"
        self._tell(f"trial {trial_number(trial)}, iteration {result['training_iteration']}: {measured} ({drawn})")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(f"trial {trial_number(trial)} failed; the table at the end says why")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
