import json
import subprocess
import sys

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence

import search_env
from search_env import SearchQAEnv, SearchQAVectorEnv
from search_env.errors import ConfigError, DatasetError
from search_env.registration import ENVIRONMENTS, register_environments

FICTIONAL, HOTPOT = "SearchQA-FictionalWiki-v0", "SearchQA-HotpotQA-v0"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """Search indexes of a test are its own."""
    monkeypatch.setenv("SEARCH_ENV_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hotpotqa_folder(tmp_path):
    folder = tmp_path / "hotpotqa"
    folder.mkdir()
    for split in ("train", "dev"):
        rows = [
            {"id": f"{split}{n}", "question": f"Capital of country {n}?", "answers": [f"City {n}"], "type": "bridge",
             "gold_titles": [f"Country {n}"]}
            for n in range(3)
        ]  # fmt: skip
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    documents = [{"id": f"d{n}", "title": f"Country {n}", "text": f"Its capital is City {n}."} for n in range(3)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    return folder


@pytest.fixture
def hotpotqa_file(tmp_path):
    row = {
        "_id": "5a", "question": "Capital of Norway?", "answer": "Oslo", "type": "bridge", "level": "easy",
        "supporting_facts": [["Norway", 0]],
        "context": [["Norway", ["Its capital is Oslo."]], ["Peru", ["Its capital is Lima."]]],
    }  # fmt: skip
    path = tmp_path / "hotpot_dev_distractor_v1.json"
    path.write_text(json.dumps([row]))
    return path


def test_every_id_is_registered_once_and_registering_again_is_harmless():
    register_environments()
    assert [env_id for env_id in gym.registry if env_id.startswith("SearchQA-")] == list(ENVIRONMENTS)


def test_fictional_wiki_passes_gymnasiums_checker_with_warnings_as_errors():
    check_env(gym.make(FICTIONAL).unwrapped)


def test_hotpotqa_passes_gymnasiums_checker_with_warnings_as_errors(hotpotqa_folder, hotpotqa_file):
    for data in (hotpotqa_folder, str(hotpotqa_file)):
        check_env(gym.make(HOTPOT, data=data).unwrapped)


@pytest.mark.parametrize("dialect", ["r1-searcher-pipes", "search-r1", "research"])
def test_every_dialect_passes_gymnasiums_checker(hotpotqa_folder, dialect):
    check_env(gym.make(HOTPOT, data=hotpotqa_folder, dialect=dialect).unwrapped)


def test_an_episode_through_gym_make_with_its_wrappers(hotpotqa_folder):
    env = gym.make(HOTPOT, data=hotpotqa_folder, split="dev")
    _, info = env.reset(seed=0, options={"question": 1})
    assert info["question_id"] == "dev1" and info["hops"] == 1.0
    documents, *_ = env.step("<begin_of_query> country 1 capital <end_of_query>")
    assert "Country 1: Its capital is City 1." in documents
    assert env.step("</think> <answer> city 1 </answer>")[1:4] == (1.0, True, False)
    assert env.unwrapped.transcript.answer == "city 1"
    assert env.spec.id == HOTPOT
    env.close()


def test_the_vector_entry_point_is_the_default_and_equals_gymnasiums_sync_vector_env(hotpotqa_folder):
    envs = gym.make_vec(HOTPOT, num_envs=3, data=hotpotqa_folder)
    assert isinstance(envs, SearchQAVectorEnv)
    named = gym.make_vec(HOTPOT, num_envs=3, vectorization_mode="vector_entry_point", data=hotpotqa_folder)
    sync = gym.make_vec(HOTPOT, num_envs=3, vectorization_mode="sync", data=hotpotqa_folder)
    actions = ["<begin_of_query> capital <end_of_query>", "</think> <answer> City 1 </answer>", "?"]
    logs = [[each.reset(seed=4), each.step(actions)] for each in (envs, named, sync)]
    assert data_equivalence(logs[0], logs[1], exact=True)
    assert data_equivalence(logs[0][0], logs[2][0], exact=True)
    for ours, theirs in zip(logs[0][1], logs[2][1], strict=True):
        assert data_equivalence(ours, theirs, exact=True)


def test_async_vector_env_works_without_shared_memory(hotpotqa_file):
    envs = gym.make_vec(
        HOTPOT,
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"shared_memory": False, "context": "spawn"},
        data=hotpotqa_file,
    )
    prompts, _ = envs.reset(seed=0)
    assert "Capital of Norway?" in prompts[0]
    observations, rewards, *_ = envs.step(("<begin_of_query> Norway <end_of_query>", "</think><answer>Oslo</answer>"))
    assert "Its capital is Oslo." in observations[0] and rewards.tolist() == [0.0, 1.0]
    envs.close()


def test_ready_made_parts_go_through_gym_make(tiny_dataset, watched_retriever):
    env = gym.make(FICTIONAL, data=tiny_dataset, retriever=watched_retriever)
    assert isinstance(env.unwrapped, SearchQAEnv) and env.unwrapped.dataset is tiny_dataset
    env.reset(seed=0)
    env.step("<begin_of_query> Norway <end_of_query>")
    assert watched_retriever.batches == [(["Norway"], 3)]


def test_hotpotqa_without_data_is_one_message_that_says_how_to_get_it():
    for make in (gym.make, gym.make_vec):
        with pytest.raises(DatasetError) as caught:
            make(HOTPOT)
        message = str(caught.value)
        assert 'data="hotpotqa/hotpot_qa"' in message and "pip install 'search-env[hub]'" in message
        assert 'data="FILE"' in message and "FOLDER" in message
        assert caught.value.__cause__ is None


def test_a_wrong_id_gets_gymnasiums_own_message():
    with pytest.raises(gym.error.VersionNotFound, match="SearchQA-HotpotQA"):
        gym.make("SearchQA-HotpotQA-v9")
    with pytest.raises(gym.error.NameNotFound, match="Did you mean: `SearchQA-HotpotQA`"):
        gym.make("SearchQA-HotpotQB-v0")


def test_a_wrong_split_gets_a_suggestion(hotpotqa_folder):
    with pytest.raises(ConfigError, match=r"unknown split 'trian'. Did you mean 'train'\? Known: dev, train"):
        gym.make(HOTPOT, data=hotpotqa_folder, split="trian")
    with pytest.raises(ConfigError, match="unknown split 'trian'"):
        gym.make(FICTIONAL, split="trian")


def test_a_broken_line_is_named_through_gym_make(hotpotqa_folder):
    file = hotpotqa_folder / "train.jsonl"
    file.write_text(file.read_text().replace('["City 1"]', "[]"))
    with pytest.raises(DatasetError, match=r"train\.jsonl:2: 'answers' is an empty list"):
        gym.make(HOTPOT, data=hotpotqa_folder)


def test_importing_is_fast_and_brings_in_nothing_heavy():
    heavy = ("torch", "ray", "transformers", "tantivy", "Stemmer", "datasets", "rich", "search_agents")
    loaded = f"[name for name in {heavy} if name in sys.modules]"
    # Processor time, interpreter start included: waiting for a busy machine is not the import's doing.
    code = f"import search_env, sys, time; print({loaded}, time.process_time() < 1.0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_an_id_with_the_package_in_front_imports_it():
    code = "import gymnasium as gym; gym.make('search_env:SearchQA-HotpotQA-v0')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DatasetError: HotpotQA is not shipped" in done.stderr


def test_the_public_names_exist_and_are_few():
    assert all(hasattr(search_env, name) for name in search_env.__all__)
    assert len(search_env.__all__) <= 25
    assert search_env.__all__ == sorted(search_env.__all__)
