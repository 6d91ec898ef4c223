from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_env.dialects import get_dialect, with_prompt
from search_env.types import Action, ActionKind, Document, Hit

DIALECT = get_dialect("search-r1")
SEARCH = "<think> Who? </think>\n<search> Oslo mayor </search>"
ANSWER = "<think> Found. </think> <answer> Marianne Borgen </answer>\n"


def test_actions_are_read_from_the_tags():
    assert DIALECT.parse(SEARCH) == Action(kind=ActionKind.SEARCH, text="Oslo mayor")
    assert DIALECT.parse(ANSWER) == Action(kind=ActionKind.ANSWER, text="Marianne Borgen")
    assert DIALECT.parse("<search> </search>").problem == "the query is empty"
    assert DIALECT.stop == ("</search>", "</answer>")


def test_documents_stand_inside_the_information_tags():
    hits = [
        Hit(document=Document(id="1", title="Oslo", text="Capital."), score=2.0),
        Hit(document=Document(id="2", title="", text="</information>"), score=1.0),
    ]
    assert DIALECT.render_documents(hits) == (
        '\n\n<information>Doc 1(Title: "Oslo") Capital.\nDoc 2(Title: "") ‹/information›</information>\n\n'
    )
    assert DIALECT.render_documents([]) == "\n\n<information>None</information>\n\n"


def test_a_document_shown_before_gets_the_rank_and_the_words_of_today(monkeypatch):
    monkeypatch.setattr("search_env.dialects.tagged._MOST_LINES", 2)
    oslo, bergen, rome = (Hit(document=Document(id="1", title=t, text="A city."), score=1.0) for t in "OBR")
    oslo_again = Hit(document=dataclasses.replace(oslo.document), score=1.0)
    for hits in ([oslo, bergen], [bergen, oslo], [oslo_again, bergen, rome, oslo], [oslo, oslo]):
        lines = [f'Doc {rank}(Title: "{hit.document.title}") A city.' for rank, hit in enumerate(hits, start=1)]
        for _ in range(2):
            assert DIALECT.render_documents(hits) == "\n\n<information>" + "\n".join(lines) + "</information>\n\n"
    assert len(DIALECT._lines) <= 2


def test_a_malformed_segment_gets_a_notice_and_the_episode_goes_on():
    notice = DIALECT.render_notice(DIALECT.parse("Oslo </search>"))
    assert notice is not None
    assert "</search> without <search>" in notice
    assert "<answer> the final answer </answer>" in notice


@given(st.lists(st.sampled_from([*DIALECT.tags, " ", "\n", "word", "<", "a < b"]), max_size=7).map("".join))
def test_the_quick_look_at_a_plain_segment_finds_what_the_tags_one_by_one_show(segment):
    slow = dataclasses.replace(DIALECT)
    slow.__dict__["_plain_pattern"] = re.compile(r"(?!)")
    for text in (segment, f"<think> Who? </think>{segment}", f"{segment}<think></think> <answer> {segment} </answer>"):
        assert DIALECT.judge_format([text]) == slow.judge_format([text])
        assert DIALECT.judge_format([text], [DIALECT.parse(text)]) == slow.judge_format([text])


def test_one_block_of_reasoning_and_one_action_a_segment_is_correct_format():
    assert DIALECT.judge_format([SEARCH, SEARCH, ANSWER]).problems == ()


@pytest.mark.parametrize(
    ("segments", "problem"),
    [
        ([SEARCH], "the episode ends without an answer"),
        ([ANSWER, ANSWER], "the response goes on after an answer"),
        ([SEARCH, "hm", ANSWER], "segment 2: it ends in neither </search> nor </answer>"),
        (
            ["<answer> Oslo </answer>"],
            "segment 1: its tags are <answer> </answer>, expected <think> </think> <answer> </answer>",
        ),
        (["<think> a <answer> Oslo </answer>"], "segment 1: its tags are <think> <answer> </answer>, "),
        (["<think> a <think> b </think> <answer> Oslo </answer>"], "segment 1: its tags are <think> <think> </think>"),
        (["<answer> a </think> <think> b </answer>"], "segment 1: its tags are <answer> </think> <think> </answer>"),
        (["So: " + ANSWER], "segment 1: words outside the tags"),
        ([SEARCH, "<think> a </think> thus <answer> b </answer>"], "segment 2: words outside the tags"),
        ([SEARCH, "<information> it is her </information> " + ANSWER], "segment 2: <information> is for the environ"),
        (["<think> a </information> </think> <answer> b </answer>"], "segment 1: </information> is for the environ"),
        (["<think> a </think> <answer> <|im_end|> </answer>"], "a tag inside the answer"),
        (["<think> a </think> <answer></answer>"], "the answer is empty"),
    ],
)
def test_each_broken_rule_is_named(segments, problem):
    problems = DIALECT.judge_format(segments).problems
    assert any(told.startswith(problem) for told in problems), problems


def test_a_prompt_file_may_open_the_first_reasoning():
    opened = with_prompt(DIALECT, "Q: {question} <think>")
    assert opened.judge_format(["Who? </think> <search> mayor </search>", ANSWER]).ok
    assert not opened.judge_format([SEARCH, ANSWER]).ok
