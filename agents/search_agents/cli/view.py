"""``search-env view``: the episodes of a run, or of two side by side, as one HTML file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import Parser, add_skip_malformed, no_settings, whole_number
from search_agents.cli.terminal import write
from search_env.errors import ConfigError
from search_env.render import visible

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env view outputs/my-run --out my-run.html",
            "search-env view outputs/eval-before outputs/eval-after --out both.html",
            "search-env view hotpotqa_qwen.jsonl --format r1-searcher --limit 100 --out authors.html",
        ),
        more="The file needs no server and no network, and opens in any browser. Right means that every word of a\n"
        "gold answer is in the answer (ACC_R). Tokens are shaded where they were kept: in a training run's episodes/,\n"
        "in the trajectories of `search-env sample`, and where r1-searcher was evaluated by an engine with sessions.",
    )
    made.add_argument("run", type=Path, metavar="RUN", help="folder of a run, evaluation or sampling, or a JSONL file")
    made.add_argument("other", type=Path, nargs="?", metavar="RUN_B", help="another, to show beside it by question")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="HTML file to write")
    made.add_argument(
        "--limit", type=whole_number(1), default=500, metavar="N", help="most episodes of each run [%(default)s]"
    )
    made.add_argument(
        "--format", default="ours", metavar="FORMAT", help="r1-searcher, search-r1, flashrag or ours [%(default)s]"
    )
    made.add_argument(
        "--model", metavar="MODEL", help="model or folder whose tokenizer cuts the tokens [that of the run]"
    )
    add_skip_malformed(made, " of each run")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Write the file."""
    no_settings(parser("view", ""), settings)
    if arguments.out.is_dir():
        raise ConfigError(f"--out {arguments.out} is a folder. Name a file in it: --out {arguments.out / 'view.html'}")
    from search_agents.evaluation.viewer import make_page, make_payload
    from search_agents.learning.run_folder import write_text

    payload = make_payload(
        [path for path in (arguments.run, arguments.other) if path is not None],
        limit=arguments.limit,
        format_=arguments.format,
        model=arguments.model,
        skip_malformed=arguments.skip_malformed,
    )
    write_text(arguments.out, make_page(payload))
    for each in payload["runs"]:
        write(visible(f"{each['path']}: {len(each['episodes'])} of {each['total']} episodes"))
    write(visible(str(arguments.out)))
    return 0
