"""The page is whole and harmless before any browser opens it: what it holds, and what it lets nobody do."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from search_agents.cli import main
from search_agents.evaluation.figures import COST
from search_agents.evaluation.rescoring import rescore
from search_agents.evaluation.saved import read_saved
from search_agents.evaluation.transcript_log import transcript_record
from search_agents.evaluation.viewer import Payload, make_page, make_payload
from search_agents.evaluation.viewer.tokens import pieces_of
from search_agents.rollout import Episode

from search_env.errors import ConfigError, DatasetError, RunError

from .conftest import EVERY_OUTCOME, HOSTILE, transcript, with_tokens, write_lines

Captured = pytest.CaptureFixture[str]


class Elements(HTMLParser):
    """The elements of a page, with the text of its scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in ("script", "style") and data.strip():
            self.texts.append((self.found[-1][0], data))


def episodes_of(payload: Payload, run: int = 0) -> dict[str, Any]:
    return {episode["question"]["id"]: episode for episode in payload["runs"][run]["episodes"]}


def test_every_outcome_is_told_apart(evaluation: Path) -> None:
    found = episodes_of(make_payload([evaluation], limit=500))
    wanted = {played.question.id: outcome for outcome, played in EVERY_OUTCOME.items()}
    assert {id_: found[id_]["outcome"] for id_ in wanted} == wanted
    assert found["failed"]["metrics"] is None, "an invalid episode has no score, not a score of 0"
    assert found["cut"]["metrics"]["em"] == 0.0 and found["right"]["metrics"]["em"] == 1.0


def test_a_right_answer_may_say_more_than_the_gold_answer(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "long.jsonl", [transcript_record(transcript("long", "It was in Oslo, I think"))])
    (episode,) = make_payload([file], limit=5)["runs"][0]["episodes"]
    assert episode["outcome"] == "right" and episode["metrics"]["em"] == 0.0


def test_gold_documents_are_marked_by_title_and_the_missed_ones_named(evaluation: Path) -> None:
    payload = make_payload([evaluation], limit=500)
    right = episodes_of(payload)["right"]
    marks = {payload["documents"][hit["document"]]["title"]: hit["gold"] for hit in right["turns"][0]["hits"]}
    assert marks == {"Edvard  munch": True, "Peru ": False}
    assert right["question"]["golds"] == [{"title": "Edvard Munch", "found": True}, {"title": "Norway", "found": False}]
    assert right["turns"][0]["hits"][1]["score"] is None, "JSON knows no NaN"


def test_a_document_is_kept_once_however_often_it_was_found(evaluation: Path) -> None:
    documents = make_payload([evaluation], limit=500)["documents"]
    assert len(documents) == 4, "two, and the two hostile ones"


def test_the_calls_of_a_method_are_kept_and_a_book_in_a_prompt_is_cut(tmp_path: Path) -> None:
    record = transcript_record(transcript("long", text="x" * 60_000))
    (episode,) = make_payload([write_lines(tmp_path / "a.jsonl", [record])], limit=5)["runs"][0]["episodes"]
    (call,) = episode["turns"][0]["calls"]
    assert (call["purpose"], call["text"], call["prompt_tokens"]) == ("verdict", "Perhaps.", 7)
    assert len(call["prompt"]) < 51_000 and call["prompt"].endswith("10,010 more characters")


def test_tokens_have_their_text_mask_and_log_probs_and_sum_to_the_episode(training_run: Path, episode: Episode) -> None:
    payload = make_payload([training_run], limit=500)
    assert [each["origin"] for each in payload["runs"][0]["episodes"]] == ["evaluation before", "step 10, best"]
    shown = episodes_of(payload)["right"]
    assert (shown["reward"], shown["reward_parts"]) == (1.5, {"f1": 1.0, "format": 0.5})
    segments = shown["segments"]
    lengths = [segment["count"] for segment in segments]
    assert lengths == [len(segment["pieces"]) for segment in segments] and sum(lengths) == len(episode.token_ids)
    sampled = list(chain.from_iterable([segment["kind"] == "sampled"] * segment["count"] for segment in segments))
    assert sampled == episode.action_mask.tolist()
    logprobs = chain.from_iterable(segment["logprobs"] for segment in segments)
    assert list(logprobs) == pytest.approx(episode.logprobs[episode.action_mask].tolist(), abs=1e-4)
    assert ["".join(segment["pieces"]) for segment in segments] == [segment.text for segment in episode.segments]


@pytest.mark.parametrize(
    ("learner", "stop", "trained"),
    [
        ({"mask_overlong": True}, "max_tokens", []),
        ({"mask_overlong": True}, "answered", ["sampled"]),
        ({"mask_documents": False}, "max_tokens", ["observation", "sampled"]),
        ({"mask_documents": False, "mask_overlong": True}, "max_tokens", []),
        ({}, "answered", None),
    ],
)
def test_what_a_step_trained_on_follows_from_the_learner_of_the_run(
    learner: dict[str, bool], stop: str, trained: list[str] | None, training_run: Path, episode: Episode
) -> None:
    (training_run / "meta.json").write_text(json.dumps({"config": {"learner": learner}}))
    record = {**json.loads(episode.to_json()), "rank": "best"}
    record["transcript"]["stop_reason"] = stop
    file = write_lines(training_run / "episodes" / "step_000010.jsonl", [record])
    for path in (training_run, file):
        assert episodes_of(make_payload([path], limit=5))["right"]["trained"] == trained
    assert episodes_of(make_payload([training_run], limit=5))["wrong"]["trained"] is None, (
        "an evaluation trains nothing"
    )


def test_the_tokens_of_an_evaluation_are_those_that_its_calls_kept(training_run: Path, tokenizer: Any) -> None:
    played = [with_tokens(transcript("kept"), tokenizer), transcript("old")]
    write_lines(training_run / "evaluations" / "after.jsonl", [transcript_record(each) for each in played])
    found = episodes_of(make_payload([training_run], limit=5))
    assert found["old"]["segments"] == []
    kept, (search, last) = found["kept"], played[0].turns
    assert [(each["kind"], each["text"]) for each in kept["segments"]] == [
        ("sampled", search.segment), ("observation", search.observation), ("sampled", last.segment),
    ]  # fmt: skip
    assert ["".join(each["pieces"]) for each in kept["segments"]] == [search.segment, "", last.segment]
    assert kept["segments"][0]["logprobs"] == list(search.calls[0].logprobs)
    assert kept["trained"] is None


def test_the_tokenizer_of_an_evaluation_is_that_of_the_model_it_names(
    tmp_path: Path, training_run: Path, tokenizer: Any
) -> None:
    description = {"config": {"model": {"path": str(training_run)}}}
    (tmp_path / "evaluation.json").write_text(json.dumps(description))
    file = write_lines(tmp_path / "transcripts-0.jsonl", [transcript_record(with_tokens(transcript("one"), tokenizer))])
    for path in (tmp_path, file):
        (shown,) = make_payload([path], limit=5)["runs"][0]["episodes"]
        assert "".join(shown["segments"][0]["pieces"]) == shown["turns"][0]["segment"]
    (tmp_path / "evaluation.json").write_text(json.dumps({"config": {"model": {"path": "nobody/nothing"}}}))
    (shown,) = make_payload([tmp_path], limit=5)["runs"][0]["episodes"]
    assert shown["segments"][0]["pieces"] == [], "it is not asked for on the network"


@pytest.mark.parametrize(
    "tokens",
    [
        {"token_ids": "abc"},
        {"token_ids": [-1]},
        {"token_ids": [1 << 40]},
        {"token_ids": [1], "logprobs": ["0"]},
        {"token_ids": [1, 2], "logprobs": [0]},
    ],
)
def test_tokens_that_are_none_are_a_malformed_row(tmp_path: Path, tokenizer: Any, tokens: dict[str, Any]) -> None:
    evaluated = transcript_record(with_tokens(transcript("one"), tokenizer))
    evaluated["turns"][0]["calls"][0].update(tokens)
    played = {"transcript": transcript_record(transcript("one")), "reward": 1.0, "reward_parts": {}}
    played |= {"segments": [{"kind": "sampled", "text": "", **tokens}]}
    for row in (evaluated, played):
        with pytest.raises(DatasetError, match=r"a\.jsonl:1: is no episode .*'(token_ids|logprobs)' must be"):
            make_payload([write_lines(tmp_path / "a.jsonl", [row])], limit=5, model="tiny")


def test_scores_do_not_depend_on_the_tokens_that_were_kept(tmp_path: Path, tokenizer: Any) -> None:
    played = [*EVERY_OUTCOME.values(), transcript("hostile", HOSTILE)]
    scores = []
    for name, transcripts in (("old", played), ("new", [with_tokens(each, tokenizer) for each in played])):
        file = write_lines(tmp_path / name / "a.jsonl", [transcript_record(each) for each in transcripts])
        read = read_saved(file, "ours")
        told = rescore(Path("a"), "ours", read, [None] * len(read)).to_dict()
        scores.append({key: value for key, value in told.items() if key not in COST})  # the calls bring their own
    assert scores[0] == scores[1]


def test_without_a_tokenizer_the_text_of_the_segments_is_left(tmp_path: Path, episode: Episode) -> None:
    file = tmp_path / "trajectories.jsonl"
    file.write_text(episode.to_json() + "\n")
    (shown,) = make_payload([tmp_path], limit=5)["runs"][0]["episodes"]
    assert [segment["pieces"] for segment in shown["segments"]] == [[], [], [], []]
    assert [segment["text"] for segment in shown["segments"]] == [segment.text for segment in episode.segments]
    assert shown["origin"] == "kept" and sum(segment["count"] for segment in shown["segments"]) > 0


def test_the_tokenizer_of_a_named_model_cuts_the_tokens(tmp_path: Path, training_run: Path, episode: Episode) -> None:
    file = tmp_path / "trajectories.jsonl"
    file.write_text(episode.to_json() + "\n")
    (shown,) = make_payload([file], limit=5, model=str(training_run))["runs"][0]["episodes"]
    assert "".join(shown["segments"][0]["pieces"]) == episode.segments[0].text


def test_bytes_that_are_no_character_stay_one_piece_each(tokenizer: Any) -> None:
    ids = tokenizer.encode("雪", add_special_tokens=False)[:1]
    assert pieces_of(tokenizer)([*ids, *tokenizer.encode("a", add_special_tokens=False)]) == ("\ufffd", "a")


def test_the_sample_of_a_run_that_kept_texts_only_is_read(tmp_path: Path) -> None:
    record = {
        "rank": "worst", "question_id": "q", "question": "Where?", "answers": ["Oslo"], "answer": "Lima",
        "queries": ["Munch"], "reward": 0.0, "reward_parts": {"f1": 0.0}, "stop_reason": "answered",
        "format_problems": [],
        "segments": [
            {"kind": "prompt", "text": "Question: Where?"}, {"kind": "sampled", "text": "<q> Munch </q>"},
            {"kind": "observation", "text": "(1) Munch"}, {"kind": "sampled", "text": "<a> Lima </a>"},
        ],
    }  # fmt: skip
    file = write_lines(tmp_path / "run" / "episodes" / "step_000002.jsonl", [record])
    (shown,) = make_payload([file.parents[1]], limit=5)["runs"][0]["episodes"]
    assert (shown["origin"], shown["outcome"], shown["searches"]) == ("step 2, worst", "wrong", 1)
    assert [(turn["kind"], turn["text"]) for turn in shown["turns"]] == [("search", "Munch"), ("answer", "Lima")]


def test_a_long_run_is_cut_evenly_and_says_so(tmp_path: Path) -> None:
    records = [transcript_record(transcript(f"q{number}")) for number in range(40)]
    (run,) = make_payload([write_lines(tmp_path / "many.jsonl", records)], limit=4)["runs"]
    assert [episode["question"]["id"] for episode in run["episodes"]] == ["q0", "q10", "q20", "q30"]
    assert run["total"] == 40


def test_two_runs_show_the_questions_they_share(evaluation: Path, later: Path) -> None:
    payload = make_payload([evaluation, later], limit=500)
    assert list(episodes_of(payload, 0)) == list(episodes_of(payload, 1)) == ["right", "wrong"]
    assert [run["name"] for run in payload["runs"]] == ["before", "after"]
    assert [list(episodes_of(make_payload([evaluation, later], limit=1), run)) for run in (0, 1)] == [["right"]] * 2


def evaluated(folder: Path, *names: str, count: int = 30) -> Path:
    """The folder of a training run whose evaluations are of the same questions."""
    for name in names:
        records = [transcript_record(transcript(f"q{number}")) for number in range(count)]
        write_lines(folder / "evaluations" / f"{name}.jsonl", records)
    return folder


def test_of_two_long_runs_the_episodes_of_one_question_and_origin_are_shown_together(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "a", "before", "stage1", "after"), evaluated(tmp_path / "b", "after", "before")]
    first, second = (
        [(episode["question"]["id"], episode["origin"]) for episode in run["episodes"]]
        for run in make_payload(runs, limit=7)["runs"]
    )
    assert sorted(first) == sorted(second) and len(first) == 7
    assert {origin for _, origin in first} == {"evaluation after", "evaluation before"}


def test_of_runs_without_a_common_origin_each_question_has_an_episode_on_both_sides(tmp_path: Path) -> None:
    records = [transcript_record(transcript(f"q{number}")) for number in range(30)]
    file = write_lines(tmp_path / "transcripts-0.jsonl", records).parent
    runs = make_payload([evaluated(tmp_path / "run", "before", "after"), file], limit=7)["runs"]
    first, second = ([episode["question"]["id"] for episode in run["episodes"]] for run in runs)
    assert first == second and len(set(first)) == 7


def test_what_one_run_alone_has_fills_the_room_that_pairs_leave(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "a", "before", "after", count=3), evaluated(tmp_path / "b", "before", count=2)]
    first, second = make_payload(runs, limit=4)["runs"]
    origins = [
        [(episode["origin"].split()[1], episode["question"]["id"]) for episode in run["episodes"]]
        for run in (first, second)
    ]
    assert origins[1] == [("before", "q0"), ("before", "q1")]
    assert origins[0] == [("after", "q0"), ("after", "q1"), *origins[1]]


def test_two_runs_without_a_common_question_are_refused(evaluation: Path, tmp_path: Path) -> None:
    other = write_lines(tmp_path / "other.jsonl", [transcript_record(transcript("nobody"))])
    with pytest.raises(ConfigError, match="no question in common"):
        make_payload([evaluation, other], limit=500)


def test_a_page_holds_its_data_whatever_the_data_says(evaluation: Path) -> None:
    payload = make_payload([evaluation], limit=500)
    elements = Elements(make_page(payload))
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert not [tag for tag, _ in elements.found if tag in ("img", "link", "iframe", "object")]
    assert not [attributes for _, attributes in elements.found if {"src", "href", "style"} & set(attributes)]
    (data,) = (text for tag, text in elements.texts if tag == "script" and text.startswith("{"))
    assert "<" not in data
    assert json.loads(data) == json.loads(json.dumps(payload))
    assert episodes_of(json.loads(data))["hostile"]["answer"] == HOSTILE


def test_a_hostile_name_of_a_file_is_text(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "<script>alert(1)", [transcript_record(transcript("right"))])
    page = make_page(make_payload([file], limit=5))
    assert "<title>&lt;script&gt;alert(1)" in page
    assert [tag for tag, _ in Elements(page).found].count("script") == 2


def test_the_policy_allows_the_one_script_and_style_by_hash_and_nothing_else(evaluation: Path) -> None:
    elements = Elements(make_page(make_payload([evaluation], limit=500)))
    (policy,) = (
        attributes["content"] for _, attributes in elements.found if "Content-Security-Policy" in attributes.values()
    )
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and "unsafe" not in policy and "http" not in policy
    code = {"style": "", "script": ""} | {tag: text for tag, text in elements.texts if not text.startswith("{")}
    for tag, text in code.items():
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_the_script_never_makes_markup_of_text(evaluation: Path) -> None:
    elements = Elements(make_page(make_payload([evaluation], limit=500)))
    (script,) = (text for tag, text in elements.texts if tag == "script" and not text.startswith("{"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(", script)


def test_the_command_writes_the_file_and_tells_how_much_is_in_it(
    evaluation: Path, later: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "pages" / "both.html"
    assert main(["view", str(evaluation), str(later), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{evaluation}: 2 of 6 episodes", f"{later}: 2 of 3 episodes", str(out),
    ]  # fmt: skip
    assert out.read_text().startswith("<!doctype html>")


def test_the_episodes_of_another_project_are_shown(tmp_path: Path) -> None:
    row = {"question": "Where?", "answer": "Oslo", "pred_ans": "Oslo", "stop_reason_final": "finished"}
    (run,) = make_payload([write_lines(tmp_path / "a.jsonl", [row])], limit=5, format_="r1-searcher")["runs"]
    assert [episode["outcome"] for episode in run["episodes"]] == ["right"]


def test_what_cannot_be_shown_is_said_with_what_to_give_instead(evaluation: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=re.escape(f"Give one of the folders in it: {evaluation}")):
        make_payload([tmp_path], limit=5)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DatasetError, match="holds no episodes"):
        make_payload([tmp_path / "empty.jsonl"], limit=5)
    with pytest.raises(DatasetError, match=r"^[^ ]*bad\.jsonl:1: is no transcript"):
        make_payload([write_lines(tmp_path / "bad.jsonl", [{"turns": []}])], limit=5)
    with pytest.raises(DatasetError, match=r"bad\.jsonl:1: is no episode"):
        make_payload([write_lines(tmp_path / "bad.jsonl", [{"segments": []}])], limit=5)
    with pytest.raises(ConfigError, match="unknown format"):
        make_payload([evaluation], limit=5, format_="mine")
    with pytest.raises(ConfigError, match="Name the file"):
        make_payload([evaluation], limit=5, format_="r1-searcher")


def test_malformed_rows_are_left_out_if_that_is_allowed(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"turns": []}, transcript_record(transcript("right"))])
    assert list(episodes_of(make_payload([file], limit=5, skip_malformed=1))) == ["right"]


def test_a_folder_is_no_place_for_the_page(evaluation: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["view", str(evaluation), "--out", str(tmp_path)]) == 2
    assert "is a folder. Name a file in it" in capsys.readouterr().err
