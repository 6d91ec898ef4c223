"""What models, documents and files say is text: in a page, in a Markdown table and on a terminal."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from rich.console import Console
from search_agents.cli import main
from search_agents.cli.terminal import write
from search_agents.evaluation.report import table
from search_agents.evaluation.transcript_log import transcript_record
from search_agents.evaluation.viewer import make_page, make_payload
from search_agents.learning.progress import make_progress

from search_env.render import plain, print_spans, visible
from search_env.types import Action, ActionKind, Document, Hit, Question, StopReason, Transcript, Turn

MARKUP = [
    "<script>alert(1)</script>",
    '</script><script>alert("x")</script>',
    "</title><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "<!--<script>",
    "<a href='javascript:alert(1)'>x</a>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "\u2028</script>\u2029",
    "${policy} $payload",
]
COMMANDS = {
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://evil.example\x1b\\x\x1b]8;;\x1b\\",
    "c1": "\x9b31m",
    "bell": "\x07",
    "back": "good\rbad\x08\x7f",
    "reversed": "\u202etxt.exe\u202c",
    "half a pair": "\ud800",
    "markup": "[red]x[/red] [link=http://evil.example]y[/link]",
}


def transcript(text: str) -> Transcript:
    """An episode that says one thing everywhere."""
    question = Question(id=text, text=text, answers=(text,), gold_titles=(text,), kind=text)
    hits = (Hit(document=Document(id=text, title=text, text=text), score=1.0),)
    search = Turn(segment=text, action=Action(kind=ActionKind.SEARCH, text=text), hits=hits, observation=text)
    answer = Turn(segment=text, action=Action(kind=ActionKind.ANSWER, text=text), hits=(), observation="")
    return Transcript(question=question, turns=(search, answer), stop_reason=StopReason.ANSWERED)


class Elements(HTMLParser):
    """The elements and attributes that a browser would see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def page_over(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(json.dumps(transcript_record(transcript(text))) + "\n")
    return make_page(make_payload([file], limit=5))


@pytest.mark.parametrize("text", MARKUP)
def test_a_page_has_the_elements_it_would_have_without_the_attack(tmp_path: Path, text: str) -> None:
    """Risk 16: script in questions, documents, answers and names of runs."""
    harmless = Elements(page_over(tmp_path, "run.jsonl", "x"))
    name = re.sub(r"[/\0]", "", text)[:80]
    written = page_over(tmp_path, name, text)
    attacked = Elements(written)
    assert attacked.tags == harmless.tags
    assert [name for name, _ in attacked.attributes] == [name for name, _ in harmless.attributes]
    assert not [name for name, _ in attacked.attributes if name.startswith("on")]
    assert not [value for name, value in attacked.attributes if name in ("src", "href", "action")]
    policy = next(value for _, value in attacked.attributes if value and "default-src" in value)
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy


@pytest.mark.parametrize("text", COMMANDS.values(), ids=COMMANDS)
def test_whatever_is_written_commands_no_terminal(text: str, capsys: Any) -> None:
    """Risk 17: escape sequences, bells, hyperlinks and markup in what the command writes."""
    write(f"before {text} after")
    assert main(["train", "--config", f"nowhere-{text}"]) == 2
    for display in ("plain", "rich"):
        progress = make_progress(display, 3)
        progress.phase(f"loading {text}")
        progress.step({"step": 1, "stage": text, "seconds": 1.0})
        progress.count(2, text)
        progress.close()
    told = capsys.readouterr()
    shown = told.out + told.err
    assert_inert(shown)
    assert visible(text) in shown


@pytest.mark.parametrize("text", COMMANDS.values(), ids=COMMANDS)
def test_an_episode_is_shown_as_it_was_written(text: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Risk 17: escape sequences and markup in the text of models and documents, on a terminal with colours."""
    from search_env.render import episode_spans

    monkeypatch.setattr("rich.console.Console", lambda **more: Console(force_terminal=False, **more))
    spans = episode_spans(transcript(text), {"f1": 1.0})
    assert plain(spans).count(visible(text)) >= 4
    print_spans(spans)
    shown = capsys.readouterr().out
    assert_inert(shown)
    assert shown.count(visible(text)) >= 4


@pytest.mark.parametrize("text", [*COMMANDS.values(), "a|b", "a\nb", "| x |\n|---|"])
def test_a_cell_stays_one_cell(text: str) -> None:
    """Risk 17: bars, line breaks and escape sequences in the cells of a Markdown table."""
    lines = table(["name", "value"], [[text, "1"], ["x", text]]).split("\n")
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert_inert("".join(lines))


def assert_inert(shown: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
