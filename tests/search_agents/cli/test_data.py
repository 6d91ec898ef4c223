"""``search-env data`` and ``search-env difficulty`` on small sets."""

import json
import shutil
from dataclasses import replace

import datasets as hub
import pytest
from search_agents.cli.command import main

from search_env.datasets import load
from search_env.datasets.jsonl import read_questions
from search_env.metrics import mentions
from search_env.retrieval.bm25_folder import BM25Folder


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def own(tmp_path):
    """A folder with the splits train and dev, which share a question."""
    folder = tmp_path / "own"
    folder.mkdir()
    rows = [{"id": f"q{n}", "question": f"Who is the ruler of Land{n}?", "answers": [f"King{n}"]} for n in range(4)]
    write_lines(folder / "train.jsonl", rows[:3])
    write_lines(folder / "dev.jsonl", rows[2:])
    pages = [{"id": f"d{n}", "title": f"Land{n}", "text": f"Its ruler is King{n}."} for n in range(4)]
    write_lines(folder / "corpus.jsonl", pages)
    return folder


def test_info_tells_sizes_ceiling_and_floor(own, tmp_path, capsys):
    out = tmp_path / "info.json"
    assert (
        main(["data", "info", f"custom={own}:train", "fictional-wiki=people=20,questions=30", "--out", str(out)]) == 0
    )
    shown = capsys.readouterr().out
    assert "own train" in shown and "fictional-wiki test" in shown
    first, second = json.loads(out.read_text())
    assert (first["questions"], first["passages"], first["oracle"]["em"]) == (3, 4, 1.0)
    assert first["answer_in_top_k"] == {"questions": 3, "question_as_query": 1.0, "oracle_queries": 1.0}
    assert second["hops"] and second["oracle"]["em"] >= 0.95 > second["random"]["em"]
    assert first["dataset_fingerprint"] == load("custom", split="train", data=own).fingerprint


def test_check_finds_the_question_that_two_splits_share(own, tmp_path, capsys):
    out = tmp_path / "check.json"
    assert main(["data", "check", f"custom={own}:train", f"custom={own}:dev", "--out", str(out)]) == 0
    assert "custom:train in custom:dev: 1 exact, 0 near" in capsys.readouterr().out
    assert json.loads(out.read_text())["overlaps"][0]["pairs"] == [["q2", "q2", 1.0]]


def test_check_names_the_broken_line(own, capsys):
    with (own / "dev.jsonl").open("a") as file:
        file.write('{"id": "x", "question": "Who?"}\n')
    assert main(["data", "check", f"custom={own}:dev"]) == 2
    assert "dev.jsonl:3: 'answers' is missing" in capsys.readouterr().err


def test_malformed_rows_are_left_out_when_asked_and_part_of_every_report(own, tmp_path, capsys):
    with (own / "dev.jsonl").open("a") as file:
        file.write('{"id": "x", "question": "Who?"}\n')
    with (own / "corpus.jsonl").open("a") as file:
        file.write("[]\n")
    skip = ["--skip-malformed", "2", "--out"]
    assert main(["data", "check", f"custom={own}:dev", f"custom={own}:train", *skip, str(tmp_path / "check.json")]) == 0
    shown = capsys.readouterr().out
    assert f"custom:dev: 2 malformed rows were left out; the first:\n  {own / 'dev.jsonl'}:3: 'answers' is" in shown
    assert "custom:dev: 2 questions, 4 passages, 2 malformed rows left out" in shown
    assert "custom:train: 3 questions, 4 passages, 1 malformed row left out" in shown
    report = json.loads((tmp_path / "check.json").read_text())
    assert [one["malformed_rows"] for one in report["sets"]] == [2, 1]
    assert report["sets"][0]["corpus_fingerprint"] == report["sets"][1]["corpus_fingerprint"] is not None
    assert main(["data", "info", f"custom={own}:dev", *skip, str(tmp_path / "info.json")]) == 0
    (found,) = json.loads((tmp_path / "info.json").read_text())
    assert (found["questions"], found["passages"], found["malformed_rows"]) == (2, 4, 2)
    assert "2 malformed rows were left out" in capsys.readouterr().out
    assert main(["data", "index", f"custom={own}:dev", *skip, str(tmp_path / "index")]) == 0
    assert len(BM25Folder(tmp_path / "index")) == 4
    assert main(["data", "check", f"custom={own}:dev", "--skip-malformed", "1"]) == 2
    message = capsys.readouterr().err
    assert "corpus.jsonl:5: must be a JSON object" in message
    assert "1 malformed row was left out before it, the most allowed" in message and "dev.jsonl:3: " in message


def test_pull_writes_what_the_hub_holds_as_json_lines(tmp_path, monkeypatch, capsys):
    row = {
        "id": "2hop__1_2", "question": "Who?", "answer": "Ada", "answer_aliases": [], "answerable": True,
        "paragraphs": [{"idx": 0, "title": "Ada", "paragraph_text": "She was first.", "is_supporting": True}],
        "question_decomposition": [{"question": "Who?", "answer": "Ada", "paragraph_support_idx": 0}],
    }  # fmt: skip
    monkeypatch.setattr(hub, "load_dataset", lambda *args, **kwargs: hub.Dataset.from_list([row]))
    out = tmp_path / "musique"
    for split in ("train", "dev"):
        assert main(["data", "pull", f"musique:{split}", "--out", str(out)]) == 0
    assert "1 questions, 1 passages" in capsys.readouterr().out
    pulled = load("musique", split="dev", data=out)
    assert pulled.questions[0].decomposition[0].answer == "Ada"
    assert [document.title for document in pulled.documents] == ["Ada"]


def test_index_holds_the_corpora_of_all_sets_given(own, tmp_path, capsys):
    sets = [f"custom={own}:train", f"custom={own}:dev", "fictional-wiki=people=20,questions=9"]
    assert main(["data", "index", *sets, "--out", str(tmp_path / "index")]) == 0
    folder = BM25Folder(tmp_path / "index")
    assert f"{len(folder):,} documents, {folder.fingerprint}" in capsys.readouterr().out
    assert len(folder) == 4 + len(load("fictional-wiki", split="test", data="people=20,questions=9").documents)
    assert folder.search(["King2"], 1)[0][0].document.title == "Land2"


def test_generate_writes_a_wiki_that_can_be_played_and_searched(tmp_path, capsys):
    out = tmp_path / "wiki"
    assert main(["data", "generate", "--passages", "300", "--seed", "3", "--out", str(out), "--index"]) == 0
    assert f"{out}: 300 passages" in capsys.readouterr().out
    folder = BM25Folder(out / "index")
    assert len(folder) == 300
    questions = load("custom", split="test", data=out).questions
    hops = [hop for question in questions[:20] for hop in question.decomposition]
    found = folder.search([hop.query for hop in hops], 3)
    assert all(
        any(mentions(hit.document.text, hop.answer) for hit in hits) for hop, hits in zip(hops, found, strict=True)
    )


def labelled(path, count, **levels):
    rows = [
        {"id": f"{level}{n}", "question": f"{path.stem} {level} {n}?", "answers": ["x"], "level": level}
        for level in ("easy", "medium", "difficult")
        for n in range(levels.get(level, count))
    ]
    return write_lines(path, rows)


def test_stage_sets_follow_the_papers_counts(tmp_path, capsys):
    sources = [f"{name}={labelled(tmp_path / f'{name}.jsonl', 40)}" for name in ("hotpotqa", "2wikimultihopqa")]
    arguments = [
        "data",
        "stage-sets",
        "--curriculum",
        "r1-searcher",
        "--scale",
        "0.01",
        "--out",
        str(tmp_path / "sets"),
    ]
    assert main([*arguments, *(f"--source={source}" for source in sources)]) == 0
    stage1, stage2 = (read_questions(tmp_path / "sets" / f"stage{n}.jsonl") for n in (1, 2))
    counted = {}
    for number, stage in ((1, stage1), (2, stage2)):
        for question in stage:
            key = (number, question.id.partition("/")[0], question.level)
            counted[key] = counted.get(key, 0) + 1
    assert counted == {
        (1, "hotpotqa", "medium"): 2, (1, "2wikimultihopqa", "medium"): 2,
        (2, "hotpotqa", "medium"): 26, (2, "hotpotqa", "difficult"): 20,
        (2, "2wikimultihopqa", "medium"): 11, (2, "2wikimultihopqa", "difficult"): 25,
    }  # fmt: skip
    assert not {question.id for question in stage1} & {question.id for question in stage2}
    capsys.readouterr()
    assert main([*arguments, "--scale", "1", *(f"--source={source}" for source in sources)]) == 2
    assert "stage1: medium questions of hotpotqa: 200 wanted, 40 left" in capsys.readouterr().err


def test_stage_sets_leave_out_malformed_rows_of_their_sources_when_asked(tmp_path, capsys):
    source = labelled(tmp_path / "hotpotqa.jsonl", 40)
    with source.open("a") as file:
        file.write("{}\n")
    arguments = [
        "data",
        "stage-sets",
        "--curriculum",
        "hotpotqa-only",
        "--scale",
        "0.001",
        f"--source=hotpotqa={source}",
    ]
    out = str(tmp_path / "sets")
    assert main([*arguments, "--out", out]) == 2
    assert "hotpotqa.jsonl:121: 'id' is missing" in capsys.readouterr().err
    assert main([*arguments, "--out", out, "--skip-malformed", "1"]) == 0
    assert f"hotpotqa: 1 malformed row was left out; the first:\n  {source}:121: " in capsys.readouterr().out


def test_sets_are_joined_split_by_split_over_all_their_passages(tmp_path, own, capsys):
    hops = [{"question": "Adam wife", "answer": "Eve"}]
    asked = {"id": "1", "question": "Who?", "answers": ["Eve"], "decomposition": hops}
    other = tmp_path / "other"
    other.mkdir()
    (other / "train.jsonl").write_text(json.dumps(asked) + "\n")
    (other / "corpus.jsonl").write_text('{"id": "1", "title": "Adam", "text": "Eve is his wife."}\n')
    sets = [f"custom={own}:train", f"hotpotqa={other}:train", f"custom={own}:dev"]
    out = tmp_path / "joined"
    assert main(["data", "join", *sets, "--out", str(out)]) == 0
    first, second = (load("custom", split="train", data=where) for where in (own, other))
    joined = load("custom", split="train", data=out)
    told = capsys.readouterr().out
    assert f"{out / 'train.jsonl'}: {len(joined.questions)} questions" in told
    assert f"{out / 'corpus.jsonl'}: {len(joined.documents)} passages" in told
    assert len(joined.questions) == len(first.questions) + 1 and len(joined.documents) == len(first.documents) + 1
    assert joined.questions[-1] == replace(second.questions[0], id="hotpotqa/1")
    assert joined.questions[-1].decomposition and joined.documents[-1].id == "hotpotqa/1"
    assert len(load("custom", split="dev", data=out).documents) == len(joined.documents)
    assert main(["data", "join", *sets, "--out", str(out)]) == 2
    assert f"{out} is not empty" in capsys.readouterr().err


def test_folders_of_one_set_are_told_apart_by_their_names(tmp_path, own, capsys):
    other = tmp_path / "other"
    shutil.copytree(own, other)
    (other / "corpus.jsonl").write_text('{"id": "d0", "title": "Land0", "text": "Another ruler."}\n')
    assert main(["data", "join", f"custom={own}:train", f"custom={other}:train", "--out", str(tmp_path / "both")]) == 0
    joined = load("custom", split="train", data=tmp_path / "both")
    assert [question.id for question in joined.questions][2:4] == ["own/q2", "other/q0"]
    assert {"own/d0", "other/d0"} <= {document.id for document in joined.documents}
    shutil.copytree(own, tmp_path / "deeper" / "own")
    sets = [f"custom={own}:train", f"custom={tmp_path / 'deeper' / 'own'}:train"]
    assert main(["data", "join", *sets, "--out", str(tmp_path / "again")]) == 2
    assert "would both be called 'own'; rename" in capsys.readouterr().err


def test_stage_sets_want_labels(tmp_path, own, capsys):
    arguments = ["--curriculum", "hotpotqa-only", "--source", f"hotpotqa={own / 'train.jsonl'}", "--out", str(tmp_path)]
    assert main(["data", "stage-sets", *arguments]) == 2
    assert "question 'q0' has the level '', expected easy, medium, difficult" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["info"], "data info needs a question set"),
        (["pull", "musique"], "data pull needs --out"),
        (["pull", "fictional-wiki", "--out", "x"], "unknown published set 'fictional-wiki'"),
        (["generate", "--out", "x"], "data generate needs --passages N"),
        (["generate", "--out", "x", "--passages", "3"], "FictionalWiki has 10 to 5,110,476 passages, got 3"),
        (["join", "custom=y:dev"], "data join needs --out"),
        (["join", "custom=y:dev", "custom=y:dev", "--out", "x"], "custom:dev is given twice"),
        (["stage-sets", "--out", "x"], "needs --curriculum NAME and --source NAME=FILE"),
        (["check", "fictional-wiki", "--skip-malformed", "-1"], "'-1' is not a whole number of 0 or more"),
        (["info", "hotpotqe"], "unknown dataset 'hotpotqe'. Did you mean 'hotpotqa'"),
        (["stage-sets", "--out", "x", "--curriculum", "r1", "--source", "a"], "--source takes NAME=FILE"),
    ],
)
def test_a_wrong_command_says_what_to_type(arguments, problem, capsys):
    assert main(["data", *arguments]) == 2
    assert problem in capsys.readouterr().err


def test_difficulty_labels_questions_and_goes_on_after_a_stop(tmp_path, capsys):
    arguments = ["difficulty", "--model", "tiny", "--method", "naive-generation", "--limit", "6", "--out"]
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    assert main([*arguments, str(whole)]) == 0
    assert f"{whole}: " in capsys.readouterr().out
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert len(rows) == 6
    assert {row["level"] for row in rows} <= {"easy", "medium", "difficult"}
    assert all((row["rollouts"] is None) == (row["level"] == "difficult") for row in rows)
    assert all(question.decomposition for question in read_questions(whole))
    cut.write_bytes(whole.read_bytes()[:-30])  # stopped while it wrote the last line
    assert main([*arguments, str(cut)]) == 0
    assert cut.read_bytes() == whole.read_bytes()
