"""The page in a real browser, opened from a file: it works, it is silent, and nothing in it comes alive."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from search_agents.cli import main
from search_agents.evaluation.transcript_log import transcript_record
from search_agents.rollout import Episode

from .conftest import HOSTILE, transcript, write_lines


class Watched:
    """A page, with all that it said and all that it reached for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens the page of some runs, and sees to it that it stayed silent and alone to the end."""
    pages: list[tuple[Watched, str]] = []

    def view(*runs: Path) -> Any:
        out = tmp_path / "view.html"
        assert main(["view", *map(str, runs), "--out", str(out)]) == 0
        watched = Watched(browser.new_page(viewport={"width": 1200, "height": 800}))
        watched.page.set_default_timeout(20_000)
        watched.page.goto(out.as_uri())
        pages.append((watched, out.as_uri()))
        return watched.page

    yield view
    for watched, address in pages:
        assert watched.said == []
        assert watched.requests == [address]
        watched.page.close()


def listed(page: Any) -> list[str]:
    # Not the inner text: that of a row which the browser has not painted yet is empty.
    texts: list[str] = page.locator("#rows li:visible .question").all_text_contents()
    return [text.split()[2] for text in texts]


def opened_turns(page: Any) -> list[str]:
    texts: list[str] = page.locator(".turn h4").all_inner_texts()
    return texts


def test_episodes_are_filtered_by_outcome_and_by_text(evaluation: Path, opened: Any) -> None:
    page = opened(evaluation)
    assert listed(page) == ["right", "wrong", "nothing", "cut", "failed", "hostile"]
    assert page.inner_text("#count") == "6 of 6 episodes"
    for outcome, names in {
        "right": ["right"],
        "wrong": ["wrong", "hostile"],
        "no answer": ["nothing"],
        "truncated": ["cut"],
        "invalid": ["failed"],
    }.items():
        page.get_by_label("Outcome").select_option(outcome)
        assert listed(page) == names
    page.get_by_label("Outcome").select_option("wrong")
    page.get_by_label("Text").fill("LIMA")
    assert listed(page) == ["wrong"]
    page.get_by_label("Text").fill("nowhere")
    assert listed(page) == [] and page.inner_text("#count") == "0 of 6 episodes"


def test_an_episode_shows_thinking_query_documents_answer_and_calls(evaluation: Path, opened: Any) -> None:
    page = opened(evaluation)
    page.locator(".row").first.click()
    assert page.inner_text("#asked") == "Where was right born?"
    assert opened_turns(page) == ["1 · Queryright painter", "2 · AnswerOslo"]
    assert page.locator(".turn .model").first.inner_text().startswith("I look up right.")
    assert page.locator("mark.search").inner_text() == "right painter"
    facts = page.inner_text(".facts")
    for text in (
        "Oslo · Christiania",
        "✓ Edvard Munch",
        "✗ Norway",
        "EM 1 · F1 1 · ACC_R 1",
        "answered",
        "bridge, 2 hops",
    ):
        assert text in facts
    gold = page.locator(".hit.is-gold")
    assert gold.count() == 1 and "(1) Edvard munch" in gold.inner_text() and "A painter." in gold.inner_text()
    other = page.locator(".hit:not(.is-gold)")
    assert "A country." not in other.inner_text()
    other.locator("summary").click()
    assert "A country." in other.inner_text()
    page.get_by_text("Call: verdict (7 tokens read, 2 written)").first.click()
    assert "Perhaps." in page.locator(".call").first.inner_text()


def test_an_invalid_episode_has_no_metrics(evaluation: Path, opened: Any) -> None:
    page = opened(evaluation)
    page.get_by_role("button", name="failed").click()
    assert "retriever unavailable" in page.inner_text(".facts") and "EM" not in page.inner_text(".facts")


def test_the_keyboard_goes_through_the_episodes(evaluation: Path, opened: Any) -> None:
    page = opened(evaluation)
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.textContent").startswith("Where was wrong born?")
    assert not page.locator("#bar").is_visible(), "moving alone opens nothing"
    page.keyboard.press("Enter")
    assert page.inner_text("#asked") == "Where was wrong born?"
    page.keyboard.press("k")
    assert page.inner_text("#asked") == "Where was right born?"
    page.keyboard.press("Escape")
    assert not page.locator("#bar").is_visible() and page.locator(".pane").count() == 0
    assert page.evaluate("document.activeElement.textContent").startswith("Where was right born?")
    page.keyboard.press("/")
    page.keyboard.type("jkt")
    assert page.input_value("#text") == "jkt", "letters that are typed are no commands"


def test_two_runs_stand_side_by_side_on_the_same_question(evaluation: Path, later: Path, opened: Any) -> None:
    page = opened(evaluation, later)
    assert listed(page) == ["right", "wrong"] and page.inner_text("#count").startswith("2 of 2 questions")
    page.get_by_label("Outcome of A").select_option("wrong")
    page.get_by_label("Outcome of B").select_option("right")
    assert listed(page) == ["wrong"]
    page.locator(".row:visible").click()
    first, second = page.locator(".pane").all()
    assert first.locator("mark.answer").inner_text() == "Lima" and "before" in first.inner_text()
    assert second.locator("mark.answer").inner_text() == "Oslo" and "after" in second.inner_text()
    left, right = first.bounding_box(), second.bounding_box()
    assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]


@pytest.fixture
def trained_twice(tmp_path: Path) -> tuple[Path, Path]:
    """Two training runs with two evaluations of two questions each; the evaluation of stage 1 has the first run only.

    The gold answer is Oslo.
    """
    answers = {
        "a": {"after": ("Lima", "Lima"), "before": ("Lima", "Oslo"), "stage1": ("Oslo", "Oslo")},
        "b": {"after": ("Rome", "Rome"), "before": ("Oslo", "Oslo")},
    }
    for run, evaluations in answers.items():
        for name, (one, another) in evaluations.items():
            records = [transcript_record(transcript(*each)) for each in (("one", one), ("another", another))]
            write_lines(tmp_path / run / "evaluations" / f"{name}.jsonl", records)
    return tmp_path / "a", tmp_path / "b"


def panes(page: Any) -> list[tuple[str, str]]:
    """Origin and answer of the episode on each side."""
    shown = []
    for pane in page.locator(".pane").all():
        chosen = pane.locator("h3 select option:checked")
        heading = chosen.inner_text() if chosen.count() else pane.locator("h3").inner_text()
        shown.append((re.search(r"evaluation \w+", heading)[0], pane.locator("mark.answer").inner_text()))  # type: ignore[index]
    return shown


def chips(page: Any) -> list[list[str]]:
    """The outcomes that the first row tells of each side."""
    lines = page.locator("#rows li:visible").first.locator(".line").all()
    return [line.locator(".chip").all_inner_texts() for line in lines]


def test_two_runs_are_compared_at_the_same_origin_and_at_the_one_that_is_asked_for(
    trained_twice: tuple[Path, Path], opened: Any
) -> None:
    page = opened(*trained_twice)
    assert chips(page) == [["wrong", "wrong", "right"], ["wrong", "right"]]
    page.get_by_label("From").select_option("evaluation before")
    assert chips(page) == [["wrong"], ["right"]]
    page.locator(".row:visible").first.click()
    assert panes(page) == [("evaluation before", "Lima"), ("evaluation before", "Oslo")]
    page.get_by_label("From").select_option("evaluation after")
    assert panes(page) == [("evaluation after", "Lima"), ("evaluation after", "Rome")], "an open row follows"
    page.get_by_label("From").select_option("evaluation stage1")
    assert "No episode of this question fits the filters." in page.locator(".pane").nth(1).inner_text()
    page.get_by_label("From").select_option("the whole run")
    assert panes(page) == [("evaluation after", "Lima"), ("evaluation after", "Rome")]
    page.get_by_label("Outcome of A").select_option("right")
    assert panes(page) == [("evaluation stage1", "Oslo"), ("evaluation after", "Rome")], "B has no such evaluation"


def test_the_outcomes_of_two_runs_are_asked_of_one_origin(trained_twice: tuple[Path, Path], opened: Any) -> None:
    page = opened(*trained_twice)
    page.get_by_label("Outcome of A").select_option("wrong")
    page.get_by_label("Outcome of B").select_option("right")
    assert listed(page) == ["one"], "to the other question A was wrong after, B right before"
    page.locator(".row:visible").click()
    assert panes(page) == [("evaluation before", "Lima"), ("evaluation before", "Oslo")]
    page.get_by_label("Text").fill("Rome")
    assert listed(page) == [], "that was another evaluation's answer"


def test_tokens_are_shaded_by_mask_and_probability(training_run: Path, opened: Any) -> None:
    page = opened(training_run)
    page.get_by_label("From").select_option("step 10, best")
    page.locator(".row:visible").click()
    assert "1.5 = f1 1 + format 0.5" in page.inner_text(".facts")
    page.get_by_role("button", name="Tokens").click()
    kinds = page.eval_on_selector_all(".tokens > .segment", "all => all.map(each => each.classList[1])")
    assert kinds == ["prompt", "sampled", "observation", "sampled"]
    tokens = page.locator(".tokens .segment.sampled").first.locator(".token")
    assert tokens.nth(0).get_attribute("class") == "token heat-0"
    assert tokens.nth(0).get_attribute("title") == "log-prob 0, 100.0 %"
    assert tokens.nth(19).get_attribute("class") == "token heat-4"
    colour = "each => getComputedStyle(each).backgroundColor"
    assert tokens.nth(0).evaluate(colour) != tokens.nth(19).evaluate(colour), "the style is applied under the policy"
    assert page.locator(".segment.observation .token").count() == 0
    assert page.locator(".tokens").inner_text().startswith("Question: Où? 雪")
    page.keyboard.press("t")
    assert page.locator(".tokens").count() == 0 and page.locator(".turn").count() == 2


def shading(page: Any) -> dict[str, str]:
    """The words of the legend, and how each is underlined."""
    underline = "each => { const {borderBottomStyle: s, borderBottomWidth: w} = getComputedStyle(each); return w + s; }"
    spans = page.locator(".legend .segment").all()
    return {span.inner_text(): span.evaluate(underline) for span in spans}


@pytest.mark.parametrize(
    ("learner", "sampled", "observation"),
    [
        ({"mask_documents": True}, "trained on", "masked"),
        ({"mask_documents": False}, "trained on", "trained on"),
        ({"mask_overlong": True}, "trained on", "masked"),
    ],
)
def test_the_legend_tells_what_the_learner_of_the_run_masked(
    learner: dict[str, bool], sampled: str, observation: str, training_run: Path, opened: Any
) -> None:
    (training_run / "meta.json").write_text(json.dumps({"config": {"learner": learner}}))
    page = opened(training_run)
    page.get_by_label("From").select_option("step 10, best")
    page.locator(".row:visible").click()
    page.keyboard.press("t")
    line = {"trained on": "2pxsolid", "masked": "0pxnone"}
    words = {
        "prompt": "0pxnone",
        f"sampled: {sampled}": line[sampled],
        f"observation: {observation}": line[observation],
    }
    assert shading(page) == words
    part = page.locator(".tokens .segment.observation")
    assert part.get_attribute("title").startswith(f"observation: {observation}, ")
    assert part.evaluate("each => getComputedStyle(each).borderBottomStyle") == line[observation][3:]


def test_without_a_learner_the_legend_says_who_wrote_and_nothing_of_a_loss(
    tmp_path: Path, episode: Episode, opened: Any
) -> None:
    (tmp_path / "trajectories.jsonl").write_text(episode.to_json() + "\n")
    page = opened(tmp_path / "trajectories.jsonl")
    page.locator(".row").click()
    page.keyboard.press("t")
    assert shading(page) == {"prompt": "0pxnone", "sampled": "1pxdotted", "observation": "0pxnone"}


def test_several_episodes_of_a_question_are_chosen_from(tmp_path: Path, later: Path, opened: Any) -> None:
    records = [transcript_record(transcript("right", answer)) for answer in ("Rome", "Oslo")]
    page = opened(write_lines(tmp_path / "twice.jsonl", records), later)
    page.locator(".row").click()
    assert page.locator(".pane").first.locator("mark.answer").inner_text() == "Rome"
    page.get_by_label("Episode of A").select_option("1")
    assert page.locator(".pane").first.locator("mark.answer").inner_text() == "Oslo"


def test_an_injected_script_is_text(evaluation: Path, opened: Any) -> None:
    page = opened(evaluation)
    page.get_by_role("button", name="hostile").click()
    page.get_by_role("button", name="Tokens").click()
    page.get_by_role("button", name="Tokens").click()
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("window.broken") is None
    assert page.locator("script").count() == 2 and page.locator("img").count() == 0
    answer = page.locator(".facts dd").first.inner_text()
    assert answer == HOSTILE.replace("\u202e", "\\u202e"), "a mark that turns the reading direction is spelled out"


def test_the_policy_stops_what_the_script_would_not_do(evaluation: Path, browser: Any, tmp_path: Path) -> None:
    out = tmp_path / "view.html"
    assert main(["view", str(evaluation), "--out", str(out)]) == 0
    page = browser.new_page()
    page.goto(out.as_uri())
    reports = page.evaluate(
        """async () => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
            const tries = [
                () => { document.body.innerHTML = "<b>x</b>"; },
                () => { const made = document.createElement("img"); made.src = "x.png"; document.body.append(made); },
            ];
            for (const attempt of tries) { try { attempt(); } catch { /* refused */ } }
            try { await fetch("https://example.org/"); } catch { /* refused */ }
            await new Promise((done) => setTimeout(done, 50));
            return seen;
        }"""
    )
    assert set(reports) >= {"require-trusted-types-for", "img-src", "connect-src"}
    page.close()


def test_five_hundred_episodes_open_and_filter_quickly(tmp_path: Path, opened: Any) -> None:
    filler = "A sentence about nothing much. " * 60
    records = [transcript_record(transcript(f"name{number}", text=filler)) for number in range(500)]
    file = write_lines(tmp_path / "many.jsonl", json.loads(json.dumps(records)))
    page = opened(file)
    assert page.locator("#rows li").count() == 500
    begun = time.monotonic()
    page.get_by_label("Text").fill("name499")
    assert listed(page) == ["name499"]
    page.locator(".row:visible").click()
    assert page.locator(".turn").count() == 2
    assert time.monotonic() - begun < 10
