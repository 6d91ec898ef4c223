"""Where a model's name leads: the shipped model, a folder, a run, or a hub id.

A trained model's folder also holds ``search_env.json``: the protocol (dialect, prompt,
budgets) that it was trained with, so that the folder alone is enough to use it well.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_env.errors import ModelError

if TYPE_CHECKING:
    from search_agents.config import SFTConfig, TrainConfig
    from search_agents.config.sections import ModelSection

__all__ = ["PROTOCOL_FILE", "SHIPPED", "find_model", "model_fingerprint", "read_protocol", "write_protocol"]

PROTOCOL_FILE = "search_env.json"
_NOT_HASHED = (PROTOCOL_FILE, "pretraining.json")  # they tell of the model and do not change what it says
_LENGTHS = {"max_segment_tokens", "max_episode_tokens"}
_ROOMY = {"max_segment_tokens": 256, "max_episode_tokens": 2048}
SHIPPED = {"tiny": Path(__file__).parent / "fictional-wiki"}


def find_model(name: str) -> str:
    """Resolve what the user calls a model to what `from_pretrained` loads.

    Args:
        name: A shipped model's name, a model folder, a run folder, a checkpoint or a hub id.

    Returns:
        A folder, or the hub id as it was given.

    Raises:
        ModelError: If it is a path and holds no model.
    """
    if name in SHIPPED and not Path(name).exists():
        if not SHIPPED[name].is_dir():
            raise ModelError(
                f"the shipped model {name!r} is missing from this installation. Give --model FOLDER_OR_ID."
            )
        return str(SHIPPED[name])
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(_model_of_run(folder) if (folder / "meta.json").is_file() else folder)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or folder.exists():
        raise ModelError(
            f"no model folder at {name!r}. Give a folder with config.json and model.safetensors, "
            f"a run folder, a hub id, or one of: {', '.join(SHIPPED)}."
        )
    return name


def model_fingerprint(model: str) -> str:
    """Tell models apart: a hash of config, weights and tokenizer; a hub id stands for itself.

    Args:
        model: A folder or hub id, as `find_model` returns it.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json"), *folder.glob("*.jinja")]):
        if file.name in _NOT_HASHED:
            continue
        with file.open("rb") as stream:
            digest.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def read_protocol(section: ModelSection) -> tuple[dict[str, Any], str]:
    """The protocol of a model, as sections of a config.

    Args:
        section: The model as a config names it.

    Returns:
        What was stored with the model. Without that, prompts that explain the protocol, in the form that suits the
        model, and budgets that leave room for them. Then where that comes from, for messages.

    Raises:
        ModelError: If there is no such model, or the stored file is broken.
    """
    if section.server is not None:
        style = "instruct" if section.server.api == "chat" else "base"
        return {"env": {"prompt": style}, "rollout": _ROOMY}, section.server.url
    model = Path(find_model(section.path))
    file = model / PROTOCOL_FILE
    if not file.is_file():
        return {"env": {"prompt": "instruct" if _has_chat_template(model) else "base"}, "rollout": _ROOMY}, str(file)
    try:
        return json.loads(file.read_text(encoding="utf-8")), str(file)
    except ValueError as error:
        raise ModelError(f"{file}: is not JSON: {error}. Delete the file to use the model without it.") from None


def write_protocol(folder: Path, config: TrainConfig | SFTConfig) -> None:
    """Store the protocol of a config, and which questions were held out, with the model that was trained with it."""
    protocol = config.model_dump(mode="json", include={"env": True, "rollout": _LENGTHS, "evaluation": {"split"}})
    (folder / PROTOCOL_FILE).write_text(json.dumps(protocol, indent=2) + "\n", encoding="utf-8")


def _has_chat_template(folder: Path) -> bool:
    if not folder.is_dir():
        return True  # a hub id: nearly every model that is named by one has been tuned for instructions
    file = folder / "tokenizer_config.json"
    listed = file.is_file() and "chat_template" in file.read_text(encoding="utf-8", errors="replace")
    return listed or (folder / "chat_template.jinja").is_file()


def _model_of_run(run: Path) -> Path:
    if (run / "model").is_dir():
        return run / "model"
    complete = sorted(mark.parent for mark in run.glob("checkpoints/step_*/COMPLETE"))
    if not complete:
        raise ModelError(f"the run {run} has no model yet. Go on with it: search-env resume {run}")
    return complete[-1]
