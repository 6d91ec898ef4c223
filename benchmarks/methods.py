"""Keep what a comparison of methods reached: its tables, and two episodes of each method to read.

    search-env bench methods --model FOLDER --out outputs/methods
    python benchmarks/methods.py outputs/methods

Writes benchmarks/results/methods: README.md, results.json and episodes.md. Of each method the
episodes are those in which most of what sets it apart has happened: the most kinds of calls,
then the most searches, among those that ended with an answer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search_agents.evaluation.comparison import comparison_tables

from search_env.render import visible

RESULTS = Path(__file__).parent / "results" / "methods"
COUNT = 2
LONGEST = 500
Json = Mapping[str, Any]

_HOW_TO_READ = """\
No policy was trained: the rows of R1-Searcher, Search-R1 and ZeroSearch are the untrained model in their protocols. A
model of this size answers few of these questions by any method; the table shows what each method does and costs, not
which one is best. ACC_R (every word of the answer is in the response) rewards long responses. Format rate: the share of
responses in the method's format; an answer counts without it. Tokens read: what a session keeps counts once, a text
given again counts again. Seconds: on a machine that did other work too."""


def main() -> None:
    """Read the comparison, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `search-env bench methods --out` has left")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where it is kept")
    parser.add_argument("--remark", help="what else a reader must know of how the comparison was made")
    arguments = parser.parse_args()
    results = json.loads((arguments.folder / "results.json").read_text(encoding="utf-8"))
    results["config"]["model"]["path"] = Path(results["config"]["model"]["path"]).name
    for asked in results["config"]["sets"]:
        asked["data"] = asked["data"] and Path(asked["data"]).name
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "README.md").write_text(page(arguments.folder, results, arguments.remark), encoding="utf-8")
    (arguments.out / "episodes.md").write_text(episodes_page(arguments.folder, results["sets"]), encoding="utf-8")
    print(arguments.out / "README.md")


def page(folder: Path, results: Json, remark: str | None) -> str:
    """The README: circumstances, then the tables."""
    config = results["config"]
    described = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*/*/evaluation.json"))]
    machine = described[0]["origin"]["machine"]
    days = sorted({each["origin"]["started"][:10] for each in described})
    env, rollout, evaluation = config["env"], config["rollout"], config["evaluation"]
    parts = [
        "# Methods under one setting",
        f"`search-env bench methods`, {' to '.join(dict.fromkeys([days[0], days[-1]]))}, {machine['cores']} cores of "
        f"{machine['processor']}. One model ({config['model']['path']}, {config['model']['dtype']}, prompt style "
        f"{env['prompt']}), one retriever ({env['retriever']}), k = {env['top_k']}, at most {env['max_searches']} "
        f"searches on the way to an answer, {rollout['max_segment_tokens']} tokens a text and "
        f"{rollout['max_episode_tokens']} tokens of context, temperature {evaluation['temperatures'][0]:g}, seed "
        f"{config['run']['seed']}, {evaluation['batch_size']} questions in play.",
        _HOW_TO_READ,
        *([remark] if remark else []),
        comparison_tables(results["sets"]).rstrip(),
        "Episodes to read: [episodes.md](episodes.md).",
    ]
    return "\n\n".join(parts) + "\n"


def episodes_page(folder: Path, sets: Mapping[str, Mapping[str, Json]]) -> str:
    """Two episodes of each method, on the first set that has any."""
    parts = ["# Two episodes of each method", "What each call was for, and what came of it; long texts are shortened."]
    shown: set[str] = set()
    for asked, methods in sets.items():
        for method in methods:
            if method not in shown:
                shown.add(method)
                parts += [f"## {method}, {asked}", *(told(each) for each in chosen(folder / asked / method))]
    return "\n\n".join(parts) + "\n"


def chosen(folder: Path) -> list[Json]:
    """The episodes of an evaluation that show most."""
    (file,) = sorted(folder.glob("transcripts-*.jsonl"))[:1]
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    def shows(row: Json) -> tuple[bool, int, int]:
        purposes = {call["purpose"] for turn in row["turns"] for call in turn["calls"]}
        return row["stop_reason"] == "answered", len(purposes), len(row["queries"])

    return sorted(rows, key=shows, reverse=True)[:COUNT]


def told(row: Json) -> str:
    """One episode, as an indented block: nothing in it is markup."""
    question = row["question"]
    lines = [f"Question: {question['text']}", f"Right answer: {' / '.join(question['answers'])}", *_steps(row["turns"])]
    lines.append(f"Answer: {row['answer']!r} ({row['stop_reason']})")
    return "\n".join(f"    {line}" for text in lines for line in visible(text).split("\n"))


def _steps(turns: Sequence[Json]) -> Iterator[str]:
    for turn in turns:
        for call in turn["calls"]:
            if call["text"]:
                yield f"* {call['purpose']}: {_short(call['text'])}"
        if turn["segment"] and not any(call["text"] for call in turn["calls"]):
            yield f"* segment: {_short(turn['segment'])}"
        if turn["action"]["kind"] == "search":
            titles = ", ".join(hit["document"]["title"] for hit in turn["hits"]) or "nothing"
            yield f"> search {turn['action']['text']!r}: {titles}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} […] {text[-LONGEST // 2 :]}"


if __name__ == "__main__":
    main()
