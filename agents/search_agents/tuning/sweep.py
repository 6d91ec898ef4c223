"""A sweep with Ray Tune: many trials of a recipe, of which a scheduler stops or moves the weak ones.

Started again with the same config, a sweep that was stopped goes on: trials that are
done are left as they are, the others go on from their newest checkpoint, and those that
failed are tried again.

Ray Tune keeps what it needs for that in ``ray/``, pickled: going on reads these files
and runs what they hold. Go on with sweeps of your own only.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator

from search_agents.config import TrainConfig, differing_keys
from search_agents.config.tuning import DrawSection, SweepConfig
from search_agents.learning.run_folder import write_json
from search_agents.tuning.loggers import check_loggers, make_callbacks, numbers
from search_agents.tuning.results import is_over, read_reports, trial_rows, write_results
from search_agents.tuning.trial import SweepTrial
from search_env.errors import ConfigError, RunError

__all__ = ["run_sweep"]

_RAY = "ray"
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the sweep names its loggers
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output shows tables even when it is told to be quiet
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",  # of iterations shorter than five seconds
}
_CHECKPOINTS_FOR_PBT = 4  # of a strong trial, while others may still be about to copy one


def run_sweep(sweep: SweepConfig, recipe: TrainConfig, out: Path, *, tell: Callable[[str], None]) -> str:
    """Run a sweep, or what is left of it.

    Args:
        sweep: The sweep, checked (see `search_agents.config.tuning.check_sweep`).
        recipe: The recipe that is swept.
        out: Its folder: new, or that of the same sweep.
        tell: Is told of every iteration; must be picklable, for Tune keeps it.

    Returns:
        The table of all trials, and how to train with the best one's values.

    Raises:
        ConfigError: If the machine has not what a trial needs.
        MissingDependencyError: If a logger's package is not installed.
        RunError: If the folder holds something else, or every trial has failed.
        KeyboardInterrupt: If the user stopped it; its text says how to go on.
    """
    check_loggers(sweep)
    goes_on = _open(out, sweep, recipe)
    trained = _with_gpus(recipe)
    with _environment(_ENVIRONMENT), _ray(sweep, trained):
        tuner = _restored(sweep, trained, out) if goes_on else _new(sweep, trained, out, tell)
        tuner.fit()
    rows = trial_rows(sweep, out)
    text = write_results(rows, sweep, recipe, out)
    if not is_over(rows, sweep):
        tell(text)
        raise KeyboardInterrupt("go on with the same command; finished trials are kept")
    if all(row["status"] == "failed" for row in rows):
        tell(text)
        raise RunError("every trial of the sweep has failed; the table says why.")
    return text


def _open(out: Path, sweep: SweepConfig, recipe: TrainConfig) -> bool:
    """Make the folder of the sweep; returns whether it was begun before."""
    stored = {"sweep": sweep.model_dump(mode="json"), "recipe": recipe.model_dump(mode="json")}
    file = out / "config.json"
    if file.is_file() and any((out / _RAY).glob("experiment_state-*.json")):
        keys = differing_keys(json.loads(file.read_text(encoding="utf-8")), stored)
        if keys:
            raise RunError(
                f"cannot go on with {out}: the command differs from the one that began it in: {', '.join(keys)}. "
                "Give the same command, or start a new sweep with --out FOLDER."
            )
        return True
    # A sweep that was stopped before its first trial leaves no more than this.
    unused = {file.name, _RAY} if file.is_file() else set()
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - unused):
        raise RunError(f"{out} exists and is not empty, and holds no sweep. Give another folder with --out.")
    write_json(file, stored)
    return False


def _new(sweep: SweepConfig, recipe: TrainConfig, out: Path, tell: Callable[[str], None]) -> tune.Tuner:
    concurrent = 0 if sweep.scheduler == "pbt" else sweep.concurrent  # a population takes turns: all of it is alive
    return tune.Tuner(
        _trainable(sweep, recipe),
        param_space=_param_space(sweep),
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode=sweep.mode,
            num_samples=sweep.samples,
            search_alg=BasicVariantGenerator(max_concurrent=concurrent, random_state=sweep.seed),
            scheduler=_scheduler(sweep),
            reuse_actors=True,  # a new process would import torch again
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=_RAY,
            storage_path=str(out.resolve()),
            stop={"training_iteration": sweep.max_iterations},
            callbacks=make_callbacks(sweep, tell),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=1, num_to_keep=_CHECKPOINTS_FOR_PBT if sweep.scheduler == "pbt" else 1
            ),
            verbose=0,
        ),
    )


def _restored(sweep: SweepConfig, recipe: TrainConfig, out: Path) -> tune.Tuner:
    return tune.Tuner.restore(
        str((out / _RAY).resolve()),
        trainable=_trainable(sweep, recipe),
        param_space=_param_space(sweep),
        resume_errored=True,
    )


def _trainable(sweep: SweepConfig, recipe: TrainConfig) -> type[SweepTrial]:
    # A trial and its learners pass each other weights by the disk of their machine, so all are on one.
    resources = tune.PlacementGroupFactory(_bundles(sweep, recipe), strategy="STRICT_PACK")
    made: type[SweepTrial] = tune.with_parameters(
        tune.with_resources(SweepTrial, resources),
        recipe=recipe.model_dump(mode="json"),
        threads=sweep.resources.cpus,
        steps_per_iteration=sweep.steps_per_iteration,
        folder=str(Path.cwd()),
    )
    return made


def _bundles(sweep: SweepConfig, recipe: TrainConfig) -> list[dict[str, float]]:
    """What a trial reserves: for itself, for each remote runner (RLlib counts on this order) and each learner."""
    runners = _bundle(1, recipe.gpus_per_env_runner)
    learners = _bundle(1, recipe.learner.num_gpus_per_learner or 0)
    return [
        _bundle(sweep.resources.cpus, sweep.resources.gpus),
        *[runners] * recipe.rollout.num_env_runners,
        *[learners] * recipe.learner.num_learners,
    ]


def _bundle(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": float(cpus), "GPU": float(gpus)} if gpus else {"CPU": float(cpus)}


def _with_gpus(recipe: TrainConfig) -> TrainConfig:
    """The recipe, with the GPUs of its remote learners where it leaves them open.

    It is decided here and for all trials: the process of a trial may see no GPU where its learners have some.
    """
    if not recipe.learner.num_learners:
        return recipe
    from search_agents.learning.build import gpus_per_learner

    decided = {"num_gpus_per_learner": gpus_per_learner(recipe.learner)}
    return recipe.model_copy(update={"learner": recipe.learner.model_copy(update=decided)})


def _param_space(sweep: SweepConfig) -> dict[str, Any]:
    return {
        key: tune.grid_search(list(draw.grid)) if draw.grid is not None else _domain(draw)
        for key, draw in sweep.space.items()
    }


def _domain(draw: DrawSection) -> Any:
    if draw.loguniform is not None:
        return tune.loguniform(*draw.loguniform)
    if draw.uniform is not None:
        return tune.uniform(*draw.uniform)
    if draw.randint is not None:
        return tune.randint(draw.randint[0], draw.randint[1] + 1)
    return tune.choice(list(draw.values))


def _scheduler(sweep: SweepConfig) -> TrialScheduler:
    if sweep.scheduler == "asha":
        return _ASHA(
            time_attr="training_iteration",
            max_t=sweep.max_iterations,
            grace_period=sweep.asha.grace_period,
            reduction_factor=sweep.asha.reduction_factor,
        )
    if sweep.scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=sweep.pbt.perturbation_interval,
            quantile_fraction=sweep.pbt.quantile_fraction,
            resample_probability=sweep.pbt.resample_probability,
            # A list makes Tune step to the value next to it; a range, multiply.
            hyperparam_mutations={
                key: _domain(draw) if draw.bounds else list(draw.values) for key, draw in sweep.space.items()
            },
            custom_explore_fn=partial(_within_bounds, {key: draw.bounds for key, draw in sweep.space.items()}),
        )
    return FIFOScheduler()


class _ASHA(ASHAScheduler):  # type: ignore[misc]  # ray is untyped
    """ASHA that goes on where it stopped: Tune restores the trials, but not what the scheduler knew of them."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take up a trial, with what it had reported before the sweep was stopped."""
        super().on_trial_add(tune_controller, trial)
        if not trial.has_reported_at_least_once:
            return  # a new one, without a folder yet
        reports = read_reports(Path(trial.path))
        judged = reports if trial.is_finished() else reports[:-1]  # the last may have come with the stop
        for report in judged:
            value = numbers(report)[self._metric]
            self._trial_info[trial.trial_id].on_result(trial, report[self._time_attr], self._metric_op * value)


def _within_bounds(bounds: Mapping[str, tuple[float, float] | None], config: dict[str, Any]) -> dict[str, Any]:
    # Tune multiplies without a look at the range, and so leaves it: a clip range might come above 1.
    limited = {key: min(max(config[key], pair[0]), pair[1]) for key, pair in bounds.items() if pair is not None}
    return {**config, **limited}


def _trial_name(trial: Any) -> str:
    return str(trial.trial_id)


@contextmanager
def _ray(sweep: SweepConfig, recipe: TrainConfig) -> Iterator[None]:
    """Ray within the block: the one that runs, or one on this machine with room for the concurrent trials."""
    if ray.is_initialized():
        _check_gpus(sweep, recipe)
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    else:
        cpus = sweep.concurrent * sum(bundle["CPU"] for bundle in _bundles(sweep, recipe))
        ray.init(num_cpus=int(cpus), include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        _check_gpus(sweep, recipe)
        yield
    finally:
        ray.shutdown()


def _check_gpus(sweep: SweepConfig, recipe: TrainConfig) -> None:
    """A trial that asks for more GPUs than there are would wait for ever.

    Raises:
        ConfigError: If it does.
    """
    own, *others = (bundle.get("GPU", 0.0) for bundle in _bundles(sweep, recipe))
    gpus = ray.cluster_resources().get("GPU", 0.0)
    if own + sum(others) <= gpus or os.environ.get("RAY_ADDRESS"):  # a cluster may grow
        return
    runners, learners = recipe.rollout.num_env_runners, recipe.learner.num_learners
    raise ConfigError(
        f"a trial asks for {own + sum(others):g} GPUs, but this machine has {gpus:g}: {own:g} for itself "
        f"(resources.gpus), and {sum(others):g} for {runners} runners and {learners} learners of the recipe. Write "
        + ("fewer of these, or no GPUs for them, under `settings`" if sum(others) > gpus else "--resources.gpus 0")
        + ", or connect to a cluster: RAY_ADDRESS=HOST:PORT."
    )


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
