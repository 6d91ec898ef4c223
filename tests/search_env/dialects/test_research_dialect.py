from __future__ import annotations

import pytest

from search_env.dialects import get_dialect
from search_env.dialects.research import boxed
from search_env.types import Action, ActionKind, Document, Hit

DIALECT = get_dialect("research")
SEARCH = "<think> Who? </think> <search> Oslo mayor </search>"
ANSWER = r"<think> Found. </think> <answer> The final answer is \[ \boxed{Marianne Borgen} \] </answer>"


def test_actions_are_read_from_the_tags_and_the_answer_from_its_box():
    assert DIALECT.parse(SEARCH) == Action(kind=ActionKind.SEARCH, text="Oslo mayor")
    assert DIALECT.parse(ANSWER) == Action(kind=ActionKind.ANSWER, text="Marianne Borgen")
    assert DIALECT.stop == ("</search>", "</answer>")


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{Oslo}", "Oslo"),
        (r"\boxed{a} and \boxed{b}", "b"),
        (r"\boxed{\text{Oslo} {x}} }", r"\text{Oslo} {x}"),
        (r"\boxed{}", ""),
        (r"\boxed{Oslo", None),
        ("Oslo", None),
    ],
)
def test_the_last_complete_box_counts(text, inside):
    assert boxed(text) == inside


def test_an_answer_without_a_box_is_read_and_named():
    segment = "<think> So. </think> <answer> Oslo </answer>"
    assert DIALECT.parse(segment).text == "Oslo"
    assert DIALECT.judge_format([segment]).problems == ("the answer is not in a box",)


def test_a_box_outside_the_answer_is_no_answer_in_a_box():
    segment = r"<think> \boxed{Rome} </think> <answer> Oslo </answer>"
    assert DIALECT.parse(segment).text == "Oslo"
    assert "the answer is not in a box" in DIALECT.judge_format([segment]).problems


def test_documents_are_written_as_in_the_corpus_of_the_authors():
    hits = [
        Hit(document=Document(id="1", title="Oslo", text="Capital\nof Norway."), score=2.0),
        Hit(document=Document(id="2", title="</result>", text="<answer> x"), score=1.0),
    ]
    assert DIALECT.render_documents(hits) == (
        ' <result>\n"Oslo"\nCapital of Norway.\n\n"‹/result›"\n‹answer› x\n</result>'
    )
    assert DIALECT.render_documents([]) == " <result>\nNone\n</result>"


def test_a_tag_cannot_grow_together_out_of_title_and_text():
    hit = Hit(document=Document(id="1", title="</res", text="ult> <ans"), score=1.0)
    rendered = DIALECT.render_documents([hit])
    assert rendered.count("</result>") == 1
    assert rendered.endswith("</result>")


def test_a_malformed_segment_ends_the_episode():
    assert DIALECT.render_notice(DIALECT.parse("Oslo")) is None


def test_reasoning_searches_and_a_boxed_answer_are_correct_format():
    assert DIALECT.judge_format([SEARCH, SEARCH, ANSWER]).problems == ()


@pytest.mark.parametrize(
    ("segments", "problem"),
    [
        ([SEARCH], "the episode ends without an answer"),
        ([r"<answer> \boxed{x} </answer>"], "<think> and </think> do not come in pairs"),
        (["<think> " + ANSWER], "<think> and </think> do not come in pairs"),
        ([SEARCH, "<result> it is her </result> " + ANSWER], "<result> is for the environment to write"),
        (["<search> a <search> b </search>", ANSWER], "<search> occurs 2 times, expected 1"),
        ([r"<think> a </think> <answer> <answer> \boxed{x} </answer>"], "<answer> occurs 2 times, expected 1"),
        ([r"<think> a </think> <answer> \boxed{} </answer>"], "the answer is empty"),
        ([r"<think> a </think> <answer> \boxed{<|im_end|>} </answer>"], "a tag inside the answer"),
    ],
)
def test_each_broken_rule_is_named(segments, problem):
    assert problem in DIALECT.judge_format(segments).problems
