"""What a finished run says in words: tables for the terminal, and trajectories to read.

Both are made from the run's JSON files alone, so they can be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search_env.render import visible

__all__ = ["METHOD_ROWS", "Column", "examples_page", "groups_table", "results_table", "scores_table", "table"]

Json = Mapping[str, Any]

METHOD_ROWS = (
    ("random", "random agent"),
    ("closed_book_before", "closed book, untrained"),
    ("rag_before", "single-retrieval RAG, untrained"),
    ("before", "search agent, untrained"),
    ("forced_query", "search agent, untrained, first query forced"),
    ("closed_book_after", "closed book, trained"),
    ("rag_after", "single-retrieval RAG, trained"),
    ("stage1", "search agent after stage 1"),
    ("after", "search agent, trained"),
    ("oracle", "oracle"),
)
"""Key in summary.json and name of each method, in the order of the table."""

Column = tuple[str, str, str]
"""Heading, key in the scores, layout of the number."""

_COLUMNS: tuple[Column, ...] = (
    ("F1", "f1", "{:.3f}"),
    ("EM", "em", "{:.3f}"),
    ("ACC_R", "cem", "{:.3f}"),
    ("CEM", "cem_contiguous", "{:.3f}"),
    ("ACC_L", "acc_l", "{:.3f}"),
    ("search rate", "search_rate", "{:.2f}"),
    ("format rate", "format_rate", "{:.2f}"),
    ("searches/q", "searches_per_question", "{:.2f}"),
)
_LONGEST_OBSERVATION = 700


def results_table(summary: Json) -> str:
    """Every method that was measured, one row each, then the floors."""
    floors = [(f"floor: {name.replace('_', ' ')}", scores) for name, scores in summary.get("floors", {}).items()]
    return scores_table([*((name, summary[key]) for key, name in METHOD_ROWS if key in summary), *floors])


def scores_table(rows: Sequence[tuple[str, Json]], columns: Sequence[Column] = _COLUMNS) -> str:
    """One row for each (name, scores); a score that is missing, or of no valid episode, is shown as ``-``.

    Args:
        rows: Name and scores of each.
        columns: What is shown. A column that no row has is left out; after F1 comes its 95 % interval, if told.
    """
    measured = [scores for _, scores in rows]
    shown = [column for column in columns if any(scores.get(column[1]) is not None for scores in measured)]
    header, cells = ["method"], [[name] for name, _ in rows]
    for label, key, layout in shown:
        header.append(label)
        for row, scores in zip(cells, measured, strict=True):
            row.append(_score(scores, key, layout))
        if key == "f1" and any("intervals" in scores for scores in measured):
            header.append("95 %")
            for row, scores in zip(cells, measured, strict=True):
                row.append(" to ".join(map(layout.format, scores.get("intervals", {}).get(key, ()))) or "-")
    return table(header, cells)


def groups_table(summary: Json, group: str) -> str:
    """F1 by one grouping of the questions, before and after, beside the floors.

    Args:
        summary: The content of summary.json.
        group: ``by_kind`` or ``by_hops``.

    Returns:
        The table; empty if the dataset does not tell the groups.
    """
    columns = [
        (label, summary[key])
        for label, key in (("before", "before"), ("RAG", "rag_after"), ("after", "after"))
        if key in summary
    ]
    columns += [(name.replace("_", " "), scores) for name, scores in summary.get("floors", {}).items()]
    groups = summary["after"][group]
    if not groups:
        return ""
    rows = [
        [str(name), str(groups[name]["n"]), *(_f1_of(scores, group, name) for _, scores in columns)] for name in groups
    ]
    return table([group.removeprefix("by_"), "n", *(f"F1 {label}" for label, _ in columns)], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up as plain text; the first is left-aligned."""
    cells = [list(header), *([_cell(text) for text in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| "
        + " | ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in cells
    ]
    rule = (
        "|"
        + "|".join("-" * (width + 2) if column == 0 else "-" * (width + 1) + ":" for column, width in enumerate(widths))
        + "|"
    )
    return "\n".join([lines[0], rule, *lines[1:]])


def examples_page(before: Sequence[Json], after: Sequence[Json], *, count: int = 6) -> str:
    """The same questions before and after training, as Markdown.

    Args:
        before: Transcripts of the untrained agent.
        after: Transcripts of the trained agent.
        count: The most questions to show. Two thirds are ones that training made right, as many hops as there are;
            the rest are ones that are still wrong.
    """
    earlier = {transcript["question"]["id"]: transcript for transcript in before}
    both = [(earlier[t["question"]["id"]], t) for t in after if t["question"]["id"] in earlier]
    pairs = [pair for pair in both if all(transcript["metrics"] for transcript in pair)]  # invalid ones have none
    learned = sorted(
        (pair for pair in pairs if pair[1]["metrics"]["f1"] > pair[0]["metrics"]["f1"]),
        key=lambda pair: -(pair[1]["question"]["hops"] or 0),
    )
    wrong = [pair for pair in pairs if pair[1]["metrics"]["f1"] == 0.0]
    shown = [*_spread(learned, count - count // 3), *_spread(wrong, count // 3)]
    parts = ["# Example trajectories", "The agent's words and the documents it read, on held-out questions."]
    for untrained, trained in shown:
        question = trained["question"]
        hops = f"{question['hops']} hop{'s' * (question['hops'] > 1)}" if question["hops"] else ""
        kind = ", ".join(filter(None, [question["kind"], hops]))
        parts += [
            f"## {_inline(question['text'])}",
            f"Right answer: {_inline(' / '.join(question['answers']))}" + (f" ({kind})" if kind else ""),
            *_told("Before training", untrained),
            *_told("After training", trained),
        ]
    return "\n\n".join(parts) + "\n"


def _f1_of(scores: Json, group: str, name: str) -> str:
    found = scores.get(group, {}).get(name)
    return f"{found['f1']:.3f}" if found else "-"


def _score(scores: Json, key: str, layout: str) -> str:
    """A score of no valid episode is not 0: nobody measured it."""
    return "-" if scores.get("n") == 0 or scores.get(key) is None else layout.format(scores[key])


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|").replace("\n", " ")


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def _told(heading: str, transcript: Json) -> list[str]:
    answer = transcript["answer"]
    outcome = f"answer: {_inline(answer)}" if answer is not None else f"no answer ({transcript['stop_reason']})"
    score = f"F1 {transcript['metrics']['f1']:.2f}, searches: {len(transcript['queries'])}"
    words = "".join(turn["segment"] + _shortened(turn["observation"]) for turn in transcript["turns"])
    # Indented, not fenced: no text of a model or document can end an indented block.
    block = "\n".join(f"    {line}" for line in visible(words).strip("\n").split("\n"))
    return [f"### {heading}: {outcome} — {score}", block]


def _shortened(observation: str) -> str:
    if len(observation) <= _LONGEST_OBSERVATION:
        return observation
    return f"{observation[: _LONGEST_OBSERVATION // 2]} […] {observation[-_LONGEST_OBSERVATION // 2 :]}"


def _inline(text: str) -> str:
    """Text inside a Markdown line: one line, nothing in it is markup."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|!" else char for char in " ".join(visible(text).split()))
