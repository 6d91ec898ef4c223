"""Reading a model, a checkpoint, an index or a config runs no code out of it."""

from __future__ import annotations

import ast
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import search_agents
from search_agents.engines.pretrained import load_pretrained, load_tokenizer
from search_agents.models import find_model

import search_env
from search_env.errors import SearchEnvError

PACKAGES = [Path(package.__file__).parent for package in (search_env, search_agents)]
RUNS_CODE = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "dill.load"),
    *("marshal.load", "marshal.loads", "shelve.open", "joblib.load", "torch.load", "torch.jit.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "eval", "exec", "os.system", "os.popen"),
}
READS_WEIGHTS = ("SentenceTransformer", "CrossEncoder")
NO_WEIGHTS = ("AutoTokenizer", "AutoConfig", "GenerationConfig", "PreTrainedTokenizerFast")
OURS = ("TransformersEngine", "VLLMEngine", "RewardModel", "PeftModel")


def calls() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Every call in both packages: where, what, and its keyword arguments."""
    for package in PACKAGES:
        for file in sorted(package.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    keywords = {word.arg or "**": ast.unparse(word.value) for word in node.keywords}
                    yield f"{file.name}:{node.lineno}", ast.unparse(node.func), keywords


def test_nothing_in_the_packages_unpickles_or_evaluates() -> None:
    """Risk 9: code execution by pickle, YAML, eval or the shell."""
    found = list(calls())
    assert len(found) > 5000
    assert [(where, what) for where, what, _ in found if what in RUNS_CODE] == []
    assert [where for where, _, words in found if words.get("shell") == "True"] == []
    assert [where for where, _, words in found if words.get("allow_pickle") == "True"] == []
    assert [where for where, _, words in found if words.get("weights_only") == "False"] == []
    assert [where for where, _, words in found if words.get("trust_remote_code", "False") != "False"] == []


def test_every_model_is_read_from_safetensors_and_without_code_of_its_repository() -> None:
    """Risk 9: pickled weights, and code beside them."""
    seen = 0
    for where, what, words in calls():
        owner, _, method = what.rpartition(".")
        kind = owner.rpartition(".")[2]
        if what.endswith(READS_WEIGHTS):
            assert words["model_kwargs"] == "{'use_safetensors': True}", where
        elif method == "from_pretrained" and not kind.startswith((*OURS, "cls", "self")):
            assert words.get("use_safetensors") == "True" or kind in NO_WEIGHTS, where
            assert words.get("trust_remote_code") == "False" or not kind.startswith(("Auto", "kind")), where
        else:
            continue
        seen += 1
    assert seen > 15


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(find_model("tiny"), folder)
    return folder


def plant(folder: Path, mark: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(pickle.dumps(Evil(mark)))


def test_the_trap_works(tmp_path: Path) -> None:
    """Risk 9: what is planted in these tests would leave its mark."""
    plant(tmp_path, tmp_path / "mark", "evil.pkl")
    pickle.loads((tmp_path / "evil.pkl").read_bytes())
    assert (tmp_path / "mark").exists()


def test_pickles_beside_the_weights_are_not_opened(model: Path, tmp_path: Path) -> None:
    """Risk 9: a folder with a good model and planted pickles."""
    names = ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth", "algorithm_state.pkl")
    plant(model, tmp_path / "mark", *names, "adapter_model.bin")
    load_pretrained(model)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl", "adapter_model.bin"])
def test_a_model_of_pickled_weights_is_refused(model: Path, tmp_path: Path, name: str) -> None:
    """Risk 9: a folder whose weights are a pickle."""
    (model / "model.safetensors").unlink()
    plant(model, tmp_path / "mark", name)
    with pytest.raises(SearchEnvError, match="safetensors"):
        load_pretrained(model)
    assert not (tmp_path / "mark").exists()


def test_an_adapter_of_pickled_weights_is_refused(model: Path, tmp_path: Path) -> None:
    """Risk 9: a LoRA adapter whose weights are a pickle, beside weights that are not."""
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "x"}')
    plant(model, tmp_path / "mark", "adapter_model.bin")
    with pytest.raises(SearchEnvError, match="safetensors"):
        load_pretrained(model)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("load", [load_pretrained, load_tokenizer])
def test_code_of_a_model_folder_is_not_run(model: Path, tmp_path: Path, load: Any) -> None:
    """Risk 9: a model that brings the code of its own architecture."""
    (model / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\nclass Evil: pass\n")
    auto = '{"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", null]}'
    (model / "config.json").write_text(f'{{"model_type": "evil", "auto_map": {auto}}}')
    with pytest.raises(SearchEnvError):
        load(model)
    assert not (tmp_path / "mark").exists()


def test_code_of_an_encoder_folder_is_not_run(tmp_path: Path) -> None:
    """Risk 9: an encoder of dense retrieval that names a class of its own."""
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("faiss")
    from search_env.retrieval import get_retriever
    from search_env.types import Document

    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\nclass Evil: pass\n")
    (encoder / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]')
    with pytest.raises(SearchEnvError):
        get_retriever({"name": "dense", "model": str(encoder)}, (Document(id="1", title="a", text="b"),)).search(
            ["a"], 1
        )
    assert not (tmp_path / "mark").exists()


def test_a_config_is_data(tmp_path: Path) -> None:
    """Risk 9: YAML that would make an object."""
    from search_agents.config.load import read_yaml

    file = tmp_path / "evil.yaml"
    file.write_text(
        f"run: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{tmp_path}/mark]]\n"
    )
    with pytest.raises(SearchEnvError, match="YAML"):
        read_yaml(file)
    assert not (tmp_path / "mark").exists()
