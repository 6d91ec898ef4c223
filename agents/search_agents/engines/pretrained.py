"""Loads a causal language model with its tokenizer, or says in one message what is wrong with it.

Weights are read from safetensors only and no code of a model repository is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from search_env.errors import ConfigError, MissingDependencyError, ModelError, unknown_name

__all__ = ["eos_ids", "find_device", "load_config", "load_pretrained", "load_tokenizer"]

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_ADAPTER = "adapter_config.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def find_device(name: str) -> str:
    """The device that is meant.

    Args:
        name: ``auto`` takes a GPU if there is one; ``cpu`` and ``cuda`` stand for themselves.

    Raises:
        ConfigError: If a GPU is wanted and torch finds none.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ConfigError(
            f"model.device is 'cuda', but torch {torch.__version__} finds no GPU. Give 'auto' or 'cpu', or install the "
            "build of torch for this machine's driver: https://pytorch.org/get-started."
        )
    return "cuda" if found and name != "cpu" else "cpu"


def load_pretrained(name_or_path: str | Path, *, dtype: str = "auto", device: str = "cpu") -> tuple[Any, Any]:
    """Load a model and its tokenizer.

    Args:
        name_or_path: A folder as `save_pretrained` writes it, or a hub id. Of a folder with a LoRA adapter, the model
            that it was trained on, with the adapter merged into its weights (by peft, which must be installed).
        dtype: Of the weights: ``auto`` (as saved), ``float32``, ``bfloat16`` or ``float16``.
        device: Where the weights go, for example ``cpu`` or ``cuda``.

    Returns:
        The model, in evaluation mode, and the tokenizer.

    Raises:
        MissingDependencyError: If the folder holds an adapter and peft is not installed.
        ModelError: If there is no such folder, a file is missing from it, or the id cannot be loaded.
    """
    if dtype not in _DTYPES:
        raise ModelError(unknown_name("dtype", dtype, _DTYPES))
    name = _resolve(name_or_path)
    with _one_message(name):
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        base = _base_of(name)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            base,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
        )
    return (_merged(model, name) if base != name else model).to(device).eval(), tokenizer


def load_config(name_or_path: str | Path) -> Any:
    """Read what a model is like; its weights need not be there.

    Args:
        name_or_path: A folder with a config.json, or a hub id.

    Raises:
        ModelError: If there is none.
    """
    name = str(Path(name_or_path).expanduser()) if _is_path(name_or_path) else str(name_or_path)
    with _one_message(name):
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)


def load_tokenizer(name_or_path: str | Path) -> tuple[str, Any, Any]:
    """Load all of a model but its weights, for an engine that loads those itself.

    Args:
        name_or_path: A folder as `save_pretrained` writes it, or a hub id.

    Returns:
        What to load the weights by, the tokenizer, and the generation config.

    Raises:
        ModelError: If there is no such folder, a file is missing from it, or the id cannot be loaded.
    """
    name = _resolve(name_or_path)
    with _one_message(name):
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        try:
            generation = transformers.GenerationConfig.from_pretrained(name)
        except OSError:  # there is no file of its own: what the model's config says is meant
            generation = transformers.GenerationConfig.from_model_config(config)
    return name, tokenizer, generation


def eos_ids(generation: Any, tokenizer: Any) -> set[int]:
    """Ids that end a text, by the generation config of a model (None if it has none) and by its tokenizer."""
    listed = getattr(generation, "eos_token_id", None)
    ids = listed if isinstance(listed, list) else [listed]
    return {token_id for token_id in [*ids, tokenizer.eos_token_id] if token_id is not None}


def _resolve(name_or_path: str | Path) -> str:
    if not _is_path(name_or_path):
        return str(name_or_path)
    folder = Path(name_or_path).expanduser()
    _check_folder(folder)
    return str(folder)


@contextmanager
def _one_message(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"cannot load the model {name!r}: {_first_line(error)} Give a folder with config.json, *.safetensors and "
            "tokenizer.json, or the hub id of a causal language model (offline: one that is in the local cache)."
        ) from error


def _base_of(folder: str) -> str:
    """The model that an adapter belongs to; anything but the folder of an adapter stands for itself."""
    file = Path(folder) / _ADAPTER
    if not file.is_file():
        return folder
    return str(json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"])


def _merged(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingDependencyError(
            f"{adapter} holds a LoRA adapter, which needs peft. Type: pip install 'search-env[lora]'."
        ) from error
    return PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)


def _is_path(name_or_path: str | Path) -> bool:
    text = str(name_or_path)
    looks_like_one = text.startswith(("/", ".", "~")) or text.count("/") > 1
    return isinstance(name_or_path, Path) or looks_like_one or Path(text).is_dir()


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(
            f"there is no model folder {str(folder)!r}. Give one that exists, or a hub id such as 'org/name'."
        )
    present = sorted(file.name for file in folder.iterdir())
    adapter = _ADAPTER in present  # which names the model that it belongs to
    needed = {
        "config.json": adapter or "config.json" in present,
        "weights (*.safetensors)": any(name.endswith(".safetensors") for name in present)
        and (not adapter or "adapter_model.safetensors" in present),  # else peft takes adapter_model.bin
        "a tokenizer (tokenizer.json)": any(name in present for name in _TOKENIZER_FILES),
    }
    missing = [what for what, there in needed.items() if not there]
    if missing:
        raise ModelError(
            f"the model folder {str(folder)!r} lacks {' and '.join(missing)}; it holds "
            f"{', '.join(present) or 'nothing'}. Write one with model.save_pretrained(folder) and "
            "tokenizer.save_pretrained(folder)."
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
