"""The quick ways to make an action and a turn."""

import dataclasses
import pickle

import pytest

from search_env.types import Action, ActionKind, Document, Hit, Turn, make_action, make_turn

HITS = (Hit(document=Document(id="d", title="Norway", text="Its capital is Oslo."), score=1.0),)
SEARCH = Action(kind=ActionKind.SEARCH, text="capital")


@pytest.mark.parametrize(
    ("quick", "made"),
    [
        (make_action(ActionKind.SEARCH, "capital"), SEARCH),
        (make_action(ActionKind.MALFORMED, problem="?"), Action(kind=ActionKind.MALFORMED, problem="?")),
        (make_turn("s", SEARCH, HITS, "o"), Turn(segment="s", action=SEARCH, hits=HITS, observation="o")),
    ],
)
def test_they_make_what_the_constructors_make(quick, made):
    assert (quick, hash(quick), repr(quick)) == (made, hash(made), repr(made))
    assert dataclasses.asdict(quick) == dataclasses.asdict(made)
    assert dataclasses.replace(quick) == pickle.loads(pickle.dumps(quick)) == made
    for field in dataclasses.fields(made):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(quick, field.name, None)
