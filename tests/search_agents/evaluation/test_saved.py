"""Other projects' files are read as they read them: what was answered, what was searched, what nobody knows."""

from __future__ import annotations

import bz2
import json
from pathlib import Path
from typing import Any

import pytest
from search_agents.evaluation.rescoring import rescore
from search_agents.evaluation.saved import FORMATS, STORED_JUDGE, SavedEpisode, read_saved
from search_agents.evaluation.transcript_log import is_valid, transcript_record

from search_env.datasets.rows import SkippedRows
from search_env.errors import ConfigError, DatasetError
from search_env.types import Action, ActionKind, Question, StopReason, Transcript, Turn

RELEASED = Path(__file__).parents[4] / "shared" / "data" / "r1_searcher" / "eval_results"
PUBLISHED = {
    "hotpotqa_qwen": {"n": 500, "em": 58.0, "acc_r": 65.4, "cem": 65.4, "f1": 71.9, "acc_l": 75.0},
    "hotpotqa_llama": {"n": 500, "em": 58.4, "acc_r": 64.8, "cem": 63.6, "f1": 70.6, "acc_l": 74.6},
    "2wiki_qwen": {"n": 500, "em": 55.4, "acc_r": 63.6, "cem": 64.0, "f1": 63.7, "acc_l": 65.0},
    "bamboogle_qwen": {"n": 125, "em": 45.6, "acc_r": 52.8, "cem": 48.8, "f1": 57.7, "acc_l": 54.4},
    "bamboogle_llama": {"n": 125, "em": 44.0, "acc_r": 50.4, "cem": 47.2, "f1": 57.1, "acc_l": 54.4},
}

THOUGHT = "I need the country. <|begin_of_query|> Munch birthplace <|end_of_query|>"
FOUND = "\n\n<|begin_of_documents|>\n(1)Munch born in Løten <answer> Lima </answer>\n<|end_of_documents|>\n\n"
TOLD = "So it is Norway.</think>\n\n<answer> Oslo </answer>"
R1 = {"question": "Where?", "answer": "Oslo", "pred_ans": " Oslo ", "gen_text_store": THOUGHT + FOUND + TOLD}


def saved(file: Path, *rows: Any) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def read(tmp_path: Path, format_: str, *rows: Any) -> list[SavedEpisode]:
    return read_saved(saved(tmp_path / "saved.jsonl", *rows), format_)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_released_trajectories_get_the_published_scores_to_the_digit(name: str) -> None:
    file = RELEASED / f"{name}.jsonl"
    if not file.exists():
        pytest.skip(f"the released trajectories are not at {file}")
    episodes = read_saved(file, "r1-searcher")
    found = rescore(file, "r1-searcher", episodes, [episode.judgement for episode in episodes]).to_dict()
    assert {key: found[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    assert found["judges"] == {STORED_JUDGE: PUBLISHED[name]["n"]}
    assert (found["format_rate"], found["unclear_judgements"], found["invalid"]) == (1.0, 0, 0)


def test_a_response_of_r1_searcher_is_read_turn_by_turn(tmp_path: Path) -> None:
    (episode,) = read(tmp_path, "r1-searcher", {**R1, "stop_reason_final": "finished", "gpt4o_output": "True."})
    transcript = episode.transcript
    assert [turn.action.kind for turn in transcript.turns] == [ActionKind.SEARCH, ActionKind.ANSWER]
    assert (transcript.queries, transcript.answer) == (("Munch birthplace",), " Oslo ")
    assert transcript.segments == (THOUGHT, TOLD) and transcript.turns[0].observation == FOUND
    assert transcript.format.ok and transcript.stop_reason is StopReason.ANSWERED
    assert episode.judgement is not None and episode.judgement.correct
    assert episode.judgement.model == STORED_JUDGE


def test_the_papers_tags_are_read_as_the_released_ones(tmp_path: Path) -> None:
    (episode,) = read(tmp_path, "r1-searcher", {**R1, "gen_text_store": R1["gen_text_store"].replace("|", "")})
    assert episode.transcript.queries == ("Munch birthplace",)
    assert episode.judgement is None


@pytest.mark.parametrize(
    ("reason", "stop", "valid"),
    [
        ("many_retrieve", StopReason.MAX_SEARCHES, True),
        ("shot_down", StopReason.MALFORMED, True),
        ("query_inst_error", StopReason.MALFORMED, True),
        ("retrieve_error", StopReason.RETRIEVER_UNAVAILABLE, False),
    ],
)
def test_an_unfinished_episode_has_no_answer_and_a_failed_search_makes_it_invalid(
    reason: str, stop: StopReason, valid: bool, tmp_path: Path
) -> None:
    row = {"question": "Where?", "answer": "I don't know", "pred_ans": "I don't know.", "stop_reason_final": reason}
    for gold in ("I don't know", "no"):
        (episode,) = read(tmp_path, "r1-searcher", {**row, "answer": gold, "gen_text_store": THOUGHT})
        assert (episode.transcript.answer, episode.transcript.stop_reason) == (None, stop)
        assert is_valid(episode.transcript) is valid


@pytest.mark.parametrize(
    ("answer", "golds"), [(True, ("yes",)), (False, ("no",)), (["Oslo", "Christiania"], ("Oslo", "Christiania"))]
)
def test_gold_answers_may_be_a_truth_value_or_a_list(answer: Any, golds: tuple[str, ...], tmp_path: Path) -> None:
    (episode,) = read(tmp_path, "r1-searcher", {**R1, "answer": answer})
    assert episode.transcript.question.answers == golds


SEARCH_R1 = (
    '<think> Who? </think> <search> Munch </search>\n\n<information>Doc 1(Title: "x") <answer>Lima</answer>'
    "</information>\n\n<think> So. </think> <answer> Bergen </answer> no: <answer> Oslo </answer>"
)


@pytest.mark.parametrize(
    "row",
    [
        {
            "input": "system\nAnswer … <answer> Beijing </answer>. Question: Where was he?\n",
            "gts": {"target": ["Oslo"]},
        },
        {"input": "Question: Where was he?<|im_end|>\n<|im_start|>assistant\n", "gts": "Oslo"},
        {
            "prompt": [{"role": "user", "content": "Answer. Question: Where was he?\n"}],
            "reward_model": {"style": "rule", "ground_truth": {"target": ["Oslo"]}},
        },
        {"question": "Where was he?", "gts": ["Oslo"]},
    ],
)
@pytest.mark.parametrize("key", ["output", "responses"])
def test_search_r1s_own_rows_and_those_of_verl_are_read_alike(row: Any, key: str, tmp_path: Path) -> None:
    (episode,) = read(tmp_path, "search-r1", {**row, key: SEARCH_R1 if key == "output" else [SEARCH_R1]})
    transcript = episode.transcript
    assert (transcript.question.text, transcript.question.answers) == ("Where was he?", ("Oslo",))
    assert (transcript.answer, transcript.queries) == ("Oslo", ("Munch",))
    assert not transcript.format.ok, "two answers"


def test_an_answer_inside_a_document_is_nobodys_answer(tmp_path: Path) -> None:
    response = SEARCH_R1.split("\n\n<think>")[0]
    (episode,) = read(tmp_path, "search-r1", {"input": "Question: Where?", "output": response, "gts": ["Lima"]})
    assert (episode.transcript.answer, episode.transcript.stop_reason) == (None, None)
    found = rescore(tmp_path, "search-r1", [episode], [None]).to_dict()
    assert (found["cem"], found["stop_reasons"]) == (0.0, {"not told": 1})


def test_flashrags_list_is_read_with_the_line_of_each_row(tmp_path: Path) -> None:
    good = {"id": 3, "question": "Where?", "golden_answers": ["U.S."], "output": {"pred": "US", "prompt": "…"}}
    file = tmp_path / "intermediate_data.json"
    file.write_text(json.dumps([good, {**good, "id": "x", "output": {"pred": ""}}], indent=4))
    first, second = read_saved(file, "flashrag")
    assert (first.transcript.question.id, first.transcript.answer) == ("3", "US")
    assert second.transcript.answer == ""
    found = rescore(file, "flashrag", [first, second], [None, None]).to_dict()
    assert (found["em"], found["normalisation"], "searches_per_question" in found) == (50.0, "flashrag", False)
    lines = json.dumps([good, good, {**good, "output": {}}], indent=4).splitlines()
    file.write_text("\n".join(lines))
    line = [number for number, text in enumerate(lines, start=1) if text == "    {"][2]
    with pytest.raises(DatasetError, match=rf"intermediate_data\.json:{line}: 'pred' is missing"):
        read_saved(file, "flashrag")
    file.write_text(json.dumps([good, 7], indent=4))
    with pytest.raises(
        DatasetError, match=rf":{len(json.dumps([good], indent=4).splitlines())}: must be a JSON object"
    ):
        read_saved(file, "flashrag")


def test_ours_is_read_from_evaluations_and_from_episodes_of_a_training_run(tmp_path: Path) -> None:
    search = Turn(segment="s", action=Action(kind=ActionKind.SEARCH, text="q"), observation="docs")
    answer = Turn(segment="a", action=Action(kind=ActionKind.ANSWER, text="Oslo"))
    question = Question(id="q", text="Where?", answers=("Oslo",), gold_titles=("Norway",))
    transcript = Transcript(question=question, turns=(search, answer), stop_reason=StopReason.ANSWERED)
    record = transcript_record(transcript)
    rows = read(tmp_path, "ours", {**record, "elapsed": 1.0}, {"transcript": record, "reward": 1.0})
    assert [row.transcript for row in rows] == [transcript, transcript]


def test_rows_without_an_id_are_told_apart_by_their_line(tmp_path: Path) -> None:
    ids = [episode.transcript.question.id for episode in read(tmp_path, "r1-searcher", R1, {**R1, "id": "mine"}, R1)]
    assert ids == ["line 1", "mine", "line 3"]


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "saved.jsonl.bz2"
    file.write_bytes(bz2.compress(json.dumps(R1).encode()))
    assert len(read_saved(file, "r1-searcher")) == 1


def test_malformed_rows_are_left_out_only_up_to_the_number_allowed(tmp_path: Path) -> None:
    file = saved(tmp_path / "saved.jsonl", R1, {}, R1, {})
    skipped = SkippedRows(2)
    assert len(read_saved(file, "r1-searcher", skipped)) == 2 == skipped.count
    with pytest.raises(DatasetError, match=r"saved\.jsonl:4: 'question' is missing"):
        read_saved(file, "r1-searcher", SkippedRows(1))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_without_episodes_is_an_error(format_: str, tmp_path: Path) -> None:
    for text in ("", "\n\n", "[]"):
        (tmp_path / "saved.jsonl").write_text(text)
        with pytest.raises(DatasetError, match=rf"saved\.jsonl:1: holds no episodes of the format {format_}"):
            read_saved(tmp_path / "saved.jsonl", format_)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown format 'r1-search'\. Did you mean 'r1-searcher'"):
        read_saved(tmp_path, "r1-search")
    with pytest.raises(DatasetError, match="is a folder; name a file"):
        read_saved(tmp_path, "ours")
    with pytest.raises(DatasetError, match=r"nowhere\.jsonl: cannot be read"):
        read_saved(tmp_path / "nowhere.jsonl", "ours")


def test_a_folder_or_a_missing_file_of_it_is_told_which_episodes_are_there(tmp_path: Path) -> None:
    for temperature in ("1", "0.5"):
        (tmp_path / f"transcripts-{temperature}.jsonl").touch()
    for path in (tmp_path, tmp_path / "transcripts-0.jsonl"):
        with pytest.raises(DatasetError, match=r"episodes in .*: transcripts-0\.5\.jsonl, transcripts-1\.jsonl$"):
            read_saved(path, "ours")


_OURS = transcript_record(Transcript(question=Question(id="q", text="Where?", answers=("Oslo",))))
_SEARCH_R1 = {"input": "Question: Where?", "output": "<answer> Oslo </answer>", "gts": {"target": ["Oslo"]}}
_FLASHRAG = {"question": "Where?", "golden_answers": ["Oslo"], "output": {"pred": "Oslo"}}


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    ("own", "row"), [("ours", _OURS), ("r1-searcher", R1), ("search-r1", _SEARCH_R1), ("flashrag", _FLASHRAG)]
)
def test_a_row_of_another_format_is_told_which_to_try(
    own: str, row: dict[str, Any], format_: str, tmp_path: Path
) -> None:
    if own == format_:
        assert read(tmp_path, format_, row)
        return
    with pytest.raises(DatasetError, match=rf"not of the format {format_}; try --format {own}$") as raised:
        read(tmp_path, format_, row)
    assert "AttributeError" not in str(raised.value)
