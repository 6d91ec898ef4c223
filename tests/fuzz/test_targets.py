"""The inputs that once broke something, the seeds, and random changes of them: the short form of `make fuzz`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
SPEC = importlib.util.spec_from_file_location("fuzz_targets", HERE / "targets.py")
targets = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(targets)

CORPUS = {name: sorted((HERE / "corpus" / name).iterdir()) for name in targets.TARGETS}


@st.composite
def changed(draw: Callable, seeds: list[bytes]) -> bytes:
    """A seed with some bytes of it replaced, or any bytes."""
    seed = draw(st.sampled_from(seeds))
    begin = draw(st.integers(0, len(seed)))
    end = draw(st.integers(begin, min(len(seed), begin + 20)))
    put = draw(st.one_of(st.binary(max_size=20), st.sampled_from(seeds).map(lambda other: other[:40])))
    return (seed[:begin] + put + seed[end:]) or b"\0"


@pytest.mark.parametrize("path", [path for paths in CORPUS.values() for path in paths], ids=lambda path: path.name)
def test_no_kept_input_breaks_its_target(path: Path) -> None:
    targets.TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", targets.TARGETS)
def test_no_changed_input_breaks_its_target(name: str) -> None:
    seeds = [path.read_bytes() for path in CORPUS[name]]

    @settings(max_examples=150)
    @given(changed(seeds))
    def check(data: bytes) -> None:
        targets.TARGETS[name](data)

    check()


def test_a_target_lets_no_other_error_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the fuzzer would find nothing."""

    def broken(*arguments: object) -> None:
        raise KeyError("row")

    monkeypatch.setattr(targets, "read_questions", broken)
    with pytest.raises(KeyError):
        targets.questions(b"\0{}")


def test_the_corpus_is_small_and_has_inputs_for_every_target() -> None:
    files = [path for paths in CORPUS.values() for path in paths]
    assert all(CORPUS.values()) and {path.name for path in (HERE / "corpus").iterdir()} == set(targets.TARGETS)
    assert sum(path.stat().st_size for path in files) < 100_000
