"""Two trainings by one recipe whose learner computes in bfloat16: episodes sampled in float32, and in bfloat16.

The transformers engine sampled in float32 until commit 41c6e9d and has sampled in the learner's format since. So
the runs are of the code before that and after it:

    search-env train --config recipe.yaml --data outputs/two-sets --out outputs/zero
    python benchmarks/number_format.py --float32 outputs/zero-before --bfloat16 outputs/zero --write
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search_agents.evaluation.report import table
from search_agents.learning.run_folder import RunFolder

from benchmarks.results.collect import origin

RESULT = Path(__file__).parent / "results" / "number-format.json"
COLUMNS = {
    "format_rate": "format rate",
    "search_rate": "search rate",
    "f1": "F1",
    "entropy": "entropy",
    "mismatch_kl": "nats a token between sampler and learner",
    "sample_seconds": "seconds to sample",
}
Json = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Put the page together, and keep it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--float32", type=Path, required=True, help="run folder of the code before")
    parser.add_argument("--bfloat16", type=Path, required=True, help="run folder of the code after")
    parser.add_argument("--remark", default="", help="what else a reader must know")
    parser.add_argument("--write", action="store_true", help=f"keep it as {RESULT.name}")
    arguments = parser.parse_args(argv)
    runs = {name: _told(RunFolder(getattr(arguments, name))) for name in ("float32", "bfloat16")}
    report = {"remark": arguments.remark, "runs": runs}
    print(markdown(report))
    if arguments.write:
        RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        RESULT.with_suffix(".md").write_text(markdown(report), encoding="utf-8")


def _told(run: RunFolder) -> dict[str, Any]:
    meta = run.meta()
    return {
        **origin(meta),
        "commit": meta["commit"],
        "steps": [{key: row[key] for key in ("step", "stage", *COLUMNS)} for row in run.metrics()],
    }


def markdown(report: Json) -> str:
    """The page."""
    rows = [
        [name, str(step["step"]), step["stage"], *(_shown(step[key]) for key in COLUMNS)]
        for name, run in report["runs"].items()
        for step in run["steps"]
    ]
    told = [
        f"* {name}: `{run['command']}`, {run['date']}, commit {run['commit'][:7]}{_changed(run)}, {run['machine']}"
        for name, run in report["runs"].items()
    ]
    parts = [
        "# A learner in bfloat16 whose episodes are sampled in float32, and in bfloat16",
        table(["sampled in", "step", "stage", *COLUMNS.values()], rows),
        *([report["remark"]] if report["remark"] else []),
        "\n".join(told),
    ]
    return "\n\n".join(parts) + "\n"


def _shown(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.4f}"


def _changed(run: Json) -> str:
    return " with changes" if run["commit"].endswith("with changes") else ""


if __name__ == "__main__":
    main()
