"""The driver of ``search-env train`` and ``sft``: evaluate, train through the stages, evaluate again, report.

Every part of a run is done once and kept: a resumed run skips the evaluations that are
written, goes on from the newest complete checkpoint, and does the steps after it again.
What it then writes is what it would have written without the stop. Where a process of a
learner is killed, the run does that by itself.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from search_agents.config import EvalConfig, SFTConfig
from search_agents.evaluation.evaluate import HeldOut
from search_agents.learning.algorithm import ReinforcePP
from search_agents.learning.build import build_algorithm, build_supervised, evaluation_engine, open_trajectories
from search_agents.learning.checkpoint import bytes_needed, load_checkpoint, save_checkpoint
from search_agents.learning.deaths import DEATHS, is_death
from search_agents.learning.interrupt import deferred_interrupt
from search_agents.learning.progress import Progress, make_progress
from search_agents.learning.provenance import command_line, describe_origin, timestamp
from search_agents.learning.run_folder import RunConfig, RunFolder
from search_agents.learning.start import quiet_libraries
from search_agents.learning.step_record import episode_records, metrics_row
from search_agents.learning.summary import evaluation_name, write_summary
from search_agents.learning.tensorboard import ScalarLog
from search_agents.models import write_protocol
from search_env.errors import ProcessDied, SearchEnvError
from search_env.render import visible

__all__ = ["resume", "train"]

_AGENT = "r1-searcher"
_BEFORE = {
    "closed_book_before": "naive-generation",
    "rag_before": "standard-rag",
    "forced_query": "r1-searcher-forced-query",
    "oracle": "oracle",
    "random": "random",
}
_AFTER = {"closed_book_after": "naive-generation", "rag_after": "standard-rag"}
_RESTARTS = 3
"""So many times in a row a run begins again without a new checkpoint; then the user is asked."""
_STOPPING = "stopping after this step, to save it (Ctrl-C again: stop at once and lose the step)"


def train(config: RunConfig, *, out: Path | None = None, display: str = "auto") -> Path:
    """Run a training from its start.

    Args:
        config: Everything that decides the run.
        out: The run folder, new or empty; None makes ``outputs/<name>-<time>``.
        display: See `search_agents.learning.progress.DISPLAYS`.

    Returns:
        The run folder.

    Raises:
        SearchEnvError: If a setting, the data or the model is wrong.
        KeyboardInterrupt: If the user stopped the run; its text says how to go on.
    """
    folder = RunFolder.create(out, config, describe_origin())
    try:
        return _drive(config, folder, display)
    except SearchEnvError:
        folder.remove_if_unused()  # so that the same command works once the mistake is mended
        raise


def resume(folder: RunFolder, *, display: str = "auto") -> Path:
    """Go on with a run that was stopped; a finished run is left as it is.

    Args:
        folder: The run folder.
        display: See `search_agents.learning.progress.DISPLAYS`.

    Returns:
        The run folder.

    Raises:
        SearchEnvError: If the run cannot be resumed.
        KeyboardInterrupt: If the user stopped the run again.
    """
    config = folder.config()
    if folder.finished:
        sys.stdout.write("The run is finished; there is nothing to go on with.\n")
        return folder.path
    return _drive(config, folder, display)


def _drive(config: RunConfig, folder: RunFolder, display: str) -> Path:
    torch.set_num_threads(config.run.threads)
    quiet_libraries()
    progress = make_progress(display, _max_steps(config))
    try:
        report = _go(config, folder, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with: search-env resume {folder.path}") from None
    except OSError as error:
        error.add_note(f"go on with: search-env resume {folder.path}")
        raise
    finally:
        progress.close()
    sys.stdout.write(f"\n{visible(report)}\n\n")
    return folder.path


def _go(config: RunConfig, folder: RunFolder, progress: Progress) -> str:
    """Do the run; where a process of it is killed, begin again at the newest checkpoint."""
    restarts, newest = 0, folder.checkpoints()[-1:]
    while True:
        try:
            return _Run(config, folder, progress).go()
        except DEATHS as error:
            if not is_death(error):
                raise
            before, newest = newest, folder.checkpoints()[-1:]
            restarts = restarts + 1 if newest == before else 1
            if restarts > _RESTARTS:
                raise ProcessDied(
                    f"a process of the training died {restarts} times with no new checkpoint in between. Most often "
                    "memory has run out (the kernel's log says so): make room, and go on with: "
                    f"search-env resume {folder.path}. The last one: {error}"
                ) from error
        since = f"the checkpoint {newest[0].name}" if newest else "the start, for there is no checkpoint yet"
        progress.phase(f"a process of the training died; going on from {since} (restart {restarts} of {_RESTARTS})")


def _max_steps(config: RunConfig) -> int:
    if not isinstance(config, SFTConfig):
        return config.max_steps
    episodes = (open_trajectories(config).counts() or {"kept": 0})["kept"]
    return config.sft.epochs * -(-episodes // config.learner.minibatch_size)


def _held_out(config: RunConfig) -> HeldOut:
    if not isinstance(config, SFTConfig):
        return HeldOut(config)
    shared = {name: getattr(config, name) for name in ("env", "model", "rollout", "evaluation", "run")}
    return HeldOut(EvalConfig(**shared))


class _Run:
    """One start of a run: from wherever it stands to its end."""

    def __init__(self, config: RunConfig, folder: RunFolder, progress: Progress) -> None:
        self._config, self._folder, self._progress = config, folder, progress
        self._begun = time.perf_counter()
        self._earlier = folder.seconds_spent()
        self._imitated: dict[str, Any] | None = None

    def go(self) -> str:
        """Do all that is left to do; returns the final tables."""
        self._open()
        try:
            return self._work()
        except DEATHS:
            self._algorithm.stop()  # the processes that are left, for their resources are wanted again
            raise

    def _work(self) -> str:
        with ScalarLog(self._folder.path / "tensorboard", after_step=self._algorithm.steps_done) as self._scalars:
            self._evaluate("the untrained model", agent="before", baselines=_BEFORE)
            while not self._algorithm.finished:
                if self._first_stage_is_over():
                    self._evaluate("the agent after the first stage", agent="stage1")
                self._step()
            self._evaluate("the trained model", agent="after", baselines=_AFTER)
        model = self._folder.path / "model"
        self._algorithm.save_model(model)
        write_protocol(model, self._config)
        self._progress.phase("writing plots, examples, the report and the summary")
        return write_summary(
            self._config, self._folder, self._held_out, seconds=self._elapsed(), imitated=self._imitated
        )

    def _open(self) -> None:
        """Load data, index and model, and take up the newest checkpoint."""
        self._progress.phase("loading questions and documents")
        self._held_out = _held_out(self._config)
        documents = len(self._held_out.env.dataset.documents) or "the retriever's own"
        self._progress.phase(f"{len(self._held_out.questions)} held-out questions over {documents} documents")
        self._progress.phase(f"loading the model {self._config.model.path}")
        self._algorithm = self._build()
        checkpoints = self._folder.checkpoints()
        if checkpoints:
            load_checkpoint(self._algorithm, checkpoints[-1])
            self._progress.phase(f"going on after step {self._algorithm.steps_done}")
        self._look_for_room()
        step = self._algorithm.steps_done
        self._folder.forget_after(step)
        self._folder.add_attempt({"command": command_line(), "started": timestamp(), "after_step": step})

    def _look_for_room(self) -> None:
        """Say so before the first step if the disk will not hold what the run keeps."""
        needed = bytes_needed(self._algorithm, self._config.run.keep_checkpoints)
        free = shutil.disk_usage(self._folder.path).free
        if free < needed:
            self._progress.phase(
                f"warning: {free / 2**30:.1f} GiB are free in {self._folder.path}, and the run needs about "
                f"{needed / 2**30:.1f} GiB. Make room, or keep fewer: --run.keep-checkpoints 1"
            )

    def _build(self) -> ReinforcePP:
        if not isinstance(self._config, SFTConfig):
            return build_algorithm(self._config)
        algorithm, self._imitated = build_supervised(self._config, self._held_out.env.rules)
        left_out = f", {self._imitated['too_long']} too long left out" if self._imitated["too_long"] else ""
        self._progress.phase(
            f"{self._imitated['episodes']} trajectories to imitate, {self._imitated['with_search']} with a search"
            f"{left_out}"
        )
        self._progress.expect(algorithm.max_steps)
        return algorithm

    def _step(self) -> None:
        """Train one step; keep its metrics, some episodes and, where due, a checkpoint."""
        run = self._config.run
        with deferred_interrupt(lambda: self._progress.phase(_STOPPING)) as request:
            begun = time.perf_counter()
            try:
                result = self._algorithm.train()
            except DEATHS:
                if request.made:  # what the user asked for is no longer there to be saved
                    raise KeyboardInterrupt from None
                raise
            row = metrics_row(result, step=self._algorithm.steps_done)
            row |= {"seconds": round(time.perf_counter() - begun, 3), "elapsed": round(self._elapsed(), 3)}
            self._folder.append_metrics(row)
            self._scalars.write("train", row, step=row["step"])
            if not isinstance(self._config, SFTConfig):
                sampled = episode_records(self._algorithm.episodes, self._config.run.sampled_groups)
                self._folder.write_episodes(row["step"], sampled)
            self._progress.step(row)
            if row.get("replaced_runners"):
                self._progress.phase(f"  env runners that died and were replaced: {row['replaced_runners']:.0f}")
            stage_is_over = self._algorithm.finished or self._algorithm.stage != row["stage"]
            if stage_is_over or request.made or row["step"] % run.checkpoint_every == 0:
                save_checkpoint(self._algorithm, self._folder.checkpoint(row["step"]))
                self._folder.keep_newest_checkpoints(run.keep_checkpoints)
        if request.made:
            raise KeyboardInterrupt

    def _first_stage_is_over(self) -> bool:
        """Whether the next step is the first one of the second stage."""
        if isinstance(self._config, SFTConfig):
            return False  # epochs are all of one kind
        rows = self._folder.metrics()
        first = self._config.stages[0].name
        return bool(rows) and rows[-1]["stage"] == first != self._algorithm.stage

    def _evaluate(self, what: str, *, agent: str, baselines: Mapping[str, str] | None = None) -> None:
        """Measure the agent at every temperature, and the baselines at the first; what is written is not done again."""
        headline = self._config.evaluation.temperatures[0]
        planned = {
            evaluation_name(agent, temperature, headline): (_AGENT, temperature)
            for temperature in self._config.evaluation.temperatures
        }
        if self._config.evaluation.baselines:
            planned |= {name: (method, headline) for name, method in (baselines or {}).items()}
        missing = {name: plan for name, plan in planned.items() if self._folder.evaluation(name) is None}
        if not missing:
            return
        self._progress.phase(f"evaluating {what}")
        engine = evaluation_engine(self._algorithm, self._folder.path)
        for name, (method, temperature) in missing.items():
            found = self._held_out.measure(method, engine, temperature=temperature)
            result = {**found.to_dict(), "temperature": temperature, "elapsed": round(self._elapsed(), 3)}
            self._folder.write_evaluation(name, result, found.records())
            if method == _AGENT:
                self._scalars.write(f"evaluation-t{temperature:g}", result, step=self._algorithm.steps_done)
            self._progress.phase(f"  {name:20} f1 {found.scores.f1:.3f}  search {found.scores.search_rate:.2f}")

    def _elapsed(self) -> float:
        """Seconds that the run has taken, all its starts together."""
        return self._earlier + time.perf_counter() - self._begun
