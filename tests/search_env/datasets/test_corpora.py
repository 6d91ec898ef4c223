"""Every corpus format is read as a stream; whatever is wrong with a file is named by file and line."""

import bz2
import csv
import gzip
import io
import itertools
import json
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_env.datasets.corpora import SkippedRows, locate_documents, stream_corpus
from search_env.errors import DatasetError
from search_env.types import Document

OSLO = Document(id="1", title="Oslo", text="Capital of Norway.")
OURS = '{"id": "1", "title": "Oslo", "text": "Capital of Norway."}'
ABSTRACT = '{"id": "12", "url": "u", "title": "Oslo", "text": ["Oslo is a city.", " It is in Norway."]}'


def write(folder, content, name="corpus.jsonl"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, **skip):
    return list(stream_corpus(path, **skip))


def archive(path, members, mode="w:bz2"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def kilt_page(**changes):
    page = {"_id": "7", "wikipedia_id": "7", "wikipedia_title": "Oslo", "text": ["Oslo\n", "Oslo is a city.\n"]}
    return json.dumps(page | changes)


def test_wiki_18_has_its_title_in_quotes_on_the_first_line(tmp_path):
    rows = [
        {"id": "0", "contents": '"Oslo"\nCapital of Norway.'},
        {"id": 1, "contents": '""Heroes" (album)"\nAn album.\nBy Bowie.'},
        {"id": "2", "contents": "No title here."},
    ]
    path = write(tmp_path, "\n".join(map(json.dumps, rows)))
    assert read(path) == [
        Document(id="0", title="Oslo", text="Capital of Norway."),
        Document(id="1", title='"Heroes" (album)', text="An album.\nBy Bowie."),
        Document(id="2", title="", text="No title here."),
    ]


def test_a_page_of_kilt_is_cut_into_windows_of_100_words_without_its_markers(tmp_path):
    paragraphs = ["Oslo\n", "Section::::Early history.\n", "BULLET::::- A\n", " ".join(f"w{n}" for n in range(200))]
    first, second, third = read(write(tmp_path, kilt_page(text=paragraphs)))
    assert [first.id, second.id, third.id] == ["7-0", "7-1", "7-2"]
    assert first.text.startswith("Oslo Early history. - A w0 w1 ") and len(first.text.split()) == 100
    assert {first.title, second.title, third.title} == {"Oslo"}
    words = " ".join([first.text, second.text, third.text]).split()
    assert words == "Oslo Early history. - A".split() + [f"w{n}" for n in range(200)]


def test_a_page_of_kilt_without_words_has_no_window_and_its_id_may_be_a_number(tmp_path):
    path = write(tmp_path, "\n".join([kilt_page(text=[" \n"]), kilt_page(wikipedia_id=8)]))
    assert [document.id for document in read(path)] == ["8-0"]


def test_the_table_of_dpr_is_read_with_its_quotes(tmp_path):
    table = io.StringIO(newline="")
    writer = csv.writer(table, delimiter="\t", lineterminator="\r\n")
    writer.writerows([("id", "text", "title"), ("1", 'He said "no", twice', "Aaron"), ("2", "Plain", "")])
    assert read(write(tmp_path, table.getvalue(), "psgs_w100.tsv")) == [
        Document(id="1", title="Aaron", text='He said "no", twice'),
        Document(id="2", title="", text="Plain"),
    ]


def test_the_windows_and_the_abstracts_of_r1_searcher_are_read(tmp_path):
    windows = '0\t"Weird Al" Yankovic   "Weird Al" is a singer.\n1\tOslo   A city   in Norway.\n'
    assert read(write(tmp_path, windows, "kilt_100.tsv")) == [
        Document(id="0", title='"Weird Al" Yankovic', text='"Weird Al" is a singer.'),
        Document(id="1", title="Oslo", text="A city   in Norway."),
    ]
    abstracts = "0\tTitle: Oslo Text:  Oslo is a city.  It is in Norway.\n"
    assert read(write(tmp_path, abstracts, "abstracts.tsv")) == [
        Document(id="0", title="Oslo", text="Oslo is a city.  It is in Norway.")
    ]


def test_the_abstracts_of_hotpotqa_are_the_same_from_a_file_a_folder_and_an_archive(tmp_path):
    other = ABSTRACT.replace("12", "13")
    empty = '{"id": "14", "title": "Nothing", "text": [" "]}'
    parts = {"AA/wiki_00.bz2": f"{ABSTRACT}\n{empty}\n".encode(), "AB/wiki_01.bz2": other.encode()}
    parts = {name: bz2.compress(content) for name, content in parts.items()}
    for name, content in parts.items():
        write(tmp_path / "dump", content, name)
    write(tmp_path / "dump", "not data", "README")
    expected = [Document(id=id_, title="Oslo", text="Oslo is a city. It is in Norway.") for id_ in ("12", "13")]
    assert read(tmp_path / "dump") == expected
    assert read(archive(tmp_path / "dump.tar.bz2", parts)) == expected
    assert read(archive(tmp_path / "dump.tgz", parts, "w:gz")) == expected
    assert read(archive(tmp_path / "dump.tar", parts, "w")) == expected
    assert read(tmp_path / "dump" / "AB" / "wiki_01.bz2") == expected[1:]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress])
def test_compression_is_told_by_the_content_and_needs_no_ending(tmp_path, compress):
    assert read(write(tmp_path, compress(OURS.encode()))) == [OSLO]


@pytest.mark.parametrize(("compress", "ending"), [(gzip.compress, "bz2"), (bz2.compress, "gz"), (bz2.compress, "bz2")])
def test_a_wrong_ending_does_not_mislead(tmp_path, compress, ending):
    assert read(write(tmp_path, compress(OURS.encode()), f"corpus.jsonl.{ending}")) == [OSLO]


def test_byte_order_mark_crlf_and_empty_lines_are_tolerated_in_every_format(tmp_path):
    bom = b"\xef\xbb\xbf"
    assert read(write(tmp_path, bom + f"\r\n{OURS}\r\n\r\n".encode())) == [OSLO]
    table = bom + b"id\ttext\ttitle\r\n1\tCapital of Norway.\tOslo\r\n"
    assert read(write(tmp_path, table, "a.tsv")) == [OSLO]
    assert read(write(tmp_path, bom + b"1\tOslo   Capital of Norway.\r\n", "b.tsv")) == [OSLO]


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (OURS, '{"id": "2"}', "'text' is missing; the row has 'id'"),
        (OURS, '{"id": 2, "text": "x"}', "'id' must be text, got a number 2"),
        (OURS, '{"id": "2", "text": ["x"]}', "'text' must be text, got a list"),
        (OURS, b'{"id": "2", "text": "\xff"}', "invalid UTF-8 .byte 0xff.; save"),
        (OURS, '{"id": "2", "text": "\\ud800"}', "'text' holds half a surrogate pair"),
        ('{"id": "1", "contents": "a\\nb"}', '{"id": "2", "text": "b"}', "'contents' is missing"),
        ('{"id": "1", "contents": "a\\nb"}', '{"id": "2", "contents": "a\\n "}', "'contents' holds a title and no"),
        ('{"id": "1", "contents": "a\\nb"}', '{"id": 2.5, "contents": "a"}', "'id' must be text, got a number 2.5"),
        (kilt_page(), kilt_page(text="x", wikipedia_id="8"), "'text' must be a list of texts, got text 'x'"),
        (kilt_page(), kilt_page(text=[1], wikipedia_id="8"), r"'text\[\]' must be text, got a number 1"),
        (kilt_page(), kilt_page(wikipedia_title=None), "'wikipedia_title' is missing"),
        (ABSTRACT, ABSTRACT.replace('["Oslo is a city."', '[["Oslo is a city."]'), r"'text\[\]' must be text, got a"),
        (ABSTRACT, '{"id": "2", "title": "x"}', "'text' is missing"),
        ("id\ttext\ttitle", "1\tx", "has 2 cells, and the head names 3: id, text, title"),
        ("id\ttext\ttitle", '1\t"x\ttitle', "not a row of a table .unexpected end of data.; quote"),
        ("id\ttext\ttitle", "1\t\ttitle", "'text' is empty"),
        ("id\ttext\ttitle", b"1\t\xff\ttitle", "invalid UTF-8 .byte 0xff."),
        ("1\tOslo   A city.", "2\tOslo, a city.", "must be a number, a tab, and a title and a text"),
        ("1\tOslo   A city.", "two\tOslo   a city.", "must be a number, a tab"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line_in_every_format(tmp_path, first, second, problem):
    second = second if isinstance(second, bytes) else second.encode()
    with pytest.raises(DatasetError, match=rf"corpus\.jsonl:3: {problem}") as caught:
        read(write(tmp_path, first.encode() + b"\n\n" + second + b"\n"))
    assert len(str(caught.value)) < 400


def test_a_table_needs_a_head_that_is_known(tmp_path):
    with pytest.raises(DatasetError, match=r"psgs.tsv:1: a table must begin with the head 'id', 'text', 'title'"):
        read(write(tmp_path, "id\tbody\ttitle\n1\tx\ty\n", "psgs.tsv"))


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        ([OURS, OURS], "corpus.jsonl:2: id '1' is already used at .*corpus.jsonl:1; give every row its own"),
        ([kilt_page(), OURS, kilt_page()], "corpus.jsonl:3: id '7-0' is already used at .*corpus.jsonl:1"),
    ],
)
def test_an_id_that_occurs_twice_is_named_with_both_places(tmp_path, rows, where):
    with pytest.raises(DatasetError, match=where):
        read(write(tmp_path, "\n".join(rows)), skipped=SkippedRows(1))


def test_ids_with_one_hash_are_not_taken_for_one_id(tmp_path, monkeypatch):
    monkeypatch.setattr("search_env.datasets.corpora._hash", lambda document_id: 7)
    path = write(tmp_path, "\n".join(OURS.replace('"1"', f'"{n}"') for n in range(5)))
    assert len(read(path)) == 5
    with pytest.raises(DatasetError, match=r":6: id '3' is already used at .*:4"):
        read(write(tmp_path, path.read_text() + "\n" + OURS.replace('"1"', '"3"')))


@settings(deadline=None)
@given(ids=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=30))
def test_ids_are_refused_if_and_only_if_one_occurs_twice(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("ids") / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"id": id_, "text": "x"}) for id_ in ids))
    if len(set(ids)) == len(ids):
        assert [document.id for document in stream_corpus(path)] == ids
    else:
        with pytest.raises(DatasetError, match="is already used at"):
            read(path)


@pytest.mark.parametrize(("compress", "kind"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2")])
@pytest.mark.parametrize("skip", [0, 10])
def test_a_truncated_or_damaged_archive_is_named_and_never_skipped(tmp_path, compress, kind, skip):
    rows = "\n".join(json.dumps({"id": str(n), "text": f"text {n * n}"}) for n in range(500)).encode()
    whole = compress(rows)
    ending = {"gzip": "gz", "bzip2": "bz2"}[kind]
    for content in (whole[: len(whole) // 2], whole[:-1], whole[:20] + b"\0" * 40 + whole[60:]):
        path = write(tmp_path, content, f"corpus.jsonl.{ending}")
        with pytest.raises(DatasetError, match=rf"corpus.jsonl.{ending}: not a whole {kind} file \(.+\); fetch it"):
            read(path, skipped=SkippedRows(skip))
    with pytest.raises(DatasetError, match=f"not a whole {kind} file"):
        read(write(tmp_path, rows, f"plain.jsonl.{ending}"))


@pytest.mark.parametrize("skip", [0, 10])
def test_a_file_that_grows_as_no_text_does_is_refused_before_it_keeps_a_reader_busy(tmp_path, skip):
    """Risk 15: found by fuzzing; 45 million empty lines fit into 100 bytes."""
    bomb = bz2.compress(b"\n" * 45_000_000)
    path = write(tmp_path, bomb, "corpus.jsonl.bz2")
    with pytest.raises(DatasetError, match=r"corpus.jsonl.bz2: grows by more than 1000 times .*decompress it yourself"):
        read(path, skipped=SkippedRows(skip))
    with pytest.raises(DatasetError, match=r"dump.tar/AA/wiki_00.bz2: grows by more than 1000 times"):
        read(archive(tmp_path / "dump.tar", {"AA/wiki_00.bz2": bomb}, "w"), skipped=SkippedRows(skip))
    with pytest.raises(DatasetError, match=r"dump.tar.bz2: grows by more than 1000 times"):
        read(archive(tmp_path / "dump.tar.bz2", {"AA/wiki_00": b"\n" * 45_000_000}), skipped=SkippedRows(skip))


@pytest.mark.parametrize("mode", ["w:bz2", "w:gz", "w"])
def test_a_truncated_tar_is_named(tmp_path, mode):
    rows = [json.dumps({"id": str(n), "title": "t", "text": [str(n**9)]}) for n in range(3000)]
    content = bz2.compress("\n".join(rows).encode())
    name = {"w:bz2": "dump.tar.bz2", "w:gz": "dump.tar.gz", "w": "dump.tar"}[mode]
    path = archive(tmp_path / name, {"AA/wiki_00.bz2": content, "AB/wiki_01.bz2": content}, mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(DatasetError, match=r"dump\.tar.*: not a whole \w+ file \(.+\); fetch it again"):
        read(path)


def test_a_damaged_member_of_an_archive_is_named_by_its_own_path(tmp_path):
    parts = {"AA/wiki_00.bz2": bz2.compress(ABSTRACT.encode())[:-5]}
    with pytest.raises(DatasetError, match=r"dump.tar.bz2/AA/wiki_00.bz2: not a whole bzip2 file"):
        read(archive(tmp_path / "dump.tar.bz2", parts))
    parts = {"AA/wiki_00": f"{ABSTRACT}\n[]\n".encode()}
    with pytest.raises(DatasetError, match=r"dump.tar.bz2/AA/wiki_00:2: must be a JSON object"):
        read(archive(tmp_path / "dump.tar.bz2", parts))


def test_a_folder_without_parts_a_missing_file_and_an_empty_one_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"Is a directory, and no file in it is named wiki_\*; name a file"):
        read(tmp_path)
    with pytest.raises(DatasetError, match=r"none.jsonl: cannot be read: No such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(DatasetError, match=r"none.tar: cannot be read: No such file"):
        read(tmp_path / "none.tar")
    with pytest.raises(DatasetError, match=r"corpus.jsonl:1: holds no documents"):
        read(write(tmp_path, "\n"))


def test_a_line_too_long_to_be_a_row_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("search_env.datasets.files._MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(DatasetError, match=r"corpus.jsonl:2: is longer than \d+ MiB; write one row a line"):
        read(write(tmp_path, OURS + "\n" + '{"id": "2", "text": "' + "x" * (1 << 20) + '"}'))


def test_malformed_rows_are_left_out_counted_and_capped_when_asked(tmp_path):
    path = write(tmp_path, "\n".join(["[]", OURS, '{"id": "2"}', "{", '{"id": "3", "text": "x"}']))
    with pytest.raises(DatasetError, match=r"corpus.jsonl:1: must be a JSON object"):
        read(path)
    skipped = SkippedRows(3)
    assert [document.id for document in stream_corpus(path, skipped)] == ["1", "3"]
    assert skipped.count == 3
    assert str(skipped).splitlines()[0] == "3 malformed rows were left out; the first:"
    assert f"{path}:3: 'text' is missing" in str(skipped)
    with pytest.raises(DatasetError, match=r"corpus.jsonl:4: broken JSON.* \(2 malformed rows were left out before it"):
        read(path, skipped=SkippedRows(2))


def test_reading_keeps_about_8_bytes_a_passage(tmp_path):
    path = tmp_path / "corpus.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps({"id": f"document-{n}", "text": f"text {n}"}) + "\n" for n in range(30_000))
    documents = stream_corpus(path)
    for _ in itertools.islice(documents, 10_000):
        pass
    tracemalloc.start()
    try:
        for _ in documents:
            pass
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 500_000 and peak < 20_000 * 40


def test_a_passage_is_located_without_its_id_being_compared(tmp_path):
    path = write(tmp_path, f"{OURS}\n{OURS}\n")
    assert [tuple(found) for found in locate_documents(path, SkippedRows())] == [
        (f"{path}:1", OSLO),
        (f"{path}:2", OSLO),
    ]
