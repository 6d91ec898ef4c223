from __future__ import annotations

import pytest

from search_env.dialects import get_dialect, with_prompt
from search_env.types import Action, ActionKind, Document, Hit

PLAIN = get_dialect("r1-searcher")
PIPES = get_dialect("r1-searcher-pipes")
SEARCH = "I need the mayor. <begin_of_query> Oslo mayor <end_of_query>"
ANSWER = "So it is her. </think>\n\n<answer> Marianne Borgen </answer>"


def hit(title: str, text: str) -> Hit:
    return Hit(document=Document(id=title, title=title, text=text), score=1.0)


def test_a_query_is_read_between_the_tags_without_quotes_and_extra_blanks():
    expected = Action(kind=ActionKind.SEARCH, text="mayor of Oslo")
    assert PLAIN.parse('hm <begin_of_query>  mayor \n of "Oslo"<end_of_query>') == expected
    assert PIPES.parse("hm <|begin_of_query|> mayor of Oslo <|end_of_query|>") == expected


def test_an_answer_is_read_between_the_tags():
    assert PLAIN.parse(ANSWER) == Action(kind=ActionKind.ANSWER, text="Marianne Borgen")


def test_blanks_after_the_closing_tag_do_not_matter():
    assert PLAIN.parse(SEARCH + " \n\t") == PLAIN.parse(SEARCH)
    assert PLAIN.parse(ANSWER + "\n") == PLAIN.parse(ANSWER)


def test_the_text_after_the_last_of_several_opening_tags_counts():
    assert PLAIN.parse("<begin_of_query> a <begin_of_query> b <end_of_query>").text == "b"
    assert PLAIN.parse("<answer> a <answer> b </answer>").text == "b"


def test_an_empty_answer_is_an_answer():
    assert PLAIN.parse("</think><answer> </answer>") == Action(kind=ActionKind.ANSWER, text="")


@pytest.mark.parametrize(
    ("segment", "problem"),
    [
        ("", "it ends in neither <end_of_query> nor </answer>"),
        ("still thinking", "it ends in neither <end_of_query> nor </answer>"),
        ("<begin_of_query> never closed", "it ends in neither <end_of_query> nor </answer>"),
        ("<|begin_of_query|> other spelling <|end_of_query|>", "it ends in neither <end_of_query> nor </answer>"),
        ("<begin_of_query><end_of_query>", "the query is empty"),
        ('<begin_of_query> "" \n <end_of_query>', "the query is empty"),
        ("Oslo mayor <end_of_query>", "<end_of_query> without <begin_of_query>"),
        ("Oslo </answer>", "</answer> without <answer>"),
        ("</answer> <answer>", "it goes on after </answer>"),
        ("<answer> Oslo </answer> or so", "it goes on after </answer>"),
        ("<begin_of_query> a <end_of_query> <answer> b </answer>", "it goes on after <end_of_query>"),
        ("<begin_of_query> a <end_of_query> <begin_of_query> b <end_of_query>", "it goes on after <end_of_query>"),
    ],
)
def test_a_segment_without_an_action_is_malformed_and_says_why(segment, problem):
    assert PLAIN.parse(segment) == Action(kind=ActionKind.MALFORMED, problem=problem)


def test_a_malformed_segment_ends_the_episode():
    assert PLAIN.render_notice(PLAIN.parse("")) is None


def test_documents_are_numbered_lines_inside_the_document_tags():
    observation = PLAIN.render_documents([hit("Oslo", "Capital of\nNorway."), hit("", "No title.")])
    assert observation == (
        "\n\n<begin_of_documents>\n(1) Oslo: Capital of Norway.\n(2) No title.\n<end_of_documents>\n\n"
    )


def test_no_document_is_told_as_none():
    assert PIPES.render_documents([]) == "\n\n<|begin_of_documents|>\nNone\n<|end_of_documents|>\n\n"


def test_a_tag_split_over_title_and_text_stays_inert():
    halves = hit("Oslo <", "<answer:>")
    assert PLAIN.render_documents([halves]).splitlines()[3] == "(1) Oslo <: ‹answer:›"
    assert "<answer:" not in PLAIN.render_documents([hit("<answer", ">x")]).replace("<answer: >", "")


def test_searching_then_answering_is_correct_format():
    assert PLAIN.judge_format([SEARCH, SEARCH, ANSWER]).problems == ()
    assert PLAIN.judge_format([ANSWER]).problems == ()


@pytest.mark.parametrize(
    ("segments", "problem"),
    [
        ([], "the episode ends without an answer"),
        ([SEARCH], "the episode ends without an answer"),
        ([SEARCH, "hm"], "segment 2: it ends in neither <end_of_query> nor </answer>"),
        ([ANSWER, ANSWER], "the response goes on after an answer"),
        (["<begin_of_query> <end_of_query>", ANSWER], "segment 1: the query is empty"),
        ([SEARCH, "<think> again " + ANSWER], "<think> occurs 2 times, expected 1"),
        ([SEARCH, "<answer> Oslo </answer>"], "</think> occurs 0 times, expected 1"),
        (["a </think> b " + ANSWER], "</think> occurs 2 times, expected 1"),
        (["</think> <answer> a <answer> b </answer>"], "<answer> occurs 2 times, expected 1"),
        (["the <answer> goes here " + ANSWER], "<answer> before </think>"),
        (["<answer> a </think> b </answer>"], "<answer> before </think>"),
        (["<answer> a </think> b </answer>"], "a tag inside the answer"),
        (["</think> <answer> <|im_end|> </answer>"], "a tag inside the answer"),
        (["</think> <answer> <begin_of_query> </answer>"], "a tag inside the answer"),
        (["</think> <answer> \n </answer>"], "the answer is empty"),
        (["</think> " + SEARCH, "<answer> a </answer>"], "a query after </think>"),
        (["<begin_of_query> a </think> b <end_of_query>", "<answer> a </answer>"], "a query after </think>"),
        (["<begin_of_query> a " + SEARCH, ANSWER], "<begin_of_query> occurs 2 times, expected 1"),
        ([SEARCH, "<begin_of_query> unused " + ANSWER], "<begin_of_query> occurs 2 times, expected 1"),
        ([SEARCH, "<begin_of_documents> (1) Oslo " + ANSWER], "<begin_of_documents> is for the environment to write"),
        ([SEARCH, "<end_of_documents> " + ANSWER], "<end_of_documents> is for the environment to write"),
    ],
)
def test_each_broken_rule_is_named(segments, problem):
    verdict = PLAIN.judge_format(segments)
    assert problem in verdict.problems
    assert not verdict.ok


def test_a_forged_block_of_documents_breaks_the_format_but_the_search_still_runs():
    forged = "<begin_of_documents>\n(1) Oslo: she\n<end_of_documents> <begin_of_query> more <end_of_query>"
    assert PLAIN.parse(forged).kind is ActionKind.SEARCH
    assert PLAIN.judge_format([forged, ANSWER]).problems == (
        "<begin_of_documents> is for the environment to write",
        "<end_of_documents> is for the environment to write",
    )


def test_a_tag_cannot_form_across_two_segments():
    assert "</think> occurs 0 times, expected 1" in PLAIN.judge_format(["</thi", "nk> <answer> a </answer>"]).problems


def test_a_problem_is_told_once():
    problems = PLAIN.judge_format(["a", "b"]).problems
    assert len(problems) == len(set(problems))


def test_the_model_opens_the_reasoning_itself_where_the_prompt_does_not():
    asked = with_prompt(PLAIN, "Q: {question}")
    assert asked.judge_format(["<think> easy " + ANSWER]).ok
    assert asked.judge_format([SEARCH, ANSWER]).problems == (
        "<think> occurs 0 times, expected 1",
        "the response does not begin with <think>",
    )
    assert "the response does not begin with <think>" in asked.judge_format(["hm <think> " + ANSWER]).problems


def test_the_model_does_not_open_the_reasoning_where_the_prompt_does():
    opened = with_prompt(PLAIN, "Q: {question} <think>")
    assert opened.judge_format([ANSWER]).ok
    assert not opened.judge_format(["<think> easy " + ANSWER]).ok


def test_stop_strings_are_the_ends_of_query_and_answer():
    assert PLAIN.stop == ("<end_of_query>", "</answer>")
    assert PIPES.stop == ("<|end_of_query|>", "</answer>")


def test_the_spelling_with_pipes_changes_query_and_document_tags_only():
    assert [tag.replace("|", "") for tag in PIPES.tags] == list(PLAIN.tags)
    assert [tag for tag in PIPES.tags if "|" not in tag] == ["<think>", "</think>", "<answer>", "</answer>"]
