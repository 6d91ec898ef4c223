"""Configs: sections with defaults, YAML recipes, dotted flags; checked before anything runs."""

from search_agents.config.ablation import AblationConfig
from search_agents.config.load import Override, differing_keys, load_config, parse_flags, parse_setting
from search_agents.config.recipes import find_recipe, recipes
from search_agents.config.schema import ComparisonConfig, EvalConfig, JudgeConfig, SampleConfig, SFTConfig, TrainConfig

__all__ = [
    "AblationConfig",
    "ComparisonConfig",
    "EvalConfig",
    "JudgeConfig",
    "Override",
    "SFTConfig",
    "SampleConfig",
    "TrainConfig",
    "differing_keys",
    "find_recipe",
    "load_config",
    "parse_flags",
    "parse_setting",
    "recipes",
]
