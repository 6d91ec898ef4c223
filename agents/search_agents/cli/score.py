"""``search-env score``: anyone's saved episodes, scored by our scorer.

The metrics are those of the papers; each format's own normalisation is the default. A
judgement that the file holds, or that was stored beside it, is taken as it is; a judge
is asked about the answers that have none, and only if it is named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_agents.cli.arguments import Parser, add_settings, add_skip_malformed, overrides, settings_help
from search_agents.cli.terminal import write
from search_agents.config import JudgeConfig, find_recipe, load_config
from search_env.errors import EngineUnavailable
from search_env.metrics import Normalisation
from search_env.render import visible

if TYPE_CHECKING:
    from search_agents.evaluation.judge import Judgement, JudgementLog
    from search_agents.evaluation.saved import SavedEpisode
    from search_env.types import Transcript

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env score hotpotqa_qwen.jsonl --format r1-searcher",
            "search-env score intermediate_data.json --format flashrag --json",
            "search-env score outputs/my-eval/transcripts-1.jsonl --format ours --judge gpt-4o-mini "
            "--model.server.url https://api.openai.com/v1 --model.server.api-key-env OPENAI_API_KEY",
        ),
        more="EM, ACC_R (every word of a gold answer is in the answer), CEM (a gold answer is a piece of the answer),\n"
        "F1 and ACC_L (a judge says so), in percent. After a stop the same command asks the judge what is left.\n\n"
        f"{settings_help(JudgeConfig)}",
    )
    made.add_argument("file", type=Path, metavar="FILE", help="saved episodes")
    made.add_argument(
        "--format", required=True, metavar="FORMAT", help="r1-searcher, search-r1, flashrag or ours: who saved them"
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made.add_argument(
        "--normalisation", choices=tuple(Normalisation), help="how answers are compared [that of the format's authors]"
    )
    made.add_argument(
        "--judgements", type=Path, metavar="FILE", help="where replies of a judge are [judgements-<file> beside FILE]"
    )
    add_skip_malformed(made)
    add_settings(made, {"--judge": ("model.path", "model that judges: tiny, a folder, a hub id, or its name there")})
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Score."""
    files = [find_recipe(given, "score") for given in arguments.config]
    config = load_config(JudgeConfig, files, overrides(arguments, settings, JudgeConfig))

    from search_agents.evaluation.judge import judgements_beside
    from search_agents.evaluation.rescoring import rescore
    from search_agents.evaluation.saved import read_saved
    from search_env.datasets.rows import SkippedRows

    skipped = SkippedRows(arguments.skip_malformed)
    episodes = read_saved(arguments.file, arguments.format, skipped)
    if skipped.count:
        sys.stderr.write(f"{visible(str(skipped))}\n")
    place = arguments.judgements or judgements_beside(arguments.file)
    found = rescore(
        arguments.file,
        arguments.format,
        episodes,
        _judgements(episodes, place, config),
        normalisation=arguments.normalisation,
    )
    write(json.dumps(found.to_dict()) if arguments.json else visible(found.report()))
    return 0


def _judgements(episodes: Sequence[SavedEpisode], place: Path, config: JudgeConfig) -> list[Judgement | None]:
    """One for each episode: that of its file, else that of the judge, else none."""
    from search_agents.evaluation.judge import JudgementLog

    log = JudgementLog(place)
    open_ = [episode.transcript for episode in episodes if episode.judgement is None]
    model = _ask(open_, log, config) if config.model is not None and open_ else None
    asked = iter(log.of(open_, model))
    return [episode.judgement or next(asked) for episode in episodes]


def _ask(transcripts: Sequence[Transcript], log: JudgementLog, config: JudgeConfig) -> str:
    """Ask the judge what it has not been asked yet; returns what tells it from others."""
    from rich.progress import Progress

    from search_agents.engines.build import make_engine, model_identity
    from search_agents.evaluation.judge import judge
    from search_agents.learning.start import quiet_libraries

    assert config.model is not None
    quiet_libraries()
    identity = model_identity(config.model)
    name = identity if config.model.server else f"{Path(config.model.path).name} ({identity})"
    with Progress(*Progress.get_default_columns(), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("judged", total=len(transcripts))
        try:
            judge(
                transcripts,
                make_engine(config.model),
                log,
                model=name,
                settings=config.judge,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        except EngineUnavailable as error:
            error.add_note("what was judged is kept; go on with the same command")
            raise
    return name
