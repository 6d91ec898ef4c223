"""A damaged dataset is an error that names the place, and nothing of it is ever played."""

from __future__ import annotations

import gzip
import json

import pytest

from search_env.datasets import SkippedRows, load
from search_env.errors import DatasetError


def line(number, **changes):
    row = {"id": f"q{number}", "question": f"Who ruled Land{number}?", "answers": [f"King{number}"]} | changes
    return json.dumps({key: value for key, value in row.items() if value is not ...}).encode()


GOOD = [line(number) for number in range(300)]
BROKEN = {
    "broken JSON": line(1)[:-1],
    "cut off": line(1)[:20],
    "no object": b"[1, 2]",
    "invalid UTF-8": line(1).replace(b"King", b"\xff\xfe"),
    "NUL": line(1).replace(b"King1", b"King\0"),
    "missing answer": line(1, answers=...),
    "no answer": line(1, answers=[]),
    "empty answer": line(1, answers=[" "]),
    "answer of a wrong type": line(1, answers=[7]),
    "question of a wrong type": line(1, question={"text": "Who?"}),
    "empty question": line(1, question=""),
    "missing question": line(1, question=...),
    "id of a wrong type": line(1, id=[]),
    "infinite number": line(1, hops=...)[:-1] + b', "hops": Infinity}',
    "deep nesting": b"[" * 100_000,
}


def write(folder, rows, name="dev.jsonl", end=b"\n"):
    (folder / name).write_bytes(end.join(rows) + end)
    return folder


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_named_by_file_and_line(tmp_path, broken):
    """Risk 15: a corrupted dataset."""
    write(tmp_path, [*GOOD[:2], broken, *GOOD[2:]])
    with pytest.raises(DatasetError) as caught:
        load("custom", split="dev", data=tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'dev.jsonl'}:3: ")


def test_an_id_that_occurs_twice_is_named_by_file_and_line(tmp_path):
    """Risk 15: two rows under one id."""
    write(tmp_path, [*GOOD, GOOD[4]])
    with pytest.raises(DatasetError, match=r"dev\.jsonl:301: .*dev\.jsonl:5"):
        load("custom", split="dev", data=tmp_path)


def test_an_archive_that_is_cut_off_is_never_a_shorter_dataset(tmp_path):
    """Risk 15: a download that broke off."""
    whole = gzip.compress(b"\n".join(GOOD) + b"\n")
    for length in (len(whole) - 1, len(whole) // 2, 20):
        (tmp_path / "dev.jsonl.gz").write_bytes(whole[:length])
        for skipped in (None, SkippedRows(300)):
            with pytest.raises(DatasetError, match=r"dev\.jsonl\.gz"):
                load("custom", split="dev", data=tmp_path, skipped=skipped)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_what_other_systems_write_changes_nothing(tmp_path, end):
    """Risk 15: a byte order mark and the line ends of Windows."""
    write(tmp_path, [b"\xef\xbb\xbf" + GOOD[0], *GOOD[1:]], end=end)
    questions = load("custom", split="dev", data=tmp_path).questions
    assert [question.answers for question in questions] == [(f"King{number}",) for number in range(300)]


def test_rows_are_left_out_only_as_many_as_allowed_and_are_counted(tmp_path):
    """Risk 15: leaving rows out is asked for with a number, told, and no more than that."""
    broken = [BROKEN["broken JSON"], BROKEN["no answer"], BROKEN["answer of a wrong type"]]
    write(tmp_path, [*GOOD, *broken])
    skipped = SkippedRows(at_most=3)
    assert len(load("custom", split="dev", data=tmp_path, skipped=skipped).questions) == 300
    assert skipped.count == 3 and "3 malformed rows" in str(skipped)
    with pytest.raises(DatasetError, match=r"dev\.jsonl:303: "):
        load("custom", split="dev", data=tmp_path, skipped=SkippedRows(at_most=2))
