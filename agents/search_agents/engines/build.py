"""Makes the engine that a config describes."""

from __future__ import annotations

from search_agents.config.sections import ModelSection
from search_agents.engines.base import Engine
from search_agents.models import find_model, model_fingerprint

__all__ = ["make_engine", "model_identity"]


def make_engine(section: ModelSection) -> Engine:
    """Load the model, or get ready to ask its server.

    Raises:
        ConfigError: If a setting is wrong.
        MissingDependencyError: If a package is not installed.
        ModelError: If the model cannot be used.
    """
    if section.server is not None:
        from search_agents.engines.openai import OpenAIEngine

        return OpenAIEngine(section.path, section.server)
    if section.engine == "vllm":
        from search_agents.engines.vllm import VLLMEngine  # it brings torch, too

        settings = section.vllm
        return VLLMEngine(
            find_model(section.path),
            dtype=settings.dtype or section.dtype,
            max_context=settings.max_context,
            kv_cache_gb=settings.kv_cache_gb,
            tensor_parallel_size=settings.tensor_parallel_size,
        )
    from search_agents.engines.pretrained import find_device  # it brings torch
    from search_agents.engines.transformers import TransformersEngine

    return TransformersEngine.from_pretrained(
        find_model(section.path),
        dtype=section.dtype,
        device=find_device(section.device),
        continuous=section.continuous,
    )


def model_identity(section: ModelSection) -> str:
    """What tells the model from others: see `model_fingerprint`; a server's model is known by its name only.

    Raises:
        ModelError: If there is no such model.
    """
    if section.server is not None:
        return f"{section.path} at {section.server.url}"
    return model_fingerprint(find_model(section.path))
