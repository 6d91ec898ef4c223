"""What the compressing methods find worth reading, beside chance and BM25.

    python benchmarks/compression.py --model MODEL --encoder ENCODER --write

Two parts. `ranking`: where LongLLMLingua's score of a document puts the gold documents of dev
questions among ten. `selection`: which sentences RECOMP's compressor picks before and after it is
trained on labels of the same model, on training questions held out and on dev questions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from search_agents.engines.base import Engine, SamplingParams, ScoringRequest
from search_agents.engines.transformers import TransformersEngine
from search_agents.methods.base import Setting
from search_agents.methods.compression import document_text
from search_agents.methods.longllmlingua import question_likelihood
from search_agents.methods.recomp import Recomp, RecompFitOptions
from search_agents.methods.recomp.collect import supporting
from search_agents.methods.recomp.encoder import DualEncoder
from search_agents.methods.recomp.selection import Candidate, candidates
from search_agents.methods.recomp.train import recall
from search_agents.methods.steps import Score, Steps

from search_env.datasets import load
from search_env.dialects import make_inert
from search_env.retrieval import Retriever, get_retriever
from search_env.types import Document, Question
from search_env.vector import SearchQAVectorEnv

SET = "2wikimultihopqa"
DATA = Path(__file__).parents[2] / "shared" / "data" / SET
RESULTS = Path(__file__).parent / "results"
DOCUMENTS = 10  # Of a dev question.
TRAIN_TOP_K = 5
_SETTING = f"Questions and corpus are the local extract of {SET}, not the official sets; the retriever is BM25."
_NOTES = {
    "ranking": f"""\
Ranking: of {DOCUMENTS} documents of a question, the gold ones and the first that BM25 finds. "mean rank" is that of
the gold documents, from 1; "first" the share of questions with a gold document in the first place; "recall" the share
of the gold documents among as many first places. BM25 is the order of the search whose results these are, with gold
documents that it did not find last.""",
    "selection": f"""\
Selection: the set tells which documents are gold and what each hop finds, not which sentences support the answer. A
sentence counts as supporting that stands in a gold document and holds the answer or that of a hop. "gain" is by how
many nats the sentence that is put first makes the gold answer likelier than none does, in the eyes of the model that
labelled; "hit" the share of questions where it is the best one. "recall at 1" and "at 5" are of supporting sentences,
over the questions for which any was found (of dev questions only these are counted). Held-out questions are training
questions that the encoder was not trained on, with the {TRAIN_TOP_K} documents of a search; dev questions have
{DOCUMENTS}. Numbers of the trainer are its defaults and were not searched for.""",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the page, and keep it if asked."""
    arguments = _parser().parse_args(argv)
    engine = TransformersEngine.from_pretrained(arguments.model, dtype=arguments.dtype)
    file = RESULTS / "compression.json"
    report: dict[str, Any] = json.loads(file.read_text()) if file.is_file() and arguments.write else {}
    command = (
        f"python benchmarks/compression.py --model {engine.name} --encoder {_encoder_name(arguments.encoder)} "
        f"--questions {arguments.questions} --train-questions {arguments.train_questions}"
    )
    for part in arguments.part or _PARTS:
        begun = time.process_time()
        figures = _PARTS[part](engine, arguments)
        report[part] = figures | _about(command) | {"processor_seconds": round(time.process_time() - begun)}
        if arguments.write:
            file.write_text(json.dumps(report, indent=2) + "\n")
            file.with_suffix(".md").write_text(markdown(report))
    print(markdown(report))


def ranking(engine: Engine, arguments: argparse.Namespace) -> dict[str, Any]:
    """Where the gold documents of dev questions stand among ten."""
    dataset = load(SET, split="dev", data=arguments.data)
    retriever = get_retriever("bm25", dataset.documents)
    by_title = {document.title: document for document in dataset.documents}
    rows: dict[str, list[tuple[list[int], int]]] = {"longllmlingua": [], "bm25": []}
    for question in dataset.questions[: arguments.questions]:
        documents = _with_gold(retriever, question, by_title)
        gold = {index for index, document in enumerate(documents) if document.title in question.gold_titles}
        losses, _ = _run(engine, question_likelihood(make_inert(question.text), [*map(document_text, documents)]))
        ranked = sorted(range(len(documents)), key=lambda index: losses[index])
        rows["longllmlingua"].append(([place for place, index in enumerate(ranked, 1) if index in gold], len(gold)))
        rows["bm25"].append(([index + 1 for index in sorted(gold)], len(gold)))
    found = {name: _rank_figures(ranks) for name, ranks in rows.items()}
    counts = [count for _, count in rows["bm25"]]
    found["chance"] = {
        "mean_rank": (DOCUMENTS + 1) / 2,
        "first": round(float(np.mean(counts)) / DOCUMENTS, 4),
        "recall": round(float(np.mean(counts)) / DOCUMENTS, 4),
    }
    return {"model": engine.name, "questions": len(counts), "rows": found}


def selection(engine: Engine, arguments: argparse.Namespace) -> dict[str, Any]:
    """Which sentences a compressor picks, untrained and trained."""
    training = load(SET, split="train", data=arguments.data)
    env = SearchQAVectorEnv(16, dataset=training, retriever="bm25", prompt="base", top_k=TRAIN_TOP_K)
    setting = Setting(engine=engine, env=env, sampling=SamplingParams(), max_tokens=2048, chat=False)
    options = RecompFitOptions(encoder=arguments.encoder)
    dev = load(SET, split="dev", data=arguments.data)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        fitted = Recomp.fit(setting, training.questions[: arguments.train_questions], folder, options)
        encoders = {"trained": str(folder), "untrained": arguments.encoder}
        rows = _dev_recall(dev.questions[: arguments.questions], env.retriever, encoders)
    return {
        "model": engine.name,
        "encoder": _encoder_name(arguments.encoder),
        **{key: fitted[key] for key in ("questions", "trained_on", "held_out")},
        "rows": {name: fitted[name] for name in ("trained", "untrained", "bm25", "chance")},
        "dev": rows,
    }


def _encoder_name(encoder: str) -> str:
    folder = Path(encoder)
    return folder.parent.name if folder.name == "model" else folder.name


def _dev_recall(questions: Sequence[Question], retriever: Retriever, encoders: dict[str, str]) -> dict[str, Any]:
    hits = retriever.search([question.text for question in questions], DOCUMENTS)
    asked = []
    for question, each in zip(questions, hits, strict=True):
        found = candidates([hit.document for hit in each])
        if wanted := supporting(question, found):
            asked.append((question, found, wanted))
    gold = [wanted for _, _, wanted in asked]
    told: dict[str, Any] = {"questions": len(asked)}
    for name, folder in encoders.items():
        encoder = DualEncoder(folder)
        read = [(make_inert(question.text), [each.text for each in found]) for question, found, _ in asked]
        told[name] = recall(gold, [encoder.scores(*each) for each in read])
    told["bm25"] = recall(gold, _bm25_scores(asked))
    sizes = [len(found) for _, found, _ in asked]
    told["chance"] = {
        f"recall_{count}": round(float(np.mean([min(1.0, count / size) for size in sizes])), 4) for count in (1, 5)
    }
    return told


def _bm25_scores(asked: Sequence[tuple[Question, list[Candidate], tuple[int, ...]]]) -> list[list[float]]:
    texts = sorted({each.text for _, found, _ in asked for each in found})
    documents = [Document(id=str(number), title="", text=text) for number, text in enumerate(texts)]
    hits = get_retriever("bm25", documents).search([question.text for question, _, _ in asked], len(texts))
    scores = [{hit.document.text: hit.score for hit in each} for each in hits]
    return [[score.get(each.text, 0.0) for each in found] for (_, found, _), score in zip(asked, scores, strict=True)]


def _with_gold(retriever: Retriever, question: Question, by_title: dict[str, Document]) -> list[Document]:
    """The gold documents and the first others that BM25 finds, ten in its order; what it does not find is last."""
    (hits,) = retriever.search([question.text], 5 * DOCUMENTS)
    gold = [by_title[title] for title in question.gold_titles]
    found = [hit.document for hit in hits]
    others = [document for document in found if document not in gold][: DOCUMENTS - len(gold)]
    ranked = [*found, *(document for document in gold if document not in found)]
    return [document for document in ranked if document in gold or document in others]


def _rank_figures(rows: Sequence[tuple[list[int], int]]) -> dict[str, float]:
    return {
        "mean_rank": round(float(np.mean([place for places, _ in rows for place in places])), 3),
        "first": round(float(np.mean([1 in places for places, _ in rows])), 4),
        "recall": round(float(np.mean([sum(p <= count for p in places) / count for places, count in rows])), 4),
    }


def _run(engine: Engine, steps: Steps[Any]) -> Any:
    """Run steps that ask for nothing but scores."""
    results: list[Any] | None = None
    while True:
        try:
            asked = steps.send(results)  # type: ignore[arg-type]
        except StopIteration as stop:
            return stop.value
        scores = [step for step in asked if isinstance(step, Score)]
        results = list(engine.score([ScoringRequest(context=step.context, text=step.text) for step in scores]))


def markdown(report: dict[str, Any]) -> str:
    """The page: a table for each part, and how it was made."""
    pages = ["# Compression: what is kept, beside chance and BM25"]
    for part, figures in report.items():
        pages.append(f"## {part.capitalize()}")
        if part == "ranking":
            pages.append(f"{figures['questions']} dev questions, {figures['model']}.")
            pages.append(_table(figures["rows"], {"mean_rank": "mean rank", "first": "first", "recall": "recall"}))
        else:
            recalls = {"recall_1": "recall at 1", "recall_5": "recall at 5"}
            pages.append(
                f"Encoder {figures['encoder']}; labels by {figures['model']} on {figures['questions']} questions: "
                f"trained on {figures['trained_on']} that a sentence helps, {figures['held_out']} held out."
            )
            pages.append(_table(figures["rows"], {"gain": "gain (nats)", "hit": "hit", **recalls}))
            pages.append(f"{figures['dev']['questions']} dev questions:")
            pages.append(_table({k: v for k, v in figures["dev"].items() if k != "questions"}, recalls))
        told = ("command", "date", "machine", "versions", "processor_seconds")
        pages.append("\n".join(f"* {key.replace('_', ' ')}: {figures[key]}" for key in told))
    return "\n\n".join([*pages, _SETTING, *(_NOTES[part] for part in report)]) + "\n"


def _table(rows: dict[str, dict[str, float]], columns: dict[str, str]) -> str:
    lines = [["", *columns.values()], ["---", *["---:"] * len(columns)]]
    lines += [[name, *(f"{row[key]:.3f}" for key in columns)] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _about(command: str) -> dict[str, str]:
    return {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers")),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="causal language model that scores: a folder or hub id")
    parser.add_argument("--dtype", default="bfloat16", help="of its weights (default: bfloat16)")
    parser.add_argument("--encoder", required=True, help="encoder that RECOMP's compressor begins as: folder or hub id")
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder of {SET} (default: ../shared/data/{SET})")
    parser.add_argument("--questions", type=int, default=100, help="dev questions (default: 100)")
    parser.add_argument("--train-questions", type=int, default=240, help="questions that are labelled (default: 240)")
    parser.add_argument("--folder", type=Path, help="keeps the labels, so that a run that was stopped goes on")
    parser.add_argument("--part", action="append", choices=_PARTS, help="measure this alone (default: all)")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULTS.name}/ as JSON, Markdown")
    return parser


_PARTS: dict[str, Callable[[Engine, argparse.Namespace], dict[str, Any]]] = {
    "ranking": ranking,
    "selection": selection,
}

if __name__ == "__main__":
    main()
