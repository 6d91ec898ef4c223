"""The trainings of an ablation, one after the other, each done once.

::

    outputs/ablation-<name>/
    ├── <arm>/seed<k>/               the folder of a training run
    ├── <arm>/seed<k>-trajectories/  what it imitates, in an arm of sft
    ├── <arm>/report.html, plots/    curves of the arm with bands over its seeds
    ├── data/                        the questions, where arms are trained on subsets of them
    ├── training.png, .svg           the curves of all arms
    ├── ablation.json                figures and tests of what is finished
    └── ablation.md                  the same as tables, and whether the finding holds

Started again with the same settings, an ablation goes on where it stopped: finished
trainings are left as they are, and one that was stopped is resumed. What another ablation
has trained need not be trained again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from search_agents.ablations.page import ablation_page
from search_agents.ablations.results import ablation_results
from search_agents.ablations.subsets import write_subsets
from search_agents.config import AblationConfig, Override, TrainConfig
from search_agents.config.ablation import PlannedRun, trajectories
from search_agents.evaluation.environments import check_env_section
from search_agents.evaluation.plots import plot_arms, plot_training
from search_agents.evaluation.training_report import make_report, read_run
from search_agents.learning.run_folder import RunFolder, write_json, write_text
from search_agents.learning.sample import resume_sampling, sample
from search_agents.learning.train import resume, train
from search_agents.learning.trajectories import TrajectoryFolder
from search_agents.models import find_model
from search_env.errors import RunError

__all__ = ["run_ablation", "write_results"]

Tell = Callable[[str], None]


def run_ablation(
    config: AblationConfig,
    given: Sequence[Override],
    out: Path,
    *,
    source: str,
    tell: Tell,
    display: str = "auto",
    reuse: Sequence[Path] = (),
) -> str:
    """Train every arm by every seed, those that are not finished yet, and compare them.

    Args:
        config: The ablation.
        given: Settings of the command line, for every arm whose recipe has the key.
        out: Its folder: new, or that of the same ablation.
        source: Name of the ablation's file, for messages.
        tell: Is told of each training when it begins and when it ends.
        display: See `search_agents.learning.progress.DISPLAYS`.
        reuse: Folders of other ablations. A finished training in them that has the very settings of one that is asked
            for is copied instead of done again: most ablations have the recipe itself as an arm.

    Returns:
        The page.

    Raises:
        ConfigError: If a setting is wrong; nothing is trained then.
        RunError: If the folder holds trainings with other settings, or one of `reuse` is no ablation.
        SearchEnvError: If a training cannot be made; those before it are kept.
        KeyboardInterrupt: If the user stopped it; its text says how to go on.
    """
    runs = config.plan(given, out, source=source)
    folders = {(run.arm, run.seed): out / run.arm / f"seed{run.seed}" for run in runs}
    for run in runs:
        _check(run, folders[run.arm, run.seed])
    if missing := [str(place) for place in reuse if not (place / "ablation.json").is_file()]:
        raise RunError(f"{', '.join(missing)}: no ablation has finished a training there. Give others with --reuse.")
    if config.subsets:
        whole = config.model_copy(update={"subsets": {}}).plan(given, out, source=source)[0].config
        write_subsets(config.subsets, whole, out / "data")
    for number, run in enumerate(runs, start=1):
        name, folder = f"{run.arm} seed {run.seed} ({number} of {len(runs)})", folders[run.arm, run.seed]
        if RunFolder(folder).finished:
            tell(f"{name}: finished before")
            continue
        if not _is_begun(folder) and (same := _same_training(run, reuse)) is not None:
            _copy(same, folder)
            tell(f"{name}: copied from {same}")
            continue
        tell(name)
        begun = time.perf_counter()
        try:
            _do(run, folder, out, display)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("go on with the same command; finished trainings are kept") from None
        tell(f"{name}: done in {time.perf_counter() - begun:.0f} s")
        write_results(config, folders, out)
    return write_results(config, folders, out)


def write_results(config: AblationConfig, folders: Mapping[tuple[str, int], Path], out: Path) -> str:
    """Compare what is finished, and draw it.

    Args:
        config: The ablation.
        folders: The folder of each training, by arm and seed.
        out: Where the files go.

    Returns:
        The text of ablation.md.
    """
    finished = {key: folder for key, folder in folders.items() if RunFolder(folder).finished}
    results = ablation_results(config, finished)
    drawn = {}
    for arm in config.arms:
        runs = [read_run(folder) for (name, _), folder in finished.items() if name == arm.name]
        if runs:
            drawn[arm.name] = [run.rows for run in runs]
            plot_training(drawn[arm.name], out / arm.name / "plots")
            write_text(out / arm.name / "report.html", make_report(runs))
    curves = plot_arms(drawn, out)
    write_json(out / "ablation.json", results)
    text = ablation_page(results, curves=curves[0].name if curves else None)
    write_text(out / "ablation.md", text)
    return text


def _check(run: PlannedRun, folder: Path) -> None:
    """Find what can be told to be wrong without loading a model, and a folder with other settings."""
    rewards = [stage.reward for stage in run.config.stages] if isinstance(run.config, TrainConfig) else []
    check_env_section(run.config.env, rewards)
    find_model(run.config.model.path)
    if _is_begun(folder):
        asked = f"the arm {run.arm!r} as it is asked for now"
        RunFolder.open(folder).require_same(run.config.model_dump(mode="json"), asked)


def _same_training(run: PlannedRun, places: Sequence[Path]) -> Path | None:
    """A finished training with the settings of one that is asked for."""
    wanted = run.config.model_dump(mode="json")
    for place in places:
        for file in sorted(place.glob("*/seed*/summary.json")):
            if RunFolder.open(file.parent).meta()["config"] == wanted:
                return file.parent
    return None


def _copy(training: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as beside:
        shutil.copytree(training, Path(beside) / folder.name)
        os.rename(Path(beside) / folder.name, folder)  # whole or not at all


def _do(run: PlannedRun, folder: Path, out: Path, display: str) -> None:
    """One training from its start, or the rest of it."""
    if run.sampling is not None:
        _sample(run, trajectories(out, run.arm, run.seed), display)
    if _is_begun(folder):
        resume(RunFolder.open(folder), display=display)
    else:
        train(run.config, out=folder, display=display)


def _sample(run: PlannedRun, folder: Path, display: str) -> None:
    assert run.sampling is not None
    if not TrajectoryFolder.is_at(folder):
        sample(run.sampling, out=folder, display=display)
        return
    begun = TrajectoryFolder.open(folder)
    begun.require_same({"config": run.sampling.model_dump(mode="json")}, "the ablation")
    resume_sampling(begun, display=display)


def _is_begun(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
