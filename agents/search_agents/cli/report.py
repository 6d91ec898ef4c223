"""``search-env report``: the curves, figures and samples of training runs as one HTML file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import Parser, no_settings
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
            "search-env report outputs/my-run --out my-run.html",
            "search-env report outputs/seed0 outputs/seed1 outputs/seed2 --out seeds.html",
            "search-env report outputs/still-training --out so-far.html",
        ),
        more="The file needs no server and no network, and opens in any browser. Curves of several runs are drawn as\n"
        "their mean with a band from the lowest to the highest. Beside FILE.html, the folder FILE-plots holds them as\n"
        "PNG and SVG. `search-env train` and `sft` write such a report.html into the run folder at their end.",
    )
    made.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder, finished or not; several: seeds")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="HTML file to write")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Write the file and the plots."""
    no_settings(parser("report", ""), settings)
    out: Path = arguments.out
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder. Name a file in it: --out {out / 'report.html'}")
    from search_agents.evaluation.plots import plot_training
    from search_agents.evaluation.training_report import make_report, read_run
    from search_agents.learning.run_folder import write_text

    runs = [read_run(path) for path in arguments.runs]
    write_text(out, make_report(runs))
    drawn = plot_training([each.rows for each in runs], out.with_name(f"{out.stem}-plots"))
    for each in runs:
        write(visible(f"{each.path}: {len(each.rows)} steps{'' if each.finished else ', not finished'}"))
    for file in (*drawn, out):
        write(visible(str(file)))
    return 0
