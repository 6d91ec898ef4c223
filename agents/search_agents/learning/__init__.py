"""Learning: Reinforce++ and supervised training on RLlib, from advantages to checkpoints.

The names of this package are loaded when they are first used, because RLlib takes
seconds to import and most of the package does not need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_agents.learning.algorithm import ReinforcePP
    from search_agents.learning.algorithm_config import ReinforcePPConfig
    from search_agents.learning.env_runner import TextEnvRunner
    from search_agents.learning.learner import ReinforcePPTorchLearner
    from search_agents.learning.rl_module import LLMModule
    from search_agents.learning.supervised import Supervised, SupervisedConfig

__all__ = [
    "LLMModule",
    "ReinforcePP",
    "ReinforcePPConfig",
    "ReinforcePPTorchLearner",
    "Supervised",
    "SupervisedConfig",
    "TextEnvRunner",
]

_MODULES = {
    "LLMModule": "rl_module",
    "ReinforcePP": "algorithm",
    "ReinforcePPConfig": "algorithm_config",
    "ReinforcePPTorchLearner": "learner",
    "Supervised": "supervised",
    "SupervisedConfig": "supervised",
    "TextEnvRunner": "env_runner",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
