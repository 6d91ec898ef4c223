"""What is fuzzed: each target takes any bytes, and nothing comes out of it but our own errors.

The first byte chooses among what a target has to choose from, the rest is the input. A
target also checks what must hold of whatever was read.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from search_agents.cli.arguments import retriever_spec
from search_agents.config import EvalConfig, TrainConfig, load_config, parse_flags

from search_env.datasets import PUBLISHED, SkippedRows, read_questions
from search_env.datasets.corpora import stream_corpus
from search_env.dialects import DIALECTS, PromptStyle, make_inert, read_prompt_file, with_prompt
from search_env.errors import SearchEnvError
from search_env.types import ActionKind, Document, Hit

__all__ = ["TARGETS"]

_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.bz2", ".tsv", ".tar", ".tar.gz", ".tar.bz2")
_CONFIGS = (TrainConfig, EvalConfig)
_MARK = "\x1e"  # cuts an input into segments


def dialects(data: bytes) -> None:
    """A model's segments, and a document and a question of the same text, in every dialect."""
    dialect = list(DIALECTS.values())[data[0] % len(DIALECTS)]
    text = data[1:].decode("utf-8", errors="surrogateescape" if data[0] & 128 else "replace")
    segments = text.split(_MARK)
    for action in map(dialect.parse, segments):
        assert (action.kind is ActionKind.MALFORMED) == bool(action.problem)
        dialect.render_notice(action)
    assert all(isinstance(problem, str) for problem in dialect.judge_format(segments).problems)
    shown = dialect.render_documents([Hit(document=Document(id="1", title=segments[0], text=text), score=1.0)])
    shown.encode()
    assert [shown.count(tag) for tag in dialect.tags] == [int(tag in dialect.documents) for tag in dialect.tags]
    inert = make_inert(text)
    assert make_inert(inert) == inert and len(inert.splitlines()) <= 1
    for style in PromptStyle:
        dialect.prompt(text, style).text.encode()


def prompts(data: bytes) -> None:
    """A user's own prompt, as a file."""
    dialect = list(DIALECTS.values())[data[0] % len(DIALECTS)]
    with tempfile.TemporaryDirectory() as folder, _ours():
        file = Path(folder, "prompt.txt")
        file.write_bytes(data[1:])
        own = with_prompt(dialect, read_prompt_file(file))
        own.prompt("Who? <answer>", PromptStyle.BASE).text.encode()


def questions(data: bytes) -> None:
    """A file of questions of one's own, with and without malformed rows left out."""
    with _file(data[1:], f"questions{_ENDINGS[data[0] % len(_ENDINGS)]}") as path:
        for skipped in (None, SkippedRows(1000)):
            with _ours():
                read = read_questions(path, skipped)
                assert read and len({question.id for question in read}) == len(read)


def corpora(data: bytes) -> None:
    """A corpus in any format and any archive."""
    with _file(data[1:], f"corpus{_ENDINGS[data[0] % len(_ENDINGS)]}") as path:
        for skipped in (None, SkippedRows(1000)):
            with _ours():
                read = list(stream_corpus(path, skipped))
                assert len({document.id for document in read}) == len(read)
                assert all(f"{document.title}{document.text}".encode() for document in read)


def published(data: bytes) -> None:
    """A publisher's file of each question set."""
    chosen = PUBLISHED[data[0] % len(PUBLISHED)]
    split, names = next(iter(chosen.files.items()))
    with _file(data[1:], names[0]) as path:
        for skipped in (None, SkippedRows(1000)):
            with _ours():
                assert chosen.load(split, path, skipped).fingerprint


def configs(data: bytes) -> None:
    """A recipe, flags and a retriever, as somebody may write them."""
    schema = _CONFIGS[data[0] % len(_CONFIGS)]
    with _file(data[1:], "recipe.yaml") as path, _ours():
        load_config(schema, [path])
    text = data[1:].decode("utf-8", errors="replace")
    with _ours():
        load_config(schema, overrides=parse_flags(text.split()))
    with _ours():
        retriever_spec(f"{{{text}}}")


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (dialects, prompts, questions, corpora, published, configs)
}
"""Every target by its name, which is also that of its folder of inputs; an input has at least one byte."""


def _ours() -> contextlib.suppress:
    return contextlib.suppress(SearchEnvError)


@contextlib.contextmanager
def _file(content: bytes, name: str):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        yield path
