"""Keep what a comparison of methods reached: its tables, and two episodes of each method to read.

    search-env bench methods --model FOLDER --out outputs/methods
    python benchmarks/methods.py outputs/methods
    search-env bench methods --model FOLDER --methods '[{name: rearter, part: PART}]' --out outputs/rearter
    python benchmarks/methods.py outputs/rearter --add

Writes benchmarks/results/methods: README.md, results.json and episodes.md. --add puts the rows of a further comparison,
which must have had the same setting, among those that are kept. Of each method the episodes are those in which most of
what sets it apart has happened: the most kinds of calls, then the most searches, among those that ended with an answer.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search_agents.evaluation.comparison import comparison_tables

from search_env.render import visible

RESULTS = Path(__file__).parent / "results" / "methods"
COUNT = 2
LONGEST = 500
Json = Mapping[str, Any]

_ALIKE: Mapping[str, Sequence[str]] = {
    "env": ("retriever", "dialect", "top_k", "max_searches", "max_turns", "max_chars"),
    "rollout": ("max_segment_tokens", "max_episode_tokens"),
    "evaluation": ("questions", "temperatures"),
}

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
    parser.add_argument("--add", action="store_true", help="among the rows that are kept there, not in their place")
    parser.add_argument("--remark", help="what else a reader must know; with --add by default what stands there")
    arguments = parser.parse_args()
    found = comparison(arguments.folder)
    results, told, episodes = found, arguments.remark, ""
    if arguments.add:
        kept = json.loads((arguments.out / "results.json").read_text(encoding="utf-8"))
        episodes = (arguments.out / "episodes.md").read_text(encoding="utf-8")
        results, told = joined(kept, found), kept["remark"] if told is None else told
    results["remark"] = told or ""
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "README.md").write_text(page(results), encoding="utf-8")
    shown = episodes_page(arguments.folder, found["sets"], episodes)
    (arguments.out / "episodes.md").write_text(shown, encoding="utf-8")
    print(arguments.out / "README.md")


def comparison(folder: Path) -> dict[str, Any]:
    """What a comparison has left, without the paths of its machine: ``config``, ``sets``, and when and where it ran."""
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    results["config"]["model"]["path"] = Path(results["config"]["model"]["path"]).name
    for asked in results["config"]["sets"]:
        asked["data"] = asked["data"] and Path(asked["data"]).name
    for method in results["config"]["methods"]:
        if isinstance(method, dict) and "part" in method:
            method["part"] = Path(method["part"]).name
    described = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*/*/evaluation.json"))]
    machine = described[0]["origin"]["machine"]
    days = sorted({each["origin"]["started"][:10] for each in described})
    measured = f"{' to '.join(dict.fromkeys([days[0], days[-1]]))}, {machine['cores']} cores of {machine['processor']}"
    return {**results, "measured": [measured]}


def joined(kept: Json, further: Json) -> dict[str, Any]:
    """The rows of a further comparison among those that are kept, in the place that the method has in other sets.

    Raises:
        SystemExit: If they were not asked alike.
    """
    require_same_setting(kept["config"], further["config"], {"model": ("path", "dtype", "engine"), "env": ("prompt",)})
    everywhere = list(dict.fromkeys(method for rows in reversed(kept["sets"].values()) for method in rows))
    sets = {**kept["sets"]}
    for name, rows in further["sets"].items():
        found = {**sets.get(name, {}), **rows}
        sets[name] = {method: found[method] for method in dict.fromkeys([*everywhere, *rows]) if method in found}
    measured = [*kept["measured"], *(each for each in further["measured"] if each not in kept["measured"])]
    methods = [
        *kept["config"]["methods"],
        *(each for each in further["config"]["methods"] if each not in kept["config"]["methods"]),
    ]
    return {"config": {**kept["config"], "methods": methods}, "sets": sets, "measured": measured}


def require_same_setting(one: Json, other: Json, more: Mapping[str, Sequence[str]] | None = None) -> None:
    """Refuse to compare what was not asked alike.

    Args:
        one: The config of a comparison.
        other: That of another.
        more: What must be the same beside what always must, by section.

    Raises:
        SystemExit: Names what differs.
    """
    differing = [
        f"{section}.{key}"
        for sections in (_ALIKE, more or {})
        for section, keys in sections.items()
        for key in keys
        if one[section][key] != other[section][key]
    ]
    sets = [{asked["id"]: Path(asked["data"] or "").name for asked in config["sets"]} for config in (one, other)]
    differing += [f"the data of {name}" for name in sets[0].keys() & sets[1].keys() if sets[0][name] != sets[1][name]]
    if differing:
        raise SystemExit(f"the comparisons differ in {', '.join(differing)}; ask all by the same settings")


def page(results: Json) -> str:
    """The README: circumstances, then the tables."""
    config = results["config"]
    env, rollout, evaluation = config["env"], config["rollout"], config["evaluation"]
    parts = [
        "# Methods under one setting",
        f"`search-env bench methods`, {'; '.join(results['measured'])}. One model ({config['model']['path']}, "
        f"{config['model']['dtype']}, prompt style {env['prompt']}), one retriever ({env['retriever']}), k = "
        f"{env['top_k']}, at most {env['max_searches']} searches on the way to an answer, "
        f"{rollout['max_segment_tokens']} tokens a text and {rollout['max_episode_tokens']} tokens of context, "
        f"temperature {evaluation['temperatures'][0]:g}, seed {config['run']['seed']}.",
        _HOW_TO_READ,
        *filter(None, [results["remark"]]),
        comparison_tables(results["sets"]).rstrip(),
        "Episodes to read: [episodes.md](episodes.md).",
    ]
    return "\n\n".join(parts) + "\n"


def episodes_page(folder: Path, sets: Mapping[str, Mapping[str, Json]], kept: str) -> str:
    """Two episodes of each method, on the first set that has any, behind those that are on the page already."""
    title = "# Two episodes of each method\n\nWhat each call was for, and what came of it; long texts are shortened."
    parts = [kept.rstrip() or title]
    shown = set(re.findall(r"^## (.+), \S+$", kept, re.MULTILINE))
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
