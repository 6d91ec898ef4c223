"""``search-env resume``: the rest of a training run, a sampling or an evaluation, as if it had not been stopped.

The folder holds all that is needed. Settings may be repeated to make sure of them: a
run whose config differs is refused, with the names of the keys. A training may be made
longer. An evaluation asks the questions that have no answer yet, and again those whose
search failed for good.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_agents.cli.arguments import Parser, add_settings, overrides, whole_number
from search_agents.cli.evaluation_config import load_over_protocol
from search_agents.cli.terminal import write
from search_agents.config import EvalConfig, Override, SampleConfig, SFTConfig, TrainConfig, find_recipe, load_config
from search_agents.learning.lengthen import lengthen
from search_agents.learning.progress import DISPLAYS
from search_agents.learning.run_folder import RunFolder
from search_env.errors import RunError

if TYPE_CHECKING:
    from search_agents.evaluation.evaluation_folder import EvaluationFolder
    from search_agents.learning.trajectories import TrajectoryFolder

__all__ = ["parser", "run"]

_PRINTED_BY = "`search-env train`, `search-env sft`, `search-env sample` or `search-env eval`"


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env resume outputs/fictional-wiki-20260101-120000",
            "search-env resume outputs/eval-r1-searcher-20260101-120000",
            "search-env resume outputs/my-run --max-steps 60 --display plain",
        ),
        more="Settings may be given as for the verb that began it; they must be those of the run.",
    )
    made.add_argument("run", type=Path, metavar="RUN", help="the folder of the training run, sampling or evaluation")
    made.add_argument(
        "--max-steps",
        type=whole_number(1),
        metavar="N",
        help="of a training by rewards, finished or not: let its last stage have up to N steps (its max_steps), more "
        "than before; the trained model is then measured anew",
    )
    add_settings(made, {"--seed": ("run.seed", "seed of the run")})
    made.add_argument("--display", choices=DISPLAYS, default="auto", help="live bar, or plain lines [%(default)s]")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Go on with the run."""
    from search_agents.evaluation.evaluation_folder import EvaluationFolder
    from search_agents.learning.trajectories import TrajectoryFolder

    if arguments.max_steps is not None and (
        EvaluationFolder.is_at(arguments.run) or TrajectoryFolder.is_at(arguments.run)
    ):
        raise RunError(f"--max-steps makes a training longer, and {arguments.run} is none. Leave it out.")
    given = overrides(arguments, settings, EvalConfig if EvaluationFolder.is_at(arguments.run) else TrainConfig)
    if EvaluationFolder.is_at(arguments.run):
        return _resume_evaluation(EvaluationFolder.open(arguments.run), arguments, given)
    if TrajectoryFolder.is_at(arguments.run):
        return _resume_sampling(TrajectoryFolder.open(arguments.run), arguments, given)
    folder = RunFolder.open(arguments.run, printed_by=_PRINTED_BY)
    config = folder.config() if arguments.max_steps is None else folder.started_with()
    if given or arguments.config:
        files = [find_recipe(name, "sft" if isinstance(config, SFTConfig) else "train") for name in arguments.config]
        base = None if files else config.model_dump(mode="json")
        folder.require_same(
            load_config(type(config), files, given, base=base).model_dump(mode="json"), "the command line"
        )

    if arguments.max_steps is not None:
        lengthen(folder, arguments.max_steps)

    from search_agents.learning.start import limit_threads

    limit_threads(config.run.threads)
    from search_agents.learning.train import resume

    write(str(resume(folder, display=arguments.display)))
    return 0


def _resume_evaluation(folder: EvaluationFolder, arguments: argparse.Namespace, given: Sequence[Override]) -> int:
    from search_agents.learning.start import limit_threads

    config = folder.config()
    if given or arguments.config:
        files = [find_recipe(name, "eval") for name in arguments.config]
        base = config.model_dump(mode="json")
        named = load_over_protocol(files, given) if files else load_config(EvalConfig, (), given, base=base)
        folder.require_same({"config": named.model_dump(mode="json")}, "the command line")

    limit_threads(config.run.threads)
    from search_agents.evaluation.evaluation_run import require_scores, resume_evaluation

    write(resume_evaluation(folder, display=arguments.display))
    write(str(folder.path))
    require_scores(folder)
    return 0


def _resume_sampling(folder: TrajectoryFolder, arguments: argparse.Namespace, given: Sequence[Override]) -> int:
    from search_agents.cli.sample import load_over_protocol
    from search_agents.learning.start import limit_threads

    config = folder.config()
    if given or arguments.config:
        files = [find_recipe(name, "sample") for name in arguments.config]
        base = config.model_dump(mode="json")
        named = load_over_protocol(files, given) if files else load_config(SampleConfig, (), given, base=base)
        folder.require_same({"config": named.model_dump(mode="json")}, "the command line")

    limit_threads(config.run.threads)
    from search_agents.learning.sample import resume_sampling

    write(resume_sampling(folder, display=arguments.display))
    write(str(folder.path))
    return 0
