import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import CustomSpaceError
from gymnasium.spaces import Text, utils
from gymnasium.vector.utils import batch_space, create_shared_memory

from search_env.errors import ConfigError
from search_env.spaces import UnicodeText


@pytest.mark.parametrize("text", ["", "é", "😀" * 5, "<think>", "a\nb\0", "\u202e", "x" * 10])
def test_every_string_up_to_the_length_is_a_member(text):
    assert text in UnicodeText(10)


@pytest.mark.parametrize("thing", ["x" * 11, b"bytes", None, 3, ["a"]])
def test_longer_strings_and_other_types_are_no_members(thing):
    assert thing not in UnicodeText(10)


def test_sampling_draws_the_examples_and_follows_the_seed():
    space = UnicodeText(10, examples=("one", "two"), seed=1)
    first = [space.sample() for _ in range(20)]
    space.seed(1)
    assert [space.sample() for _ in range(20)] == first
    assert set(first) == {"one", "two"}


def test_sampling_with_a_length_mask_is_that_of_text():
    assert len(UnicodeText(10, seed=0).sample(mask=(4, None))) == 4


@pytest.mark.parametrize("examples", [(), ("longer than ten",)])
def test_examples_must_be_members(examples):
    with pytest.raises(ConfigError, match="at most 10 characters"):
        UnicodeText(10, examples=examples)


def test_copies_and_pickles_are_equal_and_other_lengths_are_not():
    space = UnicodeText(10, examples=("a",))
    assert copy.deepcopy(space) == space == pickle.loads(pickle.dumps(space))
    assert space != UnicodeText(11, examples=("a",))
    assert space != Text(10)
    assert repr(space) == "UnicodeText(10)"


def test_it_is_a_gymnasium_text_space_and_can_be_batched():
    assert isinstance(UnicodeText(10), Text)
    assert ("é", "ß") in batch_space(UnicodeText(10), 2)


def test_shared_memory_is_refused_with_the_remedy():
    with pytest.raises(CustomSpaceError, match="shared_memory=False"):
        create_shared_memory(UnicodeText(10))


def test_flattening_and_back_keeps_every_character():
    space = UnicodeText(12)
    flat = utils.flatten(space, "dé 😀\n")
    assert flat in utils.flatten_space(space)
    assert flat.dtype == np.int32 and flat.shape == (12,)
    assert utils.unflatten(space, flat) == "dé 😀\n"


class _Echo(gym.Env):
    observation_space = UnicodeText(30)
    action_space = UnicodeText(30)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return "Grüße", {}

    def step(self, action):
        return action, 0.0, False, False, {}


def test_async_vector_env_points_to_shared_memory_false_instead_of_returning_garbage():
    with pytest.raises(ValueError, match="shared_memory=False"):
        gym.vector.AsyncVectorEnv([_Echo, _Echo], context="spawn")
