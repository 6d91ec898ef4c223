"""2WikiMultiHopQA, MuSiQue, Bamboogle and the released lists, from every place they may lie."""

import gzip
import json
from pathlib import Path

import datasets as hub
import pytest

from search_env.datasets import PUBLISHED, load
from search_env.datasets.overlap import find_overlap
from search_env.errors import ConfigError, DatasetError
from search_env.types import Hop

SHARED = Path(__file__).parents[4] / "shared" / "data"

TWO_WIKI_ROW = {
    "_id": "w1",
    "type": "compositional",
    "question": "Where was the composer of film The Merry Monahans born?",
    "answer": "Vienna",
    "answer_id": "Q1741",
    "supporting_facts": [["The Merry Monahans", 0], ["Hans J. Salter", 1]],
    "evidences": [
        ["The Merry Monahans", "composer", "Hans J. Salter"],
        [" Hans J. Salter", "place of birth", "Vienna"],
    ],
    "context": [["Hans J. Salter", ["He composed.", " He was born in Vienna."]], ["Else", ["Nothing."]]],
}
MUSIQUE_ROW = {
    "id": "2hop__1_2",
    "paragraphs": [
        {"idx": 0, "title": "Else", "paragraph_text": "Nothing.", "is_supporting": False},
        {"idx": 1, "title": "Steve Hillage", "paragraph_text": "He married Miquette.", "is_supporting": True},
        {"idx": 2, "title": "Green", "paragraph_text": "An album by Steve Hillage.", "is_supporting": True},
    ],
    "question": "Who is the spouse of the Green performer?",
    "question_decomposition": [
        {"id": 1, "question": "Green >> performer", "answer": "Steve Hillage", "paragraph_support_idx": 2},
        {"id": 2, "question": "who did #1 marry?", "answer": "Miquette", "paragraph_support_idx": 1},
    ],
    "answer": "Miquette",
    "answer_aliases": ["M. Giraudy", "Miquette"],
    "answerable": True,
}


def write_lines(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def two_wiki_folder(folder, *rows):
    (folder / "dev.json").write_text(json.dumps(rows or [TWO_WIKI_ROW]))
    return folder


def test_2wiki_has_its_triples_as_hops_and_the_other_names_of_an_answer(tmp_path):
    write_lines(tmp_path / "id_aliases.json", [{"Q_id": "Q1741", "aliases": ["Wien"], "demonyms": ["Viennese"]}])
    dataset = load("2wikimultihopqa", split="dev", data=two_wiki_folder(tmp_path))
    (question,) = dataset.questions
    assert question.answers == ("Vienna", "Wien", "Viennese")
    assert question.decomposition == (
        Hop(query="The Merry Monahans composer", answer="Hans J. Salter"),
        Hop(query="Hans J. Salter place of birth", answer="Vienna"),
    )
    assert (question.kind, question.hops) == ("compositional", 2)
    assert question.gold_titles == ("The Merry Monahans", "Hans J. Salter")
    assert [document.text for document in dataset.documents] == ["He composed. He was born in Vienna.", "Nothing."]


def test_2wiki_from_the_hub_is_what_its_file_gives(tmp_path, monkeypatch):
    nested = ("context", "supporting_facts", "evidences")
    row = {key: json.dumps(value) if key in nested else value for key, value in TWO_WIKI_ROW.items()}
    calls = use_hub(monkeypatch, [row])
    dataset = load("2wikimultihopqa", split="dev", data="xanhho/2WikiMultihopQA")
    assert dataset == load("2wikimultihopqa", split="dev", data=two_wiki_folder(tmp_path))
    assert calls[0]["revision"] == "612bc5039a457880d9e7d84c3b0a4cf154b70e4f"
    assert calls[0]["data_files"] == {"dev": "dev.parquet"}


def use_hub(monkeypatch, rows):
    calls = []

    def load_dataset(id_, **arguments):
        calls.append({"id": id_, **arguments})
        return hub.Dataset.from_list(rows)

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    return calls


def test_musique_fills_earlier_answers_into_its_sub_questions(tmp_path):
    write_lines(tmp_path / "musique_ans_v1.0_dev.jsonl", [MUSIQUE_ROW])
    dataset = load("musique", split="dev", data=tmp_path)
    (question,) = dataset.questions
    assert question.decomposition == (
        Hop(query="Green performer", answer="Steve Hillage"),
        Hop(query="who did Steve Hillage marry?", answer="Miquette"),
    )
    assert question.answers == ("Miquette", "M. Giraudy")
    assert (question.kind, question.hops, question.gold_titles) == ("2hop", 2, ("Green", "Steve Hillage"))
    assert len(dataset.documents) == 3


def test_musique_asks_only_what_can_be_answered(tmp_path):
    rows = [MUSIQUE_ROW, MUSIQUE_ROW | {"answerable": False}]
    file = write_lines(tmp_path / "musique_full_v1.0_dev.jsonl", rows)
    assert len(load("musique", split="dev", data=file).questions) == 1


def test_musique_from_the_hub_is_what_its_file_gives(tmp_path, monkeypatch):
    calls = use_hub(monkeypatch, [MUSIQUE_ROW])
    file = write_lines(tmp_path / "musique_ans_v1.0_dev.jsonl", [MUSIQUE_ROW])
    assert load("musique", split="dev", data="bdsaglam/musique") == load("musique", split="dev", data=file)
    assert calls[0]["revision"] == "22873a405dd809893b22ada0b499299fb612d2df"


def test_bamboogles_table_is_asked_over_the_corpus_beside_it(tmp_path):
    table = '\ufeffQuestion,Answer\r\n"Who, of all, was first?",Ada\r\nWho was last?,Zoe\r\n'
    (tmp_path / "bamboogle.csv").write_bytes(table.encode())
    write_lines(tmp_path / "corpus.jsonl", [{"id": "d", "title": "Ada", "text": "She was first."}])
    dataset = load("bamboogle", split="dev", data=tmp_path)
    assert [(q.text, q.answers, q.hops) for q in dataset.questions] == [
        ("Who, of all, was first?", ("Ada",), 2),
        ("Who was last?", ("Zoe",), 2),
    ]
    assert [document.title for document in dataset.documents] == ["Ada"]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("Frage,Antwort\n", r"csv:1: must have the columns Question and Answer, has .Frage, Antwort."),
        ("", r"csv:1: must have the columns Question and Answer, has none"),
        ("Question,Answer\nWho?,\n", r"csv:2: 'answer' is empty"),
        ("Question,Answer\nWho?\n", r"csv:2: has 1 cells, and the head names 2"),
    ],
)
def test_a_broken_table_is_named_by_file_and_line(tmp_path, table, problem):
    (tmp_path / "bamboogle.csv").write_text(table)
    with pytest.raises(DatasetError, match=problem):
        load("bamboogle", split="dev", data=tmp_path / "bamboogle.csv")


def test_a_hub_copy_without_a_pinned_revision_wants_one_named(monkeypatch):
    calls = use_hub(monkeypatch, [{"idx": 1, "question": "Who?", "answer": "Ada"}])
    with pytest.raises(ConfigError, match="RAG-RL-Hotpotqa-with-2wiki@COMMIT"):
        load("r1-searcher", split="stage_1", data="XXsongLALA/RAG-RL-Hotpotqa-with-2wiki")
    assert calls == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"question_decomposition": [{"question": "who is #1?", "answer": "x"}]}, "sub-question 1 refers to #1"),
        ({"question_decomposition": [{"question": "who?"}]}, r"must hold objects \{\"question\", \"answer\"\}"),
        ({"question_decomposition": "two"}, "must be a list"),
        ({"paragraphs": ["one"]}, "'paragraphs' must be a list of objects"),
        ({"paragraphs": [{"title": "x"}]}, "paragraphs: 'paragraph_text' is missing"),
        ({"answer": ""}, "'answer' is empty"),
    ],
)
def test_a_broken_row_of_musique_is_named_by_file_and_line(tmp_path, changes, problem):
    file = write_lines(tmp_path / "musique_ans_v1.0_dev.jsonl", [MUSIQUE_ROW, MUSIQUE_ROW | {"id": "b"} | changes])
    with pytest.raises(DatasetError, match=rf"dev\.jsonl:2.*{problem}"):
        load("musique", split="dev", data=file)


@pytest.mark.parametrize("evidences", [[["a", "b"]], ["abc"], "abc", [["a", "b", 3]]])
def test_triples_that_are_none_are_refused(tmp_path, evidences):
    with pytest.raises(DatasetError, match=r"dev\.json: row 1: 'evidences' must"):
        load("2wikimultihopqa", split="dev", data=two_wiki_folder(tmp_path, TWO_WIKI_ROW | {"evidences": evidences}))


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.name)
def test_missing_data_says_every_way_to_get_it(published):
    with pytest.raises(DatasetError) as caught:
        published.load(next(iter(published.files)), None)
    for way in (f'data="{published.hub.id}', published.home, *published.files, "corpus.jsonl"):
        assert way in str(caught.value)


def test_a_file_may_be_gzipped_and_must_be_whole(tmp_path):
    write_lines(tmp_path / "corpus.jsonl", [{"id": "d", "title": "Ada", "text": "She was first."}])
    questions = write_lines(
        tmp_path / "mine.jsonl.gz", [{"id": f"q{n}", "question": f"Who {n}?", "answers": ["Ada"]} for n in range(99)]
    )
    assert len(load("custom", data=questions).questions) == 99
    questions.write_bytes(questions.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"mine\.jsonl\.gz: not a whole gzip file"):
        load("custom", data=questions)


def test_the_files_of_a_folder_may_be_compressed(tmp_path):
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    passages = [{"id": "d", "title": "Ada", "text": "She was first."}]
    write_lines(tmp_path / "ours" / "corpus.jsonl.gz", passages)
    write_lines(tmp_path / "ours" / "dev.jsonl.gz", [{"id": "q", "question": "Who?", "answers": ["Ada"]}])
    write_lines(tmp_path / "theirs" / "musique_full_v1.0_dev.jsonl.gz", [MUSIQUE_ROW])
    for name in ("custom", "musique"):
        dataset = load(name, split="dev", data=tmp_path / "ours")
        assert (len(dataset.questions), len(dataset.documents)) == (1, 1)
    assert load("musique", split="dev", data=tmp_path / "theirs").questions[0].kind == "2hop"
    with pytest.raises(ConfigError, match=r"unknown split 'dve'. Did you mean 'dev'. Known: dev"):
        load("custom", split="dve", data=tmp_path / "ours")


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_file_is_ours_or_the_publishers_by_its_name_compressed_or_not(tmp_path, ending):
    ours = write_lines(tmp_path / f"mine.jsonl{ending}", [{"id": "q", "question": "Who?", "answers": ["Ada"]}])
    theirs = write_lines(tmp_path / f"musique_ans_v1.0_dev.jsonl{ending}", [MUSIQUE_ROW])
    assert [question.id for question in load("musique", data=ours).questions] == ["q"]
    assert [question.kind for question in load("musique", data=theirs).questions] == ["2hop"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"answerable": "false"}, "'answerable' must be true or false, got text 'false'"),
        ({"paragraphs": [MUSIQUE_ROW["paragraphs"][0] | {"idx": [0]}]}, "'idx' must be a number, got a list"),
        (
            {"question_decomposition": [{"question": "Who?", "answer": "Ada", "paragraph_support_idx": {}}]},
            "'paragraph_support_idx' must be a number, got an object",
        ),
    ],
)
def test_a_wrong_type_in_musique_is_named(tmp_path, changes, problem):
    file = write_lines(tmp_path / "musique_full_v1.0_dev.jsonl", [MUSIQUE_ROW | changes])
    with pytest.raises(DatasetError, match=rf"dev\.jsonl:1: {problem}"):
        load("musique", split="dev", data=file)


def test_your_own_questions_load_from_a_folder_or_a_file(tmp_path):
    write_lines(tmp_path / "corpus.jsonl", [{"id": "d", "title": "Ada", "text": "She was first."}])
    file = write_lines(tmp_path / "mine.jsonl", [{"id": "q", "question": "Who was first?", "answers": ["Ada"]}])
    assert load("custom", split="mine", data=tmp_path).questions == load("custom", data=file).questions
    with pytest.raises(DatasetError, match=r"questions of your own(.|\n)*train\.jsonl and corpus\.jsonl"):
        load("custom")
    with pytest.raises(DatasetError, match="there is no file or folder"):
        load("custom", data=tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("name", "split", "count", "decomposed"),
    [
        ("hotpotqa", "dev", 173, 0),
        ("2wikimultihopqa", "dev", 231, 231),
        ("musique", "train", 796, 796),
        ("bamboogle", "dev", 125, 125),
    ],
)
def test_the_local_copies_load_with_their_hops(name, split, count, decomposed):
    if not SHARED.exists():
        pytest.skip(f"no data at {SHARED}")
    questions = load(name, split=split, data=SHARED / name).questions
    assert len(questions) == count
    assert sum(bool(question.decomposition) for question in questions) == decomposed
    assert not any("#" in hop.query for question in questions for hop in question.decomposition if name == "musique")


def test_the_released_lists_are_the_papers_and_share_no_question_with_its_evaluation():
    folder = SHARED / "r1_searcher"
    if not folder.exists():
        pytest.skip(f"no data at {folder}")
    stage1, stage2 = (load("r1-searcher", split=f"stage_{n}", data=folder / "training_set").questions for n in (1, 2))
    assert (len(stage1), len(stage2)) == (350, 8148)
    assert sum(overlap.exact for overlap in find_overlap(stage1, stage2)) == 201
    for split in ("hotpotqa_500", "2wiki_500", "musique_500", "bamboogle"):
        asked = load("r1-searcher", split=split, data=folder / "eval_set").questions
        assert len(asked) == (125 if split == "bamboogle" else 500)
        assert find_overlap(asked, stage1) == find_overlap(asked, stage2) == []
