"""A board holds what was measured, and shows nothing that its episodes do not bear out."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from search_agents.cli import main
from search_agents.config import EvalConfig
from search_agents.evaluation.evaluation_run import run_evaluation
from search_agents.evaluation.paired import compare_runs, read_run
from search_agents.leaderboard.board import Board, row_name
from search_agents.leaderboard.row import read_row
from search_agents.leaderboard.submit import candidates, evaluations_in
from search_agents.methods.skr.encoders import HASHED_WORDS
from search_agents.methods.skr.knn import NeighbourJudge
from search_agents.methods.skr.rule import Label

from search_env.errors import RunError

Captured = pytest.CaptureFixture[str]


def file_of(board: Path, agent: str) -> Path:
    (file,) = board.glob(f"rows/*/{agent}--*.json")
    return file


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    row = json.loads(file.read_text())
    change(row)
    file.write_text(json.dumps(row))


def edit_episodes(file: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    place = file.with_suffix(".jsonl.gz")
    lines = [json.loads(line) for line in gzip.decompress(place.read_bytes()).splitlines()]
    change(lines)
    place.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


def test_a_row_says_what_was_measured_and_what_it_cost(bench: Path, full_board: Path) -> None:
    row = read_row(file_of(full_board, "standard-rag"))
    result = json.loads((bench / "FictionalWiki-v0-test" / "standard-rag" / "result.json").read_text())
    stored, environment = result["results"][0], result["environment"]
    assert row.benchmark.dataset_hash == environment["dataset_fingerprint"]
    assert row.setting.corpus_hash == environment["corpus_fingerprint"]
    assert row.setting.retriever_fingerprint == environment["retriever_fingerprint"]
    assert (row.benchmark.questions, row.setting.k, row.seed) == (6, 3, 0)
    assert row.model is not None and row.model.fingerprint == result["model_fingerprint"]
    assert (row.commit, row.versions) == (result["origin"]["commit"], result["origin"]["versions"])
    assert row.agent.prompt_hash is not None and len(row.agent.prompt_hash) == 16
    assert row.scores.f1 == pytest.approx(stored["f1"], abs=1e-6)
    assert row.scores.acc_r == pytest.approx(stored["cem"], abs=1e-6)
    assert row.scores.intervals["f1"] == pytest.approx(stored["intervals"]["f1"], abs=1e-6)
    assert row.cost.searches == 1 and row.cost.calls >= 1
    assert row.cost.calls == pytest.approx(stored["calls_per_question"], abs=1e-6)
    assert row.cost.read_tokens == pytest.approx(stored["read_tokens_per_question"], abs=1e-6)
    assert row.cost.seconds is not None and 0 < row.cost.seconds <= stored["seconds"] / 6 + 1e-3


def added(board: Path, evaluation: Path) -> list[str]:
    """The names of the rows that an evaluation becomes on a board."""
    return [Board(board).add(candidate)[0] for candidate in candidates(evaluations_in(evaluation)[0][0])]


def evaluated_with_part(folder: Path, question: str) -> Path:
    """An evaluation of SKR with a part that says to search whatever is asked, by what it learned of a question."""
    rows = [{"question": question, "label": Label.BETTER}] * 5
    judge = NeighbourJudge.fit(rows, HASHED_WORDS, neighbours=5, index_same=False)
    judge.save(folder / "part" / "knn", encoder=HASHED_WORDS, model="fictional-wiki")
    method = {"name": "skr", "part": str(folder / "part")}
    evaluation = {"questions": 2, "temperatures": [0.0]}
    run_evaluation(EvalConfig.model_validate({"method": method, "evaluation": evaluation}), out=folder / "out")
    return folder / "out"


def test_parts_of_one_name_and_another_content_are_two_rows_and_of_the_same_content_one(tmp_path: Path) -> None:
    asked = {"a": "Who?", "b": "Who?", "c": "Where?"}
    first, again, other = (evaluated_with_part(tmp_path / name, question) for name, question in asked.items())
    board = tmp_path / "board"
    names = [name for folder in (first, again, other) for name in added(board, folder)]
    assert names[0] == names[1] != names[2]
    rows = Board(board).check().rows
    told = {json.loads((folder / "evaluation.json").read_text())["method_fingerprint"] for folder in (first, other)}
    assert {row.agent.fingerprint for row in rows.values()} == told and len(told) == 2
    assert {row.agent.name for row in rows.values()} == {"skr-part=part"}
    assert main(["leaderboard", "show", "--board", str(board)]) == 0
    assert all(f"| {part} " in (board / "LEADERBOARD.md").read_text() for part in told)
    assert "method_fingerprint" in compare_runs(read_run(first), read_run(other)).differing


def test_a_row_of_a_version_that_did_not_keep_the_part_is_shown_under_its_name(board: Path) -> None:
    file = file_of(board, "standard-rag")
    edit(file, lambda row: row["agent"].pop("fingerprint"))
    checked = Board(board).check()
    assert checked.refused == () and file.stem in {name.rpartition("/")[2] for name in checked.rows}


def test_an_evaluation_of_a_version_that_did_not_keep_the_part_becomes_a_row(bench: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bench / "FictionalWiki-v0-test" / "random", tmp_path / "random"))
    edit(copy / "result.json", lambda result: result.pop("method_fingerprint"))
    assert added(tmp_path / "board", copy) == added(tmp_path / "other", bench / "FictionalWiki-v0-test" / "random")


def test_agents_without_a_model_have_neither_model_nor_prompt(full_board: Path) -> None:
    row = read_row(file_of(full_board, "oracle"))
    assert (row.model, row.agent.prompt_hash, row.cost.calls) == (None, None, 0)
    assert row.scores.f1 > 0


def test_the_prompt_hash_tells_what_a_prompt_says_and_not_where_it_lies(tmp_path: Path) -> None:
    from search_agents.config import EvalConfig
    from search_agents.evaluation.evaluate import HeldOut

    def hash_of(name: str, words: str) -> str:
        (tmp_path / name).write_text(words)
        return HeldOut(EvalConfig.model_validate({"env": {"prompt": str(tmp_path / name)}})).prompt_hash

    first = hash_of("a.txt", "Answer: {question}\n<think>")
    assert hash_of("b.txt", "Answer: {question}\n<think>") == first
    assert hash_of("a.txt", "Reply: {question}\n<think>") != first


def test_all_rows_of_a_new_board_agree_with_their_episodes(full_board: Path) -> None:
    checked = Board(full_board).check()
    assert len(checked.rows) == 3 and checked.refused == ()


def test_the_same_evaluation_has_the_same_bytes_on_every_board(bench: Path, full_board: Path, tmp_path: Path) -> None:
    assert main(["leaderboard", "add", str(bench), "--board", str(tmp_path)]) == 0
    files = sorted(file.relative_to(full_board) for file in full_board.rglob("rows/*/*"))
    assert len(files) == 6
    assert all((tmp_path / file).read_bytes() == (full_board / file).read_bytes() for file in files)


def test_added_again_a_row_is_left_as_it_is(bench: Path, board: Path, capsys: Captured) -> None:
    before = file_of(board, "oracle").stat().st_mtime_ns
    assert main(["leaderboard", "add", str(bench), "--board", str(board)]) == 0
    assert capsys.readouterr().out.count("there before, with the same scores") == 3
    assert file_of(board, "oracle").stat().st_mtime_ns == before


def test_other_scores_of_the_same_experiment_replace_a_row_only_if_told_to(
    bench: Path, board: Path, capsys: Captured
) -> None:
    file = file_of(board, "random")
    whole = file.read_bytes()
    edit(file, lambda row: row["scores"].update(f1=0.99))
    add = ["leaderboard", "add", str(bench / "FictionalWiki-v0-test" / "random"), "--board", str(board)]
    assert main(add) == 2
    assert "holds the same experiment with other scores" in capsys.readouterr().err
    assert json.loads(file.read_text())["scores"]["f1"] == 0.99
    assert main([*add, "--replace"]) == 0
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda row: row["scores"].update(f1=row["scores"]["f1"] + 0.01), "scores.f1"),
        (lambda row: row["scores"]["intervals"].update(em=[0.9, 1.0]), "scores.intervals.em.0"),
        (lambda row: row["cost"].update(searches=0.25), "cost.searches"),
        (lambda row: row["scores"].update(acc_l=1.0), "scores.acc_l"),
        (lambda row: row.update(episodes_hash="0" * 64), "episodes_hash"),
    ],
)
def test_a_row_that_its_episodes_do_not_bear_out_is_refused_by_name(
    change: Callable[[dict[str, Any]], Any], key: str, board: Path, capsys: Captured
) -> None:
    file = file_of(board, "standard-rag")
    edit(file, change)
    assert main(["leaderboard", "check", "--board", str(board)]) == 2
    err = capsys.readouterr().err
    assert file.stem in err and f"{key} is " in err and "1 of 3 rows" in err
    assert "oracle--" not in err and "random--" not in err
    assert main(["leaderboard", "show", "--board", str(board)]) == 2
    shown = (board / "LEADERBOARD.md").read_text()
    assert "| standard-rag" not in shown and "| oracle" in shown and f"{key} is" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[0]["question"].update(answers=["anything"]), "questions_hash is"),
        (lambda lines: lines.pop(), "episodes is 6 in the row and 5 in the episodes"),
        (lambda lines: lines.append(lines[0]), "holds 2 episodes of the question"),
        (lambda lines: lines[0].update(turns=[]), "scores.em is"),
        (lambda lines: lines[0].update(stop_reason="retriever_unavailable"), "1 of 6 episodes are invalid"),
        (lambda lines: lines[0]["question"].update(answers=[7]), "its episodes cannot be scored ("),
        (lambda lines: lines.clear(), "holds no episodes"),
    ],
)
def test_changed_episodes_are_noticed(change: Callable[[list[dict[str, Any]]], Any], message: str, board: Path) -> None:
    edit_episodes(file_of(board, "oracle"), change)
    (refused,) = Board(board).check().refused
    assert "/oracle--" in refused.name
    assert message in refused.reason


def forge(board: Path, change: Callable[[dict[str, Any]], Any], agent: str = "random") -> Path:
    """Change the episodes of a row, and make the row agree with them."""
    from search_agents.leaderboard.measure import measure, read_episodes

    file = file_of(board, agent)
    edit_episodes(file, lambda lines: [change(line) for line in lines])
    episodes = file.with_suffix(".jsonl.gz")
    transcripts = read_episodes(episodes)
    found = measure(episodes, transcripts, [None] * len(transcripts)).model_dump(mode="json")
    edit(file, lambda row: row["benchmark"].update(questions_hash=found["questions_hash"]))
    edit(file, lambda row: row.update({key: found[key] for key in ("scores", "cost", "episodes_hash")}))
    target = file.with_name(Path(row_name(read_row(file))).name + ".json")
    episodes.rename(target.with_suffix(".jsonl.gz"))
    return file.rename(target)


def right_by_fiat(line: dict[str, Any]) -> None:
    line["question"]["answers"] = [line["answer"] or "nothing"]


def test_gold_answers_that_are_not_those_of_the_set_are_refused(board: Path, capsys: Captured) -> None:
    file = forge(board, right_by_fiat)
    assert read_row(file).scores.em > 0.9
    assert main(["leaderboard", "check", "--board", str(board)]) == 2
    err = capsys.readouterr().err
    assert file.stem in err and "6 of 6 questions are not those of the set" in err and "in the episodes" in err
    assert "oracle--" not in err
    assert main(["leaderboard", "show", "--board", str(board)]) == 2
    assert "| random" not in (board / "LEADERBOARD.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line["question"].update(text=line["question"]["text"] + "!"), "is another question there"),
        (lambda line: line["question"].update(id=line["question"]["id"] + "!"), "is not in it"),
    ],
)
def test_questions_that_are_not_those_of_the_set_are_refused(
    change: Callable[[dict[str, Any]], Any], message: str, board: Path
) -> None:
    forge(board, change)
    (refused,) = Board(board).check().refused
    assert message in refused.reason


def test_another_name_for_the_data_does_not_hide_forged_answers(board: Path) -> None:
    file = forge(board, right_by_fiat)
    for changed in ({"data": "seed=7"}, {"dataset_hash": "0" * 16}, {"data": "seed=7", "dataset_hash": "0" * 16}):
        edit(file, lambda row, changed=changed: row["benchmark"].update(changed))
        moved = file.parents[1] / f"{row_name(read_row(file))}.json"
        moved.parent.mkdir(exist_ok=True)
        file.with_suffix(".jsonl.gz").rename(moved.with_suffix(".jsonl.gz"))
        file = file.rename(moved)
        (refused,) = Board(board).check().refused
        assert "questions are not those of the set" in refused.reason


def test_questions_of_nobodys_set_under_the_name_of_an_embedded_one_are_refused(board: Path) -> None:
    file = forge(board, lambda line: line["question"].update(id=line["question"]["id"] + "!", answers=["x"]))
    edit(file, lambda row: row["benchmark"].update(dataset_hash="0" * 16))
    moved = file.parents[1] / f"{row_name(read_row(file))}.json"
    moved.parent.mkdir()
    file.with_suffix(".jsonl.gz").rename(moved.with_suffix(".jsonl.gz"))
    file.rename(moved)
    for data in ([], [str(board)]):
        (refused,) = Board(board, data=data).check().refused
        assert "dataset_hash is 0000000000000000 in the row and " in refused.reason


def test_forged_gold_answers_are_not_added(bench: Path, tmp_path: Path, capsys: Captured) -> None:
    from search_agents.evaluation.scorer import score
    from search_agents.leaderboard.measure import read_episodes

    copy = Path(shutil.copytree(bench / "FictionalWiki-v0-test" / "random", tmp_path / "random"))
    file = copy / "transcripts-0.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        right_by_fiat(line)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    edit(copy / "result.json", lambda result: result["results"][0].update(score(read_episodes(file)).to_dict()))
    assert main(["leaderboard", "add", str(copy), "--board", str(tmp_path / "board")]) == 2
    err = capsys.readouterr().err
    assert f"{file}: 6 of 6 questions are not those of the set" in err and "The row is refused" in err
    assert not (tmp_path / "board").exists()


def test_answers_of_a_rewritten_copy_of_the_data_are_refused_where_the_data_is_named(
    tmp_path: Path, capsys: Captured
) -> None:
    rows = [{"id": f"q{number}", "question": f"Who is {number}?", "answers": [f"Ada {number}"]} for number in range(4)]
    forged = [{**row, "answers": ["Ada"]} for row in rows]
    for name, lines in (("data", rows), ("copy", forged)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "data" / "corpus.jsonl").write_text('{"id": "d", "title": "Ada", "text": "Ada is she."}\n')
    shutil.copy(tmp_path / "data" / "corpus.jsonl", tmp_path / "copy")
    environment = {"id": "SearchQA-Custom-v0", "data": str(tmp_path / "copy")}
    config = {"method": "random", "env": environment, "evaluation": {"split": "test", "temperatures": [0.0]}}
    run_evaluation(EvalConfig.model_validate(config), out=tmp_path / "out", display="none")
    add = ["leaderboard", "add", str(tmp_path / "out"), "--board", str(tmp_path / "board")]
    assert main([*add, "--data", str(tmp_path / "data")]) == 2
    assert "4 of 4 questions are not those of the set" in capsys.readouterr().err
    assert not (tmp_path / "board").exists()
    assert main([*add, "--data", str(tmp_path / "copy")]) == 0
    assert main(add) == 0


@pytest.fixture
def own_set(board: Path, tmp_path: Path) -> Path:
    """The data of the board's questions as a set of somebody's own, and the board's rows about that."""
    folder = tmp_path / "data"
    folder.mkdir()
    episodes = gzip.decompress(file_of(board, "oracle").with_suffix(".jsonl.gz").read_bytes())
    lines = [json.loads(line) for line in episodes.splitlines()]
    rows = [
        {"id": q["id"], "question": q["text"], "answers": q["answers"]} for q in (line["question"] for line in lines)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for file in board.glob("rows/*/*.json"):
        edit(file, lambda row: row["benchmark"].update(environment="SearchQA-Custom-v0", data="data"))
        moved = board / "rows" / f"{row_name(read_row(file))}.json"
        moved.parent.mkdir(exist_ok=True)
        file.with_suffix(".jsonl.gz").rename(moved.with_suffix(".jsonl.gz"))
        file.rename(moved)
    return folder


def test_a_set_that_is_not_here_is_warned_of_and_compared_where_its_data_is_named(
    board: Path, own_set: Path, capsys: Captured
) -> None:
    check = ["leaderboard", "check", "--board", str(board)]
    assert main(check) == 0
    assert "nobody has compared its questions and gold answers with the set" in capsys.readouterr().err
    assert main([*check, "--data", str(own_set)]) == 0
    assert capsys.readouterr().err == ""
    forge(board, right_by_fiat)
    assert main([*check, "--data", str(own_set)]) == 2
    assert "6 of 6 questions are not those of the set" in capsys.readouterr().err


def test_rows_of_one_set_that_hold_different_questions_are_warned_of(
    board: Path, own_set: Path, capsys: Captured
) -> None:
    file = forge(board, right_by_fiat)
    assert main(["leaderboard", "check", "--board", str(board)]) == 0
    err = capsys.readouterr().err
    assert "the rows hold different questions or gold answers" in err and file.stem in err
    assert main(["leaderboard", "show", "--board", str(board)]) == 0
    assert "## Not certain" in (board / "LEADERBOARD.md").read_text()


def test_a_row_without_its_episodes_is_refused(board: Path) -> None:
    file_of(board, "oracle").with_suffix(".jsonl.gz").unlink()
    (refused,) = Board(board).check().refused
    assert "cannot be read" in refused.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(rank=1), "rank: Extra inputs are not permitted"),
        (lambda row: row["cost"].update(joules=1), "cost.joules: Extra inputs are not permitted"),
        (lambda row: row.update(schema_version=2), "schema_version: Input should be 1"),
        (lambda row: row["scores"].pop("f1"), "scores.f1: Field required"),
    ],
)
def test_a_row_of_another_schema_is_refused_with_file_and_key(
    change: Callable[[dict[str, Any]], Any], message: str, board: Path
) -> None:
    file = file_of(board, "oracle")
    edit(file, change)
    with pytest.raises(RunError, match=file.name) as raised:
        read_row(file)
    assert message in str(raised.value)
    assert message in Board(board).check().refused[0].reason


def test_a_row_that_counts_the_price_of_the_searches_alone_is_read_and_checked_as_such(board: Path) -> None:
    file = file_of(board, "standard-rag")
    edit(file, lambda row: [row["cost"].pop(key) for key in ("search_money", "model_money")])
    edit_episodes(
        file, lambda lines: [call.pop("cost") for line in lines for turn in line["turns"] for call in turn["calls"]]
    )
    digest = hashlib.sha256(gzip.decompress(file.with_suffix(".jsonl.gz").read_bytes())).hexdigest()
    edit(file, lambda row: row.update(episodes_hash=digest))
    assert read_row(file).cost.money == 0 and not Board(board).check().refused
    edit(file, lambda row: row["cost"].update(money=0.5))
    assert "cost.money is 0.5 in the row" in Board(board).check().refused[0].reason


def test_a_row_cannot_stand_under_the_name_of_another(board: Path) -> None:
    file = file_of(board, "random")
    edit(file, lambda row: row["agent"].update(name="oracle"))
    (refused,) = Board(board).check().refused
    assert "another experiment than its name says" in refused.reason


def test_names_cannot_leave_the_board(bench: Path, tmp_path: Path) -> None:
    (folder,) = evaluations_in(bench / "FictionalWiki-v0-test" / "random")[0]
    (candidate,) = candidates(folder)
    agent = candidate.row.agent.model_copy(update={"name": "../../<b>evil</b>\n"})
    benchmark = candidate.row.benchmark.model_copy(update={"environment": "../..", "dataset_hash": "../../x"})
    row = candidate.row.model_copy(update={"agent": agent, "benchmark": benchmark})
    board = Board(tmp_path / "inside")
    name, written = board.add(type(candidate)(row=row, episodes=candidate.episodes, judgements=[]))
    assert written and ".." not in name and "<" not in name and name.count("/") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert board.names() == [name]


def test_an_evaluation_whose_own_scores_are_not_those_of_its_episodes_is_refused(bench: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bench / "FictionalWiki-v0-test" / "random", tmp_path / "random"))
    edit(copy / "result.json", lambda result: result["results"][0].update(f1=0.875))
    (folder,) = evaluations_in(copy)[0]
    with pytest.raises(RunError, match=r"random/transcripts-0\.jsonl: f1 is 0\.8750 in result\.json"):
        list(candidates(folder))


def test_an_evaluation_that_is_not_finished_is_left_out_of_a_comparison_and_refused_alone(
    bench: Path, tmp_path: Path, capsys: Captured
) -> None:
    copy = Path(shutil.copytree(bench, tmp_path / "bench"))
    alone = copy / "FictionalWiki-v0-test" / "random"
    (alone / "result.json").unlink()
    board = ["--board", str(tmp_path / "board")]
    assert main(["leaderboard", "add", str(alone), *board]) == 2
    assert f"search-env resume {alone}" in capsys.readouterr().err
    assert main(["leaderboard", "add", str(copy), *board]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and err == f"{alone}: not finished, left out\n"


def test_the_judges_verdicts_come_along_and_count_again(bench: Path, tmp_path: Path) -> None:
    from search_agents.evaluation.judge import Judgement, JudgementLog, judge_prompt, judgements_beside
    from search_agents.leaderboard.measure import read_episodes

    copy = Path(shutil.copytree(bench / "FictionalWiki-v0-test" / "oracle", tmp_path / "oracle"))
    file = copy / "transcripts-0.jsonl"
    judged = {judge_prompt(each).user: each.question.id for each in read_episodes(file)}
    JudgementLog(judgements_beside(file)).add(
        Judgement(question_id=id_, model="a judge", prompt=prompt, reply="True") for prompt, id_ in judged.items()
    )
    (candidate,) = candidates(evaluations_in(copy)[0][0])
    assert (candidate.row.judge, candidate.row.scores.acc_l) == ("a judge", 1.0)
    board = Board(tmp_path / "board")
    board.add(candidate)
    assert not board.check().refused
    (replies,) = (tmp_path / "board").rglob("judgements-*.jsonl")
    replies.write_text(replies.read_text().replace('"True"', '"False"', 1))
    (refused,) = board.check().refused
    assert "scores.acc_l is 1.0 in the row" in refused.reason


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["check"], "holds no rows"),
        (["show"], "holds no rows"),
        (["add"], "needs a folder"),
        (["add", "nowhere"], "nowhere holds no evaluation"),
        (["check", "something"], "takes no evaluations"),
        (["check", "--data", "nowhere"], "there is no file or folder 'nowhere'. Give the data of a set"),
        (["check", "--data", "data/mistyped"], "there is no file or folder 'data/mistyped'"),
        (["check", "--data", "hotpotqa/hotpot_qa"], "holds no rows"),
        (["check", "--data", "seed=7"], "holds no rows"),
        (["rank"], "invalid choice: 'rank'"),
    ],
)
def test_mistakes_are_one_message(argv: list[str], message: str, tmp_path: Path, capsys: Captured) -> None:
    assert main(["leaderboard", *argv, "--board", str(tmp_path / "none")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
