"""The end of a run: floors, summary.json, plots, examples.md, report.html and the tables that are printed.

All of it is made from the files of the run folder and the held-out questions, so a run
that was stopped here ends the same way when it is resumed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from search_agents.evaluation.evaluate import HeldOut
from search_agents.evaluation.floors import answer_floors, question_as_query
from search_agents.evaluation.plots import plot_comparison, plot_training
from search_agents.evaluation.report import METHOD_ROWS, examples_page, groups_table, results_table
from search_agents.evaluation.training_report import make_report, read_run
from search_agents.learning.run_folder import RunConfig, RunFolder, write_json, write_text
from search_env.errors import RetrieverUnavailable

__all__ = ["evaluation_name", "write_summary"]

_LOG = logging.getLogger(__name__)
_AGENT = ("before", "stage1", "after")


def evaluation_name(name: str, temperature: float, headline: float) -> str:
    """Name of an evaluation's file: the temperature is told where it is not that of the headline figures."""
    return name if temperature == headline else f"{name}-t{temperature:g}"


def write_summary(
    config: RunConfig,
    folder: RunFolder,
    held_out: HeldOut,
    *,
    seconds: float,
    imitated: Mapping[str, Any] | None = None,
) -> str:
    """Write everything that ends a run; summary.json comes last and marks the run as finished.

    Args:
        config: The config of the run.
        folder: The run folder, all evaluations done.
        held_out: The held-out questions.
        seconds: Wall-clock time of the whole run, all its starts together.
        imitated: What supervised training has learnt from.

    Returns:
        The tables to print.
    """
    summary = {
        "seed": config.run.seed,
        "seconds": round(seconds, 1),
        **_evaluations(config, folder),
        "floors": answer_floors(held_out.questions, seed=config.run.seed),
        "question_as_query_recall": _question_as_query(held_out),
        "steps": dict(Counter(row["stage"] for row in folder.metrics())),
        "environment": held_out.describe(),
        "model": config.model.path,
        "commands": {
            "train": folder.meta()["command"],
            "evaluate": f"search-env eval --model {folder.path}",
            "ask": f'search-env ask "QUESTION" --model {folder.path} --corpus CORPUS.jsonl',
        },
    }
    if imitated is not None:
        summary["imitated"] = dict(imitated)
    plot_training([folder.metrics()], folder.path / "plots")
    plot_comparison(summary, folder.path / "plots")
    examples = examples_page(folder.transcripts("before"), folder.transcripts("after"))
    write_text(folder.path / "examples.md", examples)
    write_text(folder.path / "report.html", make_report([read_run(folder.path, summary)]))
    write_json(folder.path / "summary.json", summary)
    tables = [results_table(summary), *(groups_table(summary, group) for group in ("by_kind", "by_hops"))]
    return "\n\n".join(table for table in tables if table)


def _question_as_query(held_out: HeldOut) -> dict[str, Any] | None:
    try:
        return question_as_query(held_out.questions, held_out.env.retriever, top_k=held_out.env.top_k)
    except RetrieverUnavailable as error:
        _LOG.warning("the summary goes without question_as_query_recall: %s", error)  # and is not lost for it
        return None


def _evaluations(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    """The scores by name; those at further temperatures under ``temperatures``."""
    headline, *others = config.evaluation.temperatures
    names = [*_AGENT, *(name for name, _ in METHOD_ROWS if name not in _AGENT)]
    found: dict[str, Any] = {name: scores for name in names if (scores := folder.evaluation(name)) is not None}
    further: dict[str, dict[str, Any]] = {
        f"{temperature:g}": {
            name: scores
            for name in _AGENT
            if (scores := folder.evaluation(evaluation_name(name, temperature, headline))) is not None
        }
        for temperature in others
    }
    # The baseline to beat is the one that shares the trained model.
    if "rag_after" in found:
        found["rag"] = found["rag_after"]
    return {**found, "temperatures": further} if further else found
