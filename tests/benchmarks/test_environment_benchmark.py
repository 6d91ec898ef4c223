"""The comparison of environments: what counts as equal work, what is measured, and the page."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import environment
from benchmarks.peers.search_env_vector import Ours
from benchmarks.peers.work import Outcome, check_step, measure, query_of

WORK = environment.make_work(episodes=1, slots=3)


def test_every_slot_searches_twice_for_five_documents_of_80_words_of_its_own():
    queries = [query_of(text) for texts in WORK.actions[:-1] for text in texts]
    assert sorted(queries) == sorted(WORK.found) and len(set(queries)) == 6
    passages = [text for found in WORK.found.values() for _, text in found]
    assert len(set(passages)) == 6 * 5 and {len(text.split()) for text in passages} == {80}
    assert [query_of(text) for text in WORK.actions[-1]] == list(WORK.answers)


@pytest.mark.parametrize("spoil", ["drops a document", "pays a search", "ends at a search", "swaps two slots"])
def test_a_step_that_does_less_than_its_work_is_refused(spoil):
    shown = [Outcome("".join(t for _, t in WORK.found[query_of(text)]), 0.0, False) for text in WORK.actions[0]]
    check_step(WORK, 0, shown)
    shown[1] = {
        "drops a document": shown[1]._replace(
            text=shown[1].text.replace(WORK.found[query_of(WORK.actions[0][1])][4][1], "")
        ),
        "pays a search": shown[1]._replace(reward=0.5),
        "ends at a search": shown[1]._replace(ended=True),
        "swaps two slots": shown[2],
    }[spoil]
    with pytest.raises(AssertionError, match="the search"):
        check_step(WORK, 0, shown)


def test_an_answer_must_end_the_episode_with_a_reward_of_1():
    right = [Outcome("", 1.0, True)] * 3
    check_step(WORK, 2, right)
    for wrong in (right[:2], [*right[:2], Outcome("", 0.0, True)], [*right[:2], Outcome("", 1.0, False)]):
        with pytest.raises(AssertionError):
            check_step(WORK, 2, wrong)


def test_our_environment_does_the_work():
    measured = measure(Ours(WORK), WORK)
    assert measured["steps"] == 9 and measured["step_us"] > 0


def test_unequal_numbers_of_steps_are_refused(monkeypatch):
    class Lazy:
        name, about = "lazy", {"version": "1", "settings": "none"}

        def __init__(self, *_):
            self.measured = []

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def measure(self):
            self.measured.append({"steps": 8})

    monkeypatch.setattr(environment, "Player", Lazy)
    with pytest.raises(AssertionError, match="unequal work"):
        environment.measure_in_turn({"lazy": "python"}, WORK, 1)


def test_one_command_measures_in_a_process_and_keeps_figures_and_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(environment, "RESULTS", tmp_path)
    environment.main(["--episodes", "1", "--repeats", "2", "--write"])
    kept = json.loads((tmp_path / "environment.json").read_text())
    (ours,) = kept["rows"]
    assert kept["vector_step_us"] == ours["step_us"] and len(ours["step_us"]["raw"]) == 2
    low, high = ours["step_us"]["spread"]
    assert 0 < low <= ours["step_us"]["value"] <= high
    page = (tmp_path / "environment.md").read_text()
    assert page in capsys.readouterr().out and "| search_env_vector |" in page
    assert {"command", "date", "machine"} <= kept.keys() and sys.executable not in page


def test_a_peer_without_its_python_is_refused(capsys):
    for wrong in ("gem", "gym=python"):
        with pytest.raises(SystemExit):
            environment.main(["--peer", wrong])
    assert "write NAME=PYTHON, NAME one of aviary, gem" in capsys.readouterr().err


def test_the_page_says_which_environments_took_less():
    def row(name, *times):
        measured = [{"step_us": time, "step_wall_us": 2 * time, "reset_us": 1.0} for time in times]
        return {"name": name, "version": "1", "settings": "none", "measured": measured}

    rows = [row(environment.OURS, 2.0, 4.0, 2.5), row("slow", 5.0), row("quick", 1.25)]
    figures = {
        **environment.about(["environment.py", "--peer", "gem=/home/me/bin/python"]),
        **environment.summary(rows),
    }
    page = environment.markdown(figures)
    assert "| search_env_vector | 1 | 2.5 | 2.0 to 4.0 | 1.00 | 400,000 | 5.0 | 1.0 |" in page
    assert "| quick | 1 | 1.2 | 1.2 to 1.2 | 0.50 | 800,000 |" in page
    assert "not met, at 2.5 µs; quick took less." in page
    assert "/home/me" not in page and "--peer gem=PYTHON" in page
    alone = environment.markdown({**figures, **environment.summary(rows[:2])})
    assert "fastest: met, at 2.5 µs; none took less." in alone
