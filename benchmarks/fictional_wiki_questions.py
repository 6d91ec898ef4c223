"""The numbers of FictionalWiki's datasheet: its pages and names, its kinds of question, and how hard each is to find.

    python benchmarks/fictional_wiki_questions.py
    python benchmarks/fictional_wiki_questions.py --passages 100000 --write

Without `--passages` it is the encyclopaedia of `SearchQA-FictionalWiki-v0`; with it, one made by
`search-env data generate`. The oracle and the random agent play real episodes over the real index.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search_agents.methods.floor_and_ceiling import Oracle, RandomAgent

from search_env.datasets import Dataset
from search_env.datasets.fictional_wiki import generate
from search_env.datasets.fictional_wiki.scale import stream_parts
from search_env.types import Document, Question
from search_env.vector import SearchQAVectorEnv

RESULTS = Path(__file__).parent / "results"
QUESTIONS = {"train": 4000, "test": 400}
TOP_K = 5
PAGE_KINDS = {
    "person": r" was an? \w+ born |, born in ",
    "city": r" is a (city in|town of) the country ",
    "country": r" is a country( with a long coast)?\.$",
    "film": r" film ",
    "novel": r" novel ",
    "firm": r" is a (studio|publisher)",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and keep them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, metavar="N", help="size of the encyclopaedia [the default one]")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {RESULTS.name}/ as JSON and Markdown")
    arguments = parser.parse_args(argv)

    started = time.process_time()
    splits, documents = encyclopaedia(arguments.passages)
    found = {
        "pages": pages(documents),
        "questions": {split: questions_of(questions, split, documents) for split, questions in splits.items()},
        "names in questions of both splits": len(set.intersection(*map(names, splits.values()))),
    }
    about = {
        "command": "python benchmarks/fictional_wiki_questions.py " + " ".join(sys.argv[1:] if argv is None else argv),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "processor time": f"{time.process_time() - started:.0f} s",
    }
    text = markdown(found, about)
    print(text)
    if arguments.write:
        name = f"fictional-wiki-questions{f'-{arguments.passages}' if arguments.passages else ''}"
        (RESULTS / f"{name}.json").write_text(json.dumps({**about, **found}, indent=2, ensure_ascii=False) + "\n")
        (RESULTS / f"{name}.md").write_text(text)


def encyclopaedia(passages: int | None) -> tuple[dict[str, list[Question]], list[Document]]:
    """The questions of each split and the corpus of both."""
    if passages is None:
        made = {split: generate(split) for split in QUESTIONS}
        splits = {split: questions for split, (questions, _) in made.items()}
        documents = made["test"][1]
    else:
        parts = list(stream_parts(passages, QUESTIONS))
        splits = {split: [q for part in parts if part.split == split for q in part.questions] for split in QUESTIONS}
        documents = [document for part in parts for document in part.documents]
    return {
        split: [question.to_question(f"{split}-{number:05d}") for number, question in enumerate(questions)]
        for split, questions in splits.items()
    }, documents


def names(questions: Iterable[Question]) -> set[str]:
    """The entities on the way to the answers."""
    found = {name for q in questions for name in (*q.gold_titles, *(hop.answer for hop in q.decomposition))}
    return {name for name in found if not name.isdigit()}


def pages(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """For each kind of page: how many, how long, and how many other titles share a word with its title."""
    bearers = Counter(word for document in documents for word in words(document.title))
    kinds: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        kinds[next(kind for kind, form in PAGE_KINDS.items() if re.search(form, document.text))].append(document)
    return [
        {
            "kind": kind,
            "pages": len(kinds[kind]),
            "words of text": round(statistics.mean(len(document.text.split()) for document in kinds[kind]), 1),
            "title shares a word": share(max(others(document, bearers)) > 0 for document in kinds[kind]),
            "other titles with its commonest word": statistics.median(
                max(others(document, bearers)) for document in kinds[kind]
            ),
            "example": max(kinds[kind], key=lambda document: document.id[::-1]).text,
        }
        for kind in PAGE_KINDS
    ]


def words(title: str) -> set[str]:
    """The words that make a name, not those that join them."""
    return set(re.findall(r"\w+", title)) - {"The", "the", "and", "of"}


def others(document: Document, bearers: Counter[str]) -> list[int]:
    """How many other titles have each word of a title."""
    return [bearers[word] - 1 for word in words(document.title)]


def questions_of(questions: Sequence[Question], split: str, documents: Sequence[Document]) -> list[dict[str, Any]]:
    """For each kind and hops: its share, and how often one search, each hop's search and the two agents succeed."""
    data = Dataset(name="fictional-wiki", split=split, questions=tuple(questions), documents=tuple(documents))
    env = SearchQAVectorEnv(64, data=data, top_k=TOP_K)
    alone = env.retriever.search([question.text for question in questions], TOP_K)
    played, guessed = (
        {transcript.question.id: transcript for transcript in agent.run(questions)}
        for agent in (Oracle(env), RandomAgent(env))
    )
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for question, hits in zip(questions, alone, strict=True):
        transcript, guess = played[question.id], guessed[question.id]
        pages_read = [{hit.document.title for hit in turn.hits} for turn in transcript.turns[:-1]]
        result = {
            "question": question,
            "alone": {hit.document.title for hit in hits}.issuperset(question.gold_titles),
            "hops": all(title in read for title, read in zip(question.gold_titles, pages_read, strict=True)),
            "oracle": transcript.answer in question.answers,
            "random": guess.answer in question.answers,
        }
        groups[question.kind, question.hops or 0].append(result)
        groups["all", 0].append(result)
    return [
        {
            "kind": kind,
            "hops": hops or "1 to 4",
            "questions": len(group),
            "share": round(len(group) / len(questions), 3),
            "question as query": share(result["alone"] for result in group),
            "sub-queries": share(result["hops"] for result in group),
            "oracle": share(result["oracle"] for result in group),
            "random agent": share(result["random"] for result in group),
            "example": "" if kind == "all" else f"{group[0]['question'].text} ({group[0]['question'].answers[0]})",
        }
        for (kind, hops), group in sorted(
            groups.items(), key=lambda item: (item[0][0] == "all", item[0][1], item[0][0])
        )
    ]


def share(truths: Iterable[bool]) -> float:
    """How many are true."""
    return round(statistics.fmean(truths), 3)


def markdown(found: dict[str, Any], about: dict[str, str]) -> str:
    """The tables and how they were made."""
    tables = [("Pages", found["pages"])]
    tables += [(f"Questions, {split}", rows) for split, rows in found["questions"].items()]
    parts = [f"## {title}\n\n{table(rows)}" for title, rows in tables]
    parts.append(f"Names in questions of both splits: {found['names in questions of both splits']}.")
    parts.append("\n".join(f"* {key}: {value}" for key, value in about.items()))
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(map(str, row.values())) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
