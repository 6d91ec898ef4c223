"""The reliability benchmark accounts for every episode, and tells what went wrong; also the short form of its runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("ray")

from search_agents.rollout import Task
from search_agents.rollout.episode import SegmentKind, TokenSegment

from benchmarks import reliability
from benchmarks.faults import soak as soaking
from benchmarks.faults import wrk
from benchmarks.faults.dying import soak_runners
from benchmarks.faults.fuzzing import read_log, targets
from benchmarks.faults.overload import PHASES, overload
from benchmarks.faults.soak import Account, FaultyRetriever, soak
from search_env.errors import MissingDependencyError, RetrieverUnavailable
from search_env.retrieval import InMemoryRetriever
from search_env.types import Document, StopReason

WHERE = ("command", "date", "machine")


@pytest.fixture(scope="module")
def soaked() -> Account:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soaking, "_HANGS_S", 0.0)  # a test need not wait for a deadline
        return soak(120, seed=3)


def test_every_episode_of_a_soak_is_accounted_for_exactly_once(soaked: Account) -> None:
    assert sorted(soaked.finished) == list(range(120))
    figures = soaked.figures()
    assert (figures["lost"], figures["not_begun"]) == (0, 0)
    assert figures["attempts"] == 120 + sum(soaked.invalid.values())
    assert {"hiccup", "outage", "poisoned"} <= set(soaked.faults), "faults happened"
    assert soaked.invalid and StopReason.RETRIEVER_UNAVAILABLE not in soaked.finished.values()
    assert {"answered", "malformed"} <= set(figures["stop_reasons"])


def test_a_soak_whose_time_is_over_says_so_and_calls_nothing_lost() -> None:
    figures = soak(50, seconds=0).figures()
    assert (figures["not_begun"], figures["episodes"], figures["lost"]) == (50, 0, 0)


def test_an_account_takes_no_episode_twice_and_none_that_is_not_what_it_should_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = []
    take = Account.take

    def spy(account: Account, task: Task, episode: object) -> bool:
        taken.append((task, episode))
        return take(account, task, episode)

    monkeypatch.setattr(Account, "take", spy)
    soak(8, rates={"poisoned": 0.5})
    task, episode = taken[0]
    account = Account(1)
    assert take(account, task, episode)
    with pytest.raises(AssertionError, match="twice"):
        take(account, task, episode)
    said = TokenSegment(SegmentKind.SAMPLED, (65,), (0.0,), "A")
    for change in (
        {"group": 99},
        {"valid": False},
        {"segments": (dataclasses.replace(episode.segments[0], text=soaking.SECRET), *episode.segments[1:])},
        {"segments": (*episode.segments, said)},
    ):
        with pytest.raises(AssertionError):
            take(Account(1), task, dataclasses.replace(episode, **change))


def test_the_faults_of_a_service_are_drawn_by_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soaking, "_HANGS_S", 0.0)
    documents = [Document(id="1", title="Oslo", text="Capital of Norway.")]

    def meet(seed: int) -> list[str]:
        noted: list[str] = []
        service = FaultyRetriever(InMemoryRetriever(documents), ["Oslo"], seed, rates=soaking.RATES, note=noted.append)
        met = []
        for _ in range(60):
            try:
                (hits,) = service.search(["norway"], 1)
                met.append(hits[0].document.id)
            except RetrieverUnavailable as error:
                met.append("hiccup" if error.transient else "outage")
        assert [fault for fault in noted if fault in ("hiccup", "outage")] == [fault for fault in met if fault in noted]
        return met

    assert set(meet(1)) == {"1", "poison", "hiccup", "outage"}
    assert meet(1) == meet(1) != meet(2)


def test_no_episode_is_lost_when_the_runners_that_play_them_are_killed() -> None:
    """Risk 11: the short form of the soak over env runners."""
    found = soak_runners(150, death=0.02, batch=8)  # so few at once that hardly a runner dies time and again
    assert found["killed"] == found["replaced"]
    assert (found["episodes"], found["lost"], found["not_begun"]) == (150, 0, 0)
    assert found["faults_of_the_service"]["poisoned"] > 0
    assert reliability.problems("runners", found) == []
    assert reliability.problems("runners", {**found, "replaced": 0}) and reliability.problems(
        "runners", {**found, "lost": 1}
    )
    assert "150 episodes on 2 env runners" in reliability.markdown({"runners": {**found, **dict.fromkeys(WHERE, "-")}})


def test_a_server_refuses_what_is_too_much_and_answers_again_afterwards(tmp_path: Path) -> None:
    phases = [PHASES[0], PHASES[2]._replace(connections=24), PHASES[3]]
    found = overload(tmp_path, seconds=1.5, phases=phases)
    light, heavy, again = found["phases"]
    assert heavy["refused_503"] > 0 and heavy["answered"] > 0
    assert light["answered"] > 0 and again["answered"] > 0
    assert [row["other_failures"] for row in found["phases"]] == [0, 0, 0]
    assert light["refused_503"] == again["refused_503"] == 0
    assert reliability.problems("overload", found) == []


@pytest.mark.skipif(not wrk.installed(), reason="needs wrk: apt-get install wrk")
def test_wrk_finds_that_a_server_refuses_what_is_too_much_and_answers_again_afterwards(tmp_path: Path) -> None:
    found = wrk.wrk(tmp_path, seconds=1, phases=[wrk.PHASES[0], wrk.PHASES[2], wrk.PHASES[3]])
    light, heavy, again = found["phases"]
    assert light["answered"] > 0 and heavy["answered"] > 0 and again["answered"] > 0
    assert light["p50_ms"] <= light["p90_ms"] <= light["p99_ms"] <= light["most_ms"]
    assert found["tool"].startswith("wrk ") and found["memory_mib"]["before"] > 1
    assert reliability.problems("wrk", found) == []
    page = reliability.markdown({"wrk": {**found, "command": "c", "date": "d", "machine": "m"}})
    assert f"Measured by `{found['tool']}`" in page and f"{heavy['refused_503']:,}" in page


def test_without_wrk_the_load_by_it_is_left_out_or_missed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert reliability._parser().parse_args([]).only == ["soak", "overload"]
    with pytest.raises(MissingDependencyError, match="apt-get install wrk"):
        wrk.wrk(tmp_path)


GOOD = {
    "soak": {"lost": 0, "memory_mib": {"after 1": 100.0, "after 9": 101.0}},
    "overload": {
        "phases": [
            {"name": name, "answered": 9, "refused_503": 5 * (name == "overload"), "other_failures": 0, "errors": {}}
            for name in ("light", "overload", "light again")
        ]
    },
    "fuzz": {"rows": [{"target": "dialects", "broke": [], "exit": 0}]},
    "tests": {"rows": [{"folder": "tests/x", "passed": 3, "failed": 0}]},
}


def changed(part: str, *path: object, value: object) -> dict:
    found = json.loads(json.dumps(GOOD[part]))
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return found


@pytest.mark.parametrize("part", GOOD)
def test_good_figures_are_no_problem(part: str) -> None:
    assert reliability.problems(part, GOOD[part]) == []


@pytest.mark.parametrize(
    ("part", "found", "said"),
    [
        ("soak", changed("soak", "lost", value=2), "2 episodes were lost"),
        ("soak", changed("soak", "memory_mib", "after 9", value=180.0), "memory grew"),
        ("overload", changed("overload", "phases", 1, "refused_503", value=0), "the load was too small"),
        ("overload", changed("overload", "phases", 2, "refused_503", value=1), "still refuses"),
        ("overload", changed("overload", "phases", 0, "answered", value=0), "light: nothing was answered"),
        ("overload", changed("overload", "phases", 1, "other_failures", value=1), "overload: {}"),
        ("fuzz", changed("fuzz", "rows", 0, "broke", value=["KeyError"]), "KeyError"),
        ("fuzz", changed("fuzz", "rows", 0, "exit", value=77), "77"),
        ("tests", changed("tests", "rows", 0, "failed", value=1), "1 failed"),
        ("tests", changed("tests", "rows", 0, "passed", value=0), "tests/x"),
    ],
)
def test_what_went_wrong_is_told(part: str, found: dict, said: str) -> None:
    (problem,) = reliability.problems(part, found)
    assert said in problem


def test_the_log_of_the_fuzzer_is_read() -> None:
    log = "INFO: Seed: 7\n#8\tINITED cov: 7 ft: 9\n#90\tNEW    cov: 12 ft: 40\nDone 95 runs in 3 second(s)\n"
    assert read_log(log) == {"inputs": 95, "coverage": 12, "broke": []}
    broken = "#5\tNEW cov: 3 ft: 1\n\n === Uncaught Python exception: ===\nKeyError: 'row'\nTraceback (most recent\n"
    assert read_log(broken) == {"inputs": 5, "coverage": 3, "broke": ["KeyError: 'row'"]}
    assert read_log("==9== ERROR: libFuzzer: timeout after 21 seconds\n")["broke"] == ["timeout"]
    assert "dialects" in targets()


def test_a_part_that_is_run_leaves_the_figures_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soaked: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reliability, "RESULTS", tmp_path)
    row = {"target": "dialects", "inputs": 12345, "coverage": 9, "broke": [], "seconds": 5, "date": "then", "exit": 0}
    rows = [row]
    monkeypatch.setattr(reliability, "fuzz", lambda *_, **__: rows)
    monkeypatch.setattr(reliability, "soak", lambda *_, **__: soaked)
    assert reliability.main(["--only", "fuzz", "--write"]) == 0
    assert reliability.main(["--only", "soak", "--write"]) == 0
    page = (tmp_path / "reliability.md").read_text()
    assert "12,345 inputs" in page and "120 episodes" in page
    assert "python benchmarks/reliability.py --only soak --write" in page
    assert set(json.loads((tmp_path / "reliability.json").read_text())) == {"fuzz", "soak"}
    rows[:] = [{**row, "target": "prompts"}]
    assert reliability.main(["--only", "fuzz", "--targets", "prompts", "--write"]) == 0
    assert "24,690 inputs" in (tmp_path / "reliability.md").read_text()
    rows[0]["broke"] = ["KeyError"]
    assert reliability.main(["--only", "fuzz"]) == 1
    assert "fuzz: prompts" in capsys.readouterr().err
    assert "KeyError" not in (tmp_path / "reliability.md").read_text()
