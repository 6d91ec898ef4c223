"""What a leaderboard shows, as headings, notes and tables: Markdown and HTML are two ways to write it.

Rows stand in one table only if nothing but the agent differs: questions, corpus, retriever,
k, budgets and model. The oracle and the random agent ask no model, so they stand in every
table of their setting: between them lies what an agent can gain there.
"""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from search_agents.leaderboard.board import Checked
from search_agents.leaderboard.published import Published
from search_agents.leaderboard.row import Row, SettingPart, portable
from search_env.render import visible

__all__ = ["BOUNDS", "Cell", "Section", "sections"]

BOUNDS = ("oracle", "random")
"""The agents that no board is without: ceiling and floor."""

_METRICS = {"f1": "F1", "em": "EM", "acc_r": "ACC_R", "cem": "CEM", "acc_l": "ACC_L"}
_COST = {
    "searches": ("searches/q", "{:.2f}"),
    "calls": ("calls/q", "{:.2f}"),
    "read_tokens": ("tokens read/q", "{:.0f}"),
    "written_tokens": ("written/q", "{:.0f}"),
    "seconds": ("s/q", "{:.2f}"),
    "money": ("money/q", "{:.4f}"),
    "model_money": ("model money/q", "{:.4f}"),
}
_HEADER = (
    "agent",
    "seed",
    "temperature",
    *_METRICS.values(),
    *(label for label, _ in _COST.values()),
    "protocol",
    "prompt",
    "part",
    "version",
    "commit",
    "row",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    value: float | str | None = None
    """What it is sorted by; None sorts last."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what must be known of it, and perhaps a table."""

    level: int
    heading: str
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    """What to type to mend what the notes tell."""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    published: bool = False
    """Whether the rows are printed figures of others."""


def sections(checked: Checked, published: Published, board: Path) -> list[Section]:
    """Everything that a board shows, in order.

    Args:
        checked: Its rows, scored again.
        published: A published table.
        board: Its folder, for the commands that the notes name.
    """
    benchmarks: dict[str, list[str]] = defaultdict(list)
    for name, row in checked.rows.items():
        benchmarks[_key(row.benchmark.model_dump(exclude={"data"}))].append(name)
    shown = [Section(level=1, heading="Leaderboard", notes=_legend())]
    if checked.refused:
        told = tuple(f"{visible(each.name)}: {visible(each.reason)}" for each in checked.refused)
        shown.append(
            Section(level=2, heading="Refused: rows that are not what their episodes or their set say", notes=told)
        )
    if checked.warnings:
        shown.append(Section(level=2, heading="Not certain", notes=tuple(map(visible, checked.warnings))))
    environments: dict[str, list[dict[str, Row]]] = defaultdict(list)
    for names in benchmarks.values():
        environments[checked.rows[names[0]].benchmark.environment].append({name: checked.rows[name] for name in names})
    for environment, found in environments.items():
        shown += [section for rows in found for section in _benchmark(rows, board)]
        shown += [_printed(key, published) for key, each in published.sets.items() if each.environment == environment]
    left = [key for key, each in published.sets.items() if each.environment not in environments]
    if left:
        shown.append(Section(level=2, heading="Published, without a row of ours beside it"))
        shown += [_printed(key, published) for key in left]
    return [*shown, Section(level=2, heading="What is like for like", notes=(*published.notes, published.source))]


def _benchmark(rows: Mapping[str, Row], board: Path) -> Iterator[Section]:
    benchmark = next(iter(rows.values())).benchmark
    yield Section(
        level=2,
        heading=visible(
            f"{benchmark.environment.removeprefix('SearchQA-')}, {benchmark.split}: {benchmark.questions} questions"
        ),
        notes=(f"Dataset {visible(benchmark.dataset_hash)}, questions {visible(benchmark.questions_hash)}.",),
    )
    settings: dict[str, dict[str, Row]] = defaultdict(dict)
    for name, row in rows.items():
        settings[_key(row.setting.model_dump(exclude={"retriever", "documents"}))][name] = row
    for number, found in enumerate(settings.values(), start=1):
        yield from _setting(found, board, f"Setting {number}")


def _setting(rows: Mapping[str, Row], board: Path, label: str) -> Iterator[Section]:
    """One table for each model; whoever asks none stands in all of them."""
    models: dict[str, dict[str, Row]] = defaultdict(dict)
    for name, row in rows.items():
        if row.model:
            models[row.model.fingerprint or row.model.name][name] = row
    alone = {name: row for name, row in rows.items() if row.model is None}
    first = next(iter(rows.values()))
    lacking = [bound for bound in BOUNDS if not any(row.agent.name == bound for row in rows.values())]
    warnings = [f"The {bound} agent is missing, so nobody can tell what these scores are worth." for bound in lacking]
    for own in [*models.values()] or [{}]:
        model = next((row.model for row in own.values() if row.model), None)
        named = f"model {model.name} ({model.fingerprint or 'not told'})" if model else "no model"
        judges = sorted({row.judge for row in (*own.values(), *alone.values()) if row.judge})
        ranked = sorted({**alone, **own}.items(), key=lambda item: (-item[1].scores.f1, item[0]))
        yield Section(
            level=3,
            heading=visible(f"{label}, {named}"),
            notes=(
                _setting_line(first.setting),
                *_judged(judges),
                *warnings,
                *dict.fromkeys(visible(f"{row.agent.name}: {row.agent.note}.") for _, row in ranked if row.agent.note),
            ),
            commands=tuple(_command(bound, first, board) for bound in lacking),
            header=_HEADER,
            rows=tuple(_cells(name, row) for name, row in ranked),
        )


def _judged(judges: Sequence[str]) -> list[str]:
    if len(judges) > 1:
        return [visible(f"ACC_L is by several judges ({', '.join(judges)}), so it cannot be compared between rows.")]
    return [visible(f"ACC_L by {judges[0]}.")] if judges else []


def _cells(name: str, row: Row) -> tuple[Cell, ...]:
    agent, versions = row.agent, row.versions
    return (
        Cell(visible(agent.name), visible(agent.name)),
        Cell(str(row.seed), row.seed),
        Cell(f"{agent.temperature:g}", agent.temperature),
        *(_metric(row, key) for key in _METRICS),
        *(_number(getattr(row.cost, key), layout) for key, (_, layout) in _COST.items()),
        *map(
            _word,
            (
                f"{agent.dialect}, {agent.prompt}",
                agent.prompt_hash,
                agent.fingerprint,
                versions.get("search-env"),
                row.commit and row.commit[:10] + (" with changes" if "with changes" in row.commit else ""),
                name,
            ),
        ),
    )


def _metric(row: Row, key: str) -> Cell:
    value, ends = getattr(row.scores, key), row.scores.intervals.get(key)
    if value is None or ends is None:
        return _number(None, "")
    return Cell(f"{100 * value:.1f} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})", value)


def _number(value: float | None, layout: str) -> Cell:
    return Cell("-") if value is None else Cell(layout.format(value), value)


def _word(text: str | None) -> Cell:
    return Cell(visible(text), visible(text)) if text else Cell("-")


def _setting_line(setting: SettingPart) -> str:
    corpus = (
        f"Corpus {setting.corpus_hash} ({setting.documents} documents)"
        if setting.corpus_hash
        else "No corpus of its own"
    )
    return visible(
        f"{corpus}, retriever {setting.retriever_fingerprint}, k = {setting.k}; budgets: {setting.max_searches} "
        f"searches, {setting.max_turns} turns, {setting.max_chars} characters, {setting.max_segment_tokens} tokens a "
        f"segment, {setting.max_episode_tokens} an episode."
    )


def _command(bound: str, row: Row, board: Path) -> str:
    """What to type to have the oracle or the random agent under the setting of a row."""
    benchmark, setting = row.benchmark, row.setting
    retriever = setting.retriever if isinstance(setting.retriever, str) else json.dumps(setting.retriever)
    flags = {
        "method": bound,
        "env": benchmark.environment,
        **({"data": benchmark.data} if benchmark.data else {}),
        "evaluation.split": benchmark.split,
        "limit": benchmark.questions,
        "retriever": retriever,
        "env.top-k": setting.k,
        **{
            f"{section}.{key.replace('_', '-')}": getattr(setting, key)
            for section, keys in (
                ("env", ("max_searches", "max_turns", "max_chars")),
                ("rollout", ("max_segment_tokens", "max_episode_tokens")),
            )
            for key in keys
        },
        "evaluation.temperatures": "[0]",
        "seed": row.seed,
        "out": f"outputs/{bound}",
    }
    command = shlex.join(
        ["search-env", "eval", *(word for key, value in flags.items() for word in (f"--{key}", str(value)))]
    )
    add = shlex.join(["search-env", "leaderboard", "add", f"outputs/{bound}", "--board", portable(str(board))])
    return " ".join(visible(f"{command} && {add}").split())


def _printed(key: str, published: Published) -> Section:
    rows = published.of(key)
    return Section(
        level=3,
        heading=f"Published, not measured here: {published.sets[key].name}",
        notes=("Figures as printed, in percent, under other settings than any above; see the end of this page.",),
        header=("agent", "model", "ACC_R", "ACC_L", "measured by"),
        rows=tuple(
            (
                Cell(row.agent, row.agent),
                Cell(row.model, row.model),
                *(_number(value, "{:.1f}") for value in row.scores[key]),
                Cell(published.protocols[row.by], published.protocols[row.by]),
            )
            for row in rows
        ),
        published=True,
    )


def _legend() -> tuple[str, ...]:
    return (
        "Every row was scored again from its stored episodes when this page was made. Rows can be compared within a "
        "table and nowhere else: another heading means other questions, another corpus, retriever, k, budget or model.",
        "Scores in percent with their 95 % bootstrap interval over questions. ACC_R: every word of a gold answer is in "
        "the answer. CEM: a gold answer is a piece of the answer. ACC_L: a language model says that the answer is "
        "right. Cost is a mean over questions (/q). Money is the price of searches and model; a dash where the model's "
        "prices or tokens are not known. The oracle follows the gold hops and is the ceiling of corpus and retriever; "
        "the random agent is the floor. Part: what tells the agent's own trained part from others.",
    )


def _key(values: Mapping[str, object]) -> str:
    return json.dumps(values, sort_keys=True)
