"""``search-env data``: question sets measured, checked, fetched, indexed, joined, generated and drawn."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from search_agents.cli.arguments import Parser, add_skip_malformed, no_settings, retriever_spec
from search_agents.cli.terminal import write
from search_env.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from search_env.datasets import Dataset, SkippedRows
    from search_env.types import Document, Question

__all__ = ["parser", "run"]

_ACTIONS = {
    "info": "sizes, hops, and how far single searches, followed hops and chance get (needs SET …)",
    "check": "read every row, and look for questions that two of the sets share (needs SET …)",
    "pull": "fetch a published set from the hub, at its pinned revision, as JSON lines (needs SET and --out)",
    "index": "index the corpus of a set on disk, for the retriever {name: bm25, index: FOLDER} (needs SET and --out)",
    "join": "write several sets as one, for SearchQA-Custom-v0, its ids behind the sets' names (needs SET … and --out)",
    "generate": "write a FictionalWiki of any size as JSON lines (needs --passages and --out)",
    "stage-sets": "draw the sets of the training stages from labelled questions (needs --curriculum, --source, --out)",
}


class _Set(NamedTuple):
    """A question set as the command line names it."""

    name: str
    data: str | None
    split: str

    @classmethod
    def parse(cls, text: str) -> _Set:
        """Read ``NAME[=DATA][:SPLIT]``."""
        name, _, data = text.partition("=")
        where, colon, split = (data or name).rpartition(":")
        if not colon or "/" in split:
            where, split = data or name, ""
        default = "test" if name.partition(":")[0] == "fictional-wiki" else "dev"
        return cls(name if data else where, where if data else None, split or default)

    def load(self, skip_malformed: int) -> tuple[Dataset, SkippedRows]:
        """Read the set and tell the malformed rows that were left out."""
        from search_env import datasets

        skipped = datasets.SkippedRows(skip_malformed)
        dataset = datasets.load(self.name, split=self.split, data=self.data, skipped=skipped)
        if skipped.count:
            write(f"{self.name}:{self.split}: {skipped}")
        return dataset, skipped


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    actions = "\n".join(f"  {action:12}{text}" for action, text in _ACTIONS.items())
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env data info fictional-wiki hotpotqa=../shared/data/hotpotqa:dev",
            "search-env data check hotpotqa=../shared/data/hotpotqa:train hotpotqa=../shared/data/hotpotqa:dev",
            "search-env data pull musique:train --out data/musique",
            "search-env data join hotpotqa=data/hotpotqa:train musique=data/musique:train --out data/two-sets",
            "search-env data generate --passages 100000 --out data/wiki --index",
            "search-env data stage-sets --curriculum r1-searcher --source hotpotqa=h.jsonl "
            "--source 2wikimultihopqa=w.jsonl --out data/stages",
        ),
        more=f"actions:\n{actions}\n\nA SET is NAME[=DATA][:SPLIT]; `search-env list datasets` shows the names. The "
        "split is dev, or test for fictional-wiki.\nLabels for stage-sets come from `search-env difficulty`.",
    )
    made.add_argument("action", choices=_ACTIONS, metavar="ACTION", help=", ".join(_ACTIONS))
    made.add_argument("sets", nargs="*", type=_Set.parse, metavar="SET", help="question sets: NAME[=DATA][:SPLIT]")
    made.add_argument("--retriever", type=retriever_spec, default="bm25", help="what searches, for info [bm25]")
    made.add_argument("--top-k", type=int, default=5, help="documents of a search, for info [%(default)s]")
    made.add_argument("--passages", type=int, metavar="N", help="pages to generate, 10 to 5,110,476")
    made.add_argument("--index", action="store_true", help="generate: also index them, into the folder's index/")
    add_skip_malformed(made, " of each SET or --source")
    made.add_argument("--curriculum", metavar="NAME", help="file, or name of a shipped one, for stage-sets")
    made.add_argument("--source", action="append", default=[], metavar="NAME=FILE", help="labelled questions")
    made.add_argument("--scale", type=float, default=1.0, help="factor on the curriculum's numbers [%(default)s]")
    made.add_argument("--seed", type=int, default=0, help="seed, for generate and stage-sets [%(default)s]")
    made.add_argument("--out", type=Path, metavar="PATH", help="folder; for info and check a JSON file")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Do what was asked."""
    made = parser("data", "")
    no_settings(made, settings)
    if arguments.action in ("info", "check", "pull", "index", "join") and not arguments.sets:
        made.error(f"data {arguments.action} needs a question set, for example fictional-wiki")
    if arguments.action == "generate" and arguments.passages is None:
        made.error("data generate needs --passages N, for example 10000")
    if arguments.action in ("pull", "index", "join", "generate", "stage-sets") and arguments.out is None:
        made.error(f"data {arguments.action} needs --out FOLDER")
    if arguments.action == "stage-sets" and not (arguments.curriculum and arguments.source):
        made.error("data stage-sets needs --curriculum NAME and --source NAME=FILE")
    act = {
        "info": _info,
        "check": _check,
        "pull": _pull,
        "index": _index,
        "join": _join,
        "generate": _generate,
        "stage-sets": _stage_sets,
    }
    act[arguments.action](arguments)
    return 0


def _info(arguments: argparse.Namespace) -> None:
    from search_agents.evaluation.set_statistics import set_statistics, statistics_table
    from search_env.vector import SearchQAVectorEnv

    found = []
    for given in arguments.sets:
        dataset, skipped = given.load(arguments.skip_malformed)
        env = SearchQAVectorEnv(64, dataset=dataset, retriever=arguments.retriever, top_k=arguments.top_k)
        found.append({**set_statistics(env), "malformed_rows": skipped.count})
    write(statistics_table(found))
    _keep(arguments.out, found)


def _check(arguments: argparse.Namespace) -> None:
    from search_env.datasets.overlap import find_overlap

    read = []
    report: dict[str, list[dict[str, object]]] = {"sets": [], "overlaps": []}
    for given in arguments.sets:
        dataset, skipped = given.load(arguments.skip_malformed)
        read.append((given, dataset))
        questions, documents = len(dataset.questions), len(dataset.documents)
        rows = "row" if skipped.count == 1 else "rows"
        write(
            f"{given.name}:{given.split}: {questions:,} questions, {documents:,} passages, "
            f"{skipped.count:,} malformed {rows} left out, {dataset.fingerprint}"
        )
        report["sets"].append(
            {"set": given.name, "split": given.split, "questions": questions, "passages": documents,
             "malformed_rows": skipped.count, "fingerprint": dataset.fingerprint,
             "corpus_fingerprint": dataset.corpus_fingerprint}
        )  # fmt: skip
    for (one, first), (other, second) in combinations(read, 2):
        overlaps = find_overlap(first.questions, second.questions)
        exact = sum(overlap.exact for overlap in overlaps)
        names = [f"{given.name}:{given.split}" for given in (one, other)]
        write(f"{names[0]} in {names[1]}: {exact} exact, {len(overlaps) - exact} near")
        for overlap in overlaps[:5]:
            write(f"  {overlap.similarity:.2f} {overlap.question.text!r} ~ {overlap.other.text!r}")
        pairs = [[overlap.question.id, overlap.other.id, round(overlap.similarity, 3)] for overlap in overlaps]
        report["overlaps"].append({"sets": names, "exact": exact, "near": len(overlaps) - exact, "pairs": pairs})
    _keep(arguments.out, report)


def _pull(arguments: argparse.Namespace) -> None:
    from search_env.datasets import PUBLISHED
    from search_env.datasets.jsonl import write_folder
    from search_env.errors import unknown_name

    published = {one.name: one for one in PUBLISHED}
    for given in arguments.sets:
        if given.name not in published:
            raise ConfigError(unknown_name("published set", given.name, published))
        dataset, _ = given._replace(data=given.data or published[given.name].hub.id).load(arguments.skip_malformed)
        write_folder(arguments.out, given.split, dataset.questions, dataset.documents)
        write(f"{arguments.out}: {len(dataset.questions):,} questions, {len(dataset.documents):,} passages")


def _index(arguments: argparse.Namespace) -> None:
    from search_env.datasets.jsonl import write_corpus
    from search_env.retrieval.base import require_documents
    from search_env.retrieval.bm25_folder import build_folder

    sets = [given.load(arguments.skip_malformed)[0] for given in arguments.sets]
    documents = {document.id: document for dataset in sets for document in dataset.documents}
    require_documents(tuple(documents.values()))
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus.jsonl"
        write_corpus(corpus, documents.values())
        built = build_folder(corpus, arguments.out)
    write(f"{arguments.out}: {len(built):,} documents, {built.fingerprint}")


def _join(arguments: argparse.Namespace) -> None:
    from search_env.datasets.jsonl import write_folder

    if arguments.out.exists() and any(arguments.out.iterdir()):
        raise ConfigError(f"{arguments.out} is not empty; give a new folder with --out.")
    names = _names_apart(arguments.sets)
    documents: dict[str, Document] = {}
    questions: dict[str, list[Question]] = {}
    for given in arguments.sets:
        dataset, _ = given.load(arguments.skip_malformed)
        name = names[given.name, given.data]
        named = [replace(question, id=f"{name}/{question.id}") for question in dataset.questions]
        questions.setdefault(given.split, []).extend(named)
        for document in dataset.documents:
            added = replace(document, id=f"{name}/{document.id}")
            if documents.setdefault(added.id, added) != added:
                raise DatasetError(f"two splits of {name} have different passages with the id {document.id!r}.")
    for split, asked in questions.items():
        write_folder(arguments.out, split, asked, documents.values())  # which adds only passages that are not there
        write(f"{arguments.out / split}.jsonl: {len(asked):,} questions")
    write(f"{arguments.out / 'corpus.jsonl'}: {len(documents):,} passages")


def _names_apart(sets: Sequence[_Set]) -> dict[tuple[str, str | None], str]:
    """What each source is called among the others: its set's name, or that of its folder if another has that name."""
    twice = [given for given, count in Counter(sets).items() if count > 1]
    if twice:
        raise ConfigError(f"{twice[0].name}:{twice[0].split} is given twice; give each split of a set once.")
    sources = dict.fromkeys((given.name, given.data) for given in sets)
    count = Counter(name for name, _ in sources)
    names = {(name, data): name if count[name] == 1 else Path(data or name).stem for name, data in sources}
    same = [name for name, count in Counter(names.values()).items() if count > 1]
    if same:
        raise ConfigError(f"two of the sets would both be called {same[0]!r}; rename the folder of one.")
    return names


def _generate(arguments: argparse.Namespace) -> None:
    from search_env.datasets.fictional_wiki import write_fictional_wiki
    from search_env.retrieval.bm25_folder import build_folder

    told = 0

    def tell(passages: int) -> None:
        nonlocal told
        if passages * 10 // arguments.passages > told:
            told = passages * 10 // arguments.passages
            write(f"{passages:,} passages")

    made = write_fictional_wiki(arguments.out, passages=arguments.passages, seed=arguments.seed, on_progress=tell)
    counts = ", ".join(f"{count:,} {split} questions" for split, count in made.questions.items())
    write(f"{arguments.out}: {made.passages:,} passages, {counts}")
    if arguments.index:
        built = build_folder(arguments.out / "corpus.jsonl", arguments.out / "index")
        write(f"{arguments.out / 'index'}: {built.fingerprint}")


def _stage_sets(arguments: argparse.Namespace) -> None:
    from search_agents.config.recipes import find_recipe
    from search_agents.curriculum import build_stage_sets, read_curriculum
    from search_agents.curriculum.stage_sets import read_labelled, write_stage_sets
    from search_env.datasets import SkippedRows

    sources = {}
    for given in arguments.source:
        name, equals, path = given.partition("=")
        if not equals:
            raise ConfigError(f"--source takes NAME=FILE, for example hotpotqa=labels.jsonl, got {given!r}")
        skipped = SkippedRows(arguments.skip_malformed)
        sources[name] = read_labelled(path, skipped)
        if skipped.count:
            write(f"{name}: {skipped}")
    curriculum = read_curriculum(find_recipe(arguments.curriculum, "curricula"))
    sets = build_stage_sets(curriculum, sources, scale=arguments.scale, seed=arguments.seed)
    write_stage_sets(sets, arguments.out)
    for stage, questions in sets.items():
        write(f"{arguments.out / stage}.jsonl: {len(questions):,} questions")


def _keep(out: Path | None, report: object) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        write(str(out))
