"""Low-rank adapters in a model, by `peft` (LoRA: arXiv 2106.09685).

The adapters lie in the model's own layers, so engine and learner run the same model, and
the model without them is the reference for a KL, at no memory of its own.

Adapters are in float32 whatever the model is in: an optimizer's steps are mostly smaller
than what bfloat16 tells apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from search_env.errors import MissingDependencyError, ModelError

__all__ = ["add_lora", "load_adapter", "merged_weights", "without_adapter"]

_PREFIX = "base_model.model."  # of names in a stored adapter
_BASE, _ADAPTER = ".base_layer.", ".lora_"  # in the names of what an adapter lies on, and of its own
_ADAPTER_FILE = "adapter_model.safetensors"


def add_lora(model: Any, settings: Mapping[str, Any], *, seed: int) -> None:
    """Put new adapters, in float32, into every linear layer but the output, and freeze all else.

    Args:
        model: A causal language model of transformers.
        settings: `rank`, and `alpha`: what an adapter adds is scaled by alpha / rank.
        seed: Of their first halves; the second are 0, so the model's output is unchanged.

    Raises:
        MissingDependencyError: If peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingDependencyError("learner.lora needs peft. Type: pip install 'search-env[lora]'.") from error
    config = LoraConfig(
        r=settings["rank"], lora_alpha=settings["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(config)
    for param in model.parameters():
        if param.requires_grad:
            param.data = param.data.float()
    if (folder := Path(model.name_or_path)).is_dir():  # what is stored with the adapters must hold from any folder
        config.base_model_name_or_path = str(folder.resolve())


def load_adapter(model: Any, folder: str) -> None:
    """Take over stored adapters, in place.

    Args:
        model: A model with adapters of the same shape.
        folder: As the model's own `save_pretrained` writes it.

    Raises:
        ModelError: If they are those of another model.
    """
    own = {name.replace(".default.", "."): param for name, param in model.named_parameters() if param.requires_grad}
    stored = {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(f"{folder}/{_ADAPTER_FILE}").items()}
    if {name: param.shape for name, param in own.items()} != {name: each.shape for name, each in stored.items()}:
        raise ModelError(f"the adapters in {folder} are those of another model, or of another learner.lora.rank.")
    with torch.no_grad():
        for name, param in own.items():
            param.copy_(stored[name])


def merged_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of the model without adapters that computes what this one does: W + (alpha / rank) B A.

    Each is merged as it is asked for, so no two need live at once, and in the format of W, as peft merges for good.

    Args:
        model: A model with adapters.

    Yields:
        A weight with its name in the model without adapters; of a weight without adapters, the model's own tensor.
    """
    for name, weight in model.named_parameters():
        layer, wrapped, kind = name.rpartition(_BASE)
        if not wrapped:
            if _ADAPTER not in name:
                yield name, weight
        elif kind != "weight":
            yield f"{layer}.{kind}", weight
        else:
            yield f"{layer}.weight", _merged(model.get_submodule(layer), weight)


@torch.no_grad()
def _merged(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    merged = weight.clone()
    for adapter in layer.active_adapters:
        merged += layer.get_delta_weight(adapter).to(weight.dtype)
    return merged


@contextmanager
def without_adapter(model: Any) -> Iterator[None]:
    """Within the block the model is that without its adapters."""
    trained = [param for param in model.parameters() if param.requires_grad]
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()
        for param in trained:
            param.requires_grad_(True)
