"""Many methods on many sets of questions under one setting: one evaluation each, and a table of all.

::

    outputs/bench-methods/
    ├── <set>/<method>/     the folder of an evaluation, see `evaluation_folder`
    ├── results.json        the scores of all evaluations that are finished
    └── results.md          the same as tables

Started again with the same config, a comparison goes on where it stopped: finished
evaluations are left as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search_agents.config import ComparisonConfig
from search_agents.config.sections import QuestionSet
from search_agents.engines.base import Engine
from search_agents.engines.build import make_engine
from search_agents.evaluation.environments import check_env_section, check_splits
from search_agents.evaluation.evaluate import HeldOut
from search_agents.evaluation.evaluation_folder import EvaluationFolder
from search_agents.evaluation.evaluation_run import EvaluationRun, is_whole
from search_agents.evaluation.report import Column, scores_table
from search_agents.learning.run_folder import write_json
from search_agents.methods import MethodSpec, check_method, method_key, needs_model
from search_env.errors import ConfigError, RunError

__all__ = ["comparison_tables", "require_scores", "run_comparison"]

_GO_ON = "go on with the same command"

_COLUMNS: tuple[Column, ...] = (
    ("F1", "f1", "{:.3f}"),
    ("EM", "em", "{:.3f}"),
    ("ACC_R", "cem", "{:.3f}"),
    ("ACC_L", "acc_l", "{:.3f}"),
    ("format rate", "format_rate", "{:.2f}"),
    ("searches/q", "searches_per_question", "{:.2f}"),
    ("calls/q", "calls_per_question", "{:.2f}"),
    ("tokens read/q", "read_tokens_per_question", "{:.0f}"),
    ("written/q", "written_tokens_per_question", "{:.0f}"),
    ("s/q", "seconds_per_question", "{:.2f}"),
)


def run_comparison(config: ComparisonConfig, out: Path, *, tell: Callable[[str], None], display: str = "auto") -> str:
    """Evaluate every method on every set, those that are not finished yet.

    Args:
        config: Everything about the comparison.
        out: Its folder: new, or that of the same comparison.
        tell: Is told of each evaluation when it begins and when it ends.
        display: What shows how it goes; see `search_agents.learning.progress.DISPLAYS`.

    Returns:
        The tables.

    Raises:
        ConfigError: If a setting is wrong, or the folder holds other evaluations.
        SearchEnvError: If an evaluation cannot be made; those before it are kept.
        KeyboardInterrupt: If the user stopped it; its text says how to go on.
    """
    _check(config)
    engine: Engine | None = None
    for asked in config.sets:
        held_out: HeldOut | None = None
        for method in config.methods:
            name, place = f"{asked.id} {method_key(method)}", out / set_key(asked) / method_key(method)
            evaluation = config.of(method, asked)
            if _finished(place) is not None:
                described = {"config": evaluation.model_dump(mode="json")}
                EvaluationFolder(place).require_same(described, "what is compared")
                tell(f"{name}: finished before")
                continue
            if engine is None and needs_model(method):
                engine = make_engine(config.model)
            held_out = held_out or HeldOut(evaluation)
            tell(f"{name}: {len(held_out.questions)} questions")
            begun = time.perf_counter()
            run = EvaluationRun(evaluation, held_out=held_out, engine=engine, display=display, go_on=_GO_ON)
            result = run.go_on(EvaluationFolder.open(place)) if place.exists() else run.start(place)[0]
            row = result["results"][0]
            tell(f"{name}: F1 {format(row['f1'], '.3f') if row['n'] else '-'} in {time.perf_counter() - begun:.0f} s")
            write_tables(config, out)
    return write_tables(config, out)


def require_scores(config: ComparisonConfig, out: Path) -> None:
    """Refuse to call a comparison done if all searches of one of its methods failed.

    Raises:
        RunError: Says which method has no score on which set, and how to go on.
    """
    empty = [
        f"{method_key(method)} on {set_key(asked)}"
        for asked in config.sets
        for method in config.methods
        if (result := EvaluationFolder(out / set_key(asked) / method_key(method)).result()) is not None
        and not all(row["n"] for row in result["results"])
    ]
    if empty:
        raise RunError(
            f"there is no score of {', '.join(empty)}: every episode is invalid, for its search failed for good. Mend "
            f"the retriever, then {_GO_ON}."
        )


def write_tables(config: ComparisonConfig, out: Path) -> str:
    """Write what is finished as results.json and results.md; returns the latter's text."""
    results = {
        set_key(asked): {method_key(method): row for method, row in _rows(config.methods, out / set_key(asked))}
        for asked in config.sets
    }
    write_json(out / "results.json", {"config": config.model_dump(mode="json"), "sets": results})
    text = comparison_tables(results)
    (out / "results.md").write_text(text, encoding="utf-8")
    return text


def comparison_tables(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """One Markdown table a set.

    Args:
        results: Set, method, and the row of its result.json at the first temperature.
    """
    parts = []
    for asked, rows in results.items():
        notes = [f"{method}: {row['note']}." for method, row in rows.items() if "note" in row]
        count = max((row["n"] for row in rows.values()), default=0)
        parts += [
            f"## {asked}: {count} questions",
            scores_table(list(rows.items()), _COLUMNS),
            *notes,
        ]
    return "\n\n".join(parts) + "\n"


def set_key(asked: QuestionSet) -> str:
    """The name of a set in folders and tables: ``HotpotQA-v0``, with the split if the set names one."""
    return "-".join(filter(None, [asked.id.removeprefix("SearchQA-"), asked.split]))


def _rows(methods: Sequence[MethodSpec], folder: Path) -> Iterator[tuple[MethodSpec, dict[str, Any]]]:
    for method in methods:
        if (result := _finished(folder / method_key(method))) is not None:
            row = result["results"][0]
            yield method, {**row, "seconds_per_question": row["seconds"] / max(1, row["n"] + row["invalid"])}


def _finished(place: Path) -> dict[str, Any] | None:
    """The result of an evaluation that has nothing left to do."""
    result = EvaluationFolder(place).result()
    return result if result is not None and is_whole(result) else None


def _check(config: ComparisonConfig) -> None:
    for what, keys in (
        ("methods must differ in name or options", [method_key(method) for method in config.methods]),
        ("sets must differ in id or split", [set_key(asked) for asked in config.sets]),
    ):
        if len(set(keys)) < len(keys):
            raise ConfigError(f"{what}; given: {', '.join(keys)}.")
    for method in config.methods:
        check_method(method)
    for asked in config.sets:
        section = config.of(config.methods[0], asked).env
        check_env_section(section)
        if section.data is not None and not Path(section.data).exists():
            check_splits(section, [config.of(config.methods[0], asked).evaluation.split])  # now, not hours later
