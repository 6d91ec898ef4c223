"""How fast the embedded BM25 indexes and searches, and how many gold passages a question finds by itself.

    python benchmarks/retrieval.py
    python benchmarks/retrieval.py --data ../shared/data/hotpotqa --data ../shared/data/musique --write

Each corpus is indexed into an empty cache, opened again, and searched with its own questions
for five passages, one call a question and in batches of 64. Times are processor time, the best
of three: what another job on the machine takes does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from search_env.datasets import load, read_corpus, read_questions
from search_env.retrieval import analysis
from search_env.retrieval.bm25 import BM25Retriever
from search_env.types import Document, Question

RESULTS = Path(__file__).parent / "results"
TOP_K = 5
BATCH = 64
REPEATS = 3

COLUMNS = {
    "corpus": "corpus",
    "passages": "passages",
    "questions": "questions",
    "index_seconds": "index (s)",
    "index_megabytes": "on disk (MB)",
    "open_seconds": "open (s)",
    "single_per_second": "single (q/s)",
    "batch_per_second": f"batch of {BATCH} (q/s)",
    "all_gold": f"all gold in top {TOP_K}",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, and keep it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", action="append", default=[], type=Path, help="folder with corpus, train and dev jsonl"
    )
    parser.add_argument("--write", action="store_true", help=f"keep the result in {RESULTS.name}/ as JSON and Markdown")
    arguments = parser.parse_args(argv)

    wiki = load("fictional-wiki", split="test")
    rows = [measure("fictional-wiki test", wiki.documents, wiki.questions)]
    for folder in arguments.data:
        questions = [question for split in ("train", "dev") for question in questions_of(folder, split)]
        rows.append(measure(folder.name, read_corpus(folder / "corpus.jsonl"), questions))

    table = markdown(rows)
    print(table)
    if arguments.write:
        write(rows, table, "python benchmarks/retrieval.py " + " ".join(sys.argv[1:] if argv is None else argv))


def questions_of(folder: Path, split: str) -> Sequence[Question]:
    """The questions of one split; none if the folder has no such file."""
    path = folder / f"{split}.jsonl"
    return read_questions(path) if path.exists() else ()


def measure(name: str, documents: Sequence[Document], questions: Sequence[Question]) -> dict[str, Any]:
    """Index and search one corpus; returns a row with the keys of `COLUMNS`."""
    queries = [question.text for question in questions]
    batches = [queries[start : start + BATCH] for start in range(0, len(queries), BATCH)]

    with tempfile.TemporaryDirectory() as cache:

        def build() -> BM25Retriever:
            # A process that starts has seen no words yet.
            analysis.english_analyzer.cache_clear()
            return BM25Retriever.build(documents, Path(cache) / str(time.perf_counter_ns()))

        index_seconds, _ = best_time(build)
        retriever = BM25Retriever.build(documents, cache)
        open_seconds, _ = best_time(lambda: BM25Retriever.build(documents, cache))
        single_seconds, _ = best_time(lambda: [retriever.search([query], TOP_K) for query in queries])
        batch_seconds, found = best_time(lambda: [hits for batch in batches for hits in retriever.search(batch, TOP_K)])
        size = sum(file.stat().st_size for file in (Path(cache) / retriever.fingerprint).iterdir())

    complete = [
        set(question.gold_titles) <= {hit.document.title for hit in hits}
        for question, hits in zip(questions, found, strict=True)
        if question.gold_titles
    ]
    return {
        "corpus": name,
        "passages": len(documents),
        "questions": len(questions),
        "index_seconds": round(index_seconds, 2),
        "index_megabytes": round(size / 1e6, 2),
        "open_seconds": round(open_seconds, 3),
        "single_per_second": round(len(queries) / single_seconds),
        "batch_per_second": round(len(queries) / batch_seconds),
        "all_gold": round(sum(complete) / len(complete), 3) if complete else None,
        "retriever": retriever.fingerprint,
    }


def best_time(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of the quickest of `REPEATS` runs, and what the last returned."""
    seconds = []
    result = None
    for _ in range(REPEATS):
        started = time.process_time()
        result = work()
        seconds.append(time.process_time() - started)
    return min(seconds), result


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    cells = [
        [("" if row[key] is None else f"{row[key]:,}") if key != "corpus" else row[key] for key in COLUMNS]
        for row in rows
    ]
    lines = [list(COLUMNS.values()), ["---"] + ["---:"] * (len(COLUMNS) - 1), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(rows: Sequence[dict[str, Any]], table: str, command: str) -> None:
    """Keep the result with the machine, the command and the date of it."""
    about = {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": f"Python {platform.python_version()}, tantivy {version('tantivy')}",
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "retrieval.json").write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    notes = "\n".join(f"* {key}: {value}" for key, value in about.items())
    (RESULTS / "retrieval.md").write_text(
        f"# Embedded BM25: speed in processor time, one thread\n\n{table}\n\n{notes}\n"
    )


if __name__ == "__main__":
    main()
