"""Keep what ablations reached: their figures, tables and curves.

    search-env bench ablation mask --out outputs/ablation-mask
    python benchmarks/ablations.py outputs/ablation-mask outputs/ablation-reward

Each folder is named as its ablation is, with or without "ablation-" before it. Writes of each
benchmarks/results/ablations/NAME: ablation.json, ablation.md and training.png. The trainings themselves, with
checkpoints and reports, stay where they are.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search_agents.ablations.page import ablation_page
from search_agents.config.recipes import recipes
from search_agents.learning.run_folder import RunFolder

RESULTS = Path(__file__).parent / "results" / "ablations"
Json = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Keep each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="what `search-env bench ablation --out` has left")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where they are kept")
    arguments = parser.parse_args(argv)
    names = recipes("ablations")
    for folder in arguments.folders:
        if _name(folder) not in names:
            parser.error(f"{folder} is not named as an ablation is: {', '.join(names)}")
        if not (folder / "ablation.json").is_file():
            parser.error(f"{folder} holds no ablation.json: no training of it is finished")
    for folder in arguments.folders:
        print(keep(folder, arguments.out / _name(folder)))


def keep(folder: Path, kept: Path) -> Path:
    """Keep one ablation.

    Args:
        folder: Its own folder.
        kept: Where its figures go.

    Returns:
        The page.
    """
    results = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("ablation.json", "training.png"):
        shutil.copyfile(folder / name, kept / name)
    page = kept / "ablation.md"
    runs = [
        RunFolder(file.parent) for arm in results["arms"] for file in sorted(folder.glob(f"{arm}/seed*/summary.json"))
    ]
    text = ablation_page(results, curves="training.png", reports=False)
    page.write_text(f"{text}\n{how_it_was_made(_name(folder), [run.meta() for run in runs])}\n", encoding="utf-8")
    return page


def how_it_was_made(name: str, metas: Sequence[Json]) -> str:
    """Command, days, machine and versions of the trainings of an ablation."""
    days = sorted({meta["started"][:10] for meta in metas})
    cores = sorted({meta["machine"]["cores"] for meta in metas})
    processors = sorted({meta["machine"]["processor"] for meta in metas})
    commits = sorted({meta["commit"][:7] for meta in metas})
    versions = metas[0]["versions"]
    trained_for = [re.search(r"bench ablation (\S+)", meta["command"]) for meta in metas]
    copied = sum(found is not None and found[1] != name for found in trained_for)
    return (
        f"`search-env bench ablation {name}`, {' and '.join(days)}: {len(metas)} trainings, each on "
        f"{' or '.join(map(str, cores))} cores of {', '.join(processors)}, torch {versions['torch']}, transformers "
        f"{versions['transformers']}, commit {', '.join(commits)}. Copied from another "
        f"ablation that had the same settings (`--reuse`): {copied}."
    )


def _name(folder: Path) -> str:
    return folder.name.removeprefix("ablation-")


if __name__ == "__main__":
    main()
