"""What runs where in a training run on GPUs, and whether it fits; see `search_agents.learning.memory`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_agents.config import TrainConfig
from search_agents.learning.memory import (
    RESERVE,
    ModelShape,
    cache_bytes_per_token,
    engine_memory,
    evaluation_memory,
    learner_memory,
)

__all__ = ["Plan", "Role", "make_plan"]

_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Role:
    """Processes that do the same."""

    name: str
    processes: int
    gpus: float
    """GPUs of each; 0 runs on the CPU."""
    memory: Mapping[str, int]
    """What each needs on each of its GPUs, in bytes, by what it is for."""
    limit: float
    """What each may take there, in bytes."""
    beside: bool = False
    """Whether its GPU is one that another role has."""

    @property
    def needed(self) -> int:
        """Memory of each process on each of its GPUs in bytes."""
        return sum(self.memory.values())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run on a number of GPUs."""

    shape: ModelShape
    roles: tuple[Role, ...]
    gpus: int
    episodes: int
    """Episodes at their longest that an engine's cache holds at once."""
    wanted: int
    """Episodes that an engine plays at once."""
    spread: int
    """GPUs that an engine is spread over."""

    @property
    def problems(self) -> list[str]:
        """Why it cannot run so; empty if it can."""
        found = [
            f"a {role.name} needs {role.needed / _GB:.1f} GB and may take {role.limit / _GB:.1f}: {_ADVICE[role.name]}"
            for role in self.roles
            if role.gpus and role.needed > role.limit
        ]
        used = _used(self.roles)
        if used > self.gpus:
            found.append(f"{used:g} GPUs are used and {self.gpus} are there: lower num_learners or num_env_runners")
        if self.shape.heads % self.spread:
            found.append(
                f"model.vllm.tensor_parallel_size {self.spread} does not divide the {self.shape.heads} attention heads"
            )
        if not self.episodes:
            found.append("the cache holds not one episode: raise model.vllm.kv_cache_gb")
        return found

    def text(self) -> str:
        """The plan in words and figures."""
        lines = [
            f"The model has {self.shape.parameters / 1e9:.2f} billion weights, {self.shape.layers} layers of "
            f"{self.shape.layer_parameters / 1e6:.1f} million.",
            "",
        ]
        for role in self.roles:
            own = f"{role.gpus:g} GPU{'s' if role.gpus > 1 else ''} each" if role.gpus else "no GPU"
            where = "beside others on their GPU" if role.beside else own
            taken = f"{role.needed / _GB:.1f} GB" + (f" of {role.limit / _GB:.1f}" if role.gpus else "")
            lines.append(
                f"{role.processes} x {role.name}, {where}: {taken}{' on each of them' if role.gpus > 1 else ''}"
            )
            lines += [f"    {name:<26}{value / _GB:>8.2f} GB" for name, value in role.memory.items()]
        waiting = f"; {self.wanted} are in play" if self.wanted > self.episodes else ""
        lines += [
            "",
            f"An engine's cache holds {self.episodes} episodes at their longest{waiting}.",
            f"{RESERVE:.0%} of each GPU is left for its driver and for what the allocator cannot use.",
        ]
        lines += [f"It does not fit: {problem}." for problem in self.problems] or ["It fits."]
        return "\n".join(lines)


def make_plan(config: TrainConfig, model: str, *, gpus: int, memory: float) -> Plan:
    """Work out who needs what.

    Args:
        config: The recipe.
        model: A folder with a config.json, or a hub id.
        gpus: GPUs that are there, those that the driver keeps to itself included.
        memory: Of each, in bytes.

    Raises:
        ModelError: If there is no such model.
    """
    shape, learner, rollout = ModelShape.of(model), config.learner, config.rollout
    learns = learner_memory(
        shape, config.model, learner, reference=learner.kl_coef > 0, longest=rollout.max_episode_tokens
    )
    samples = engine_memory(shape, config.model, rollout)
    per_learner = (1 if gpus else 0) if learner.num_gpus_per_learner is None else learner.num_gpus_per_learner
    room = memory * (1 - RESERVE)
    if rollout.num_env_runners:
        share = config.gpus_per_env_runner
        # Several of them on one GPU have their share of it; one that has several and is not spread uses the first.
        apart = Role(
            name="runner", processes=rollout.num_env_runners, gpus=share, memory=samples, limit=room * min(1.0, share)
        )
        roles: tuple[Role, ...] = (_learners(learner.num_learners, per_learner, learns, room), apart)
    elif learner.num_learners:
        here = Role(name="runner", processes=1, gpus=0, memory=samples, limit=room)  # RLlib gives the driver no GPU
        roles = (_learners(learner.num_learners, per_learner, learns, room), here)
    else:
        if config.model.engine == "transformers":
            del samples["weights"]  # it samples with the learner's
        both = learns | {f"engine's {name}": value for name, value in samples.items()}
        roles = (Role(name="learner", processes=1, gpus=per_learner, memory=both, limit=room),)
    if rollout.num_env_runners or learner.num_learners:
        roles = (*roles, _driver(roles, evaluation_memory(shape, config), gpus if per_learner else 0, room))
    cache = engine_memory(shape, config.model, rollout)["key-value cache"]
    return Plan(
        shape=shape,
        roles=roles,
        gpus=gpus,
        episodes=cache // (cache_bytes_per_token(shape, config.model) * rollout.max_episode_tokens),
        wanted=rollout.num_envs,
        spread=config.model.vllm.tensor_parallel_size if config.model.engine == "vllm" else 1,
    )


def _learners(number: int, gpus: int, memory: Mapping[str, int], room: float) -> Role:
    return Role(name="learner", processes=max(1, number), gpus=gpus, memory=memory, limit=room)


def _driver(roles: tuple[Role, ...], memory: Mapping[str, int], gpus: int, room: float) -> Role:
    """The driver, which evaluates a copy of the model: on a GPU that nobody has, or beside those who need most."""
    own, beside = gpus - _used(roles) >= 1, 0.0
    if gpus and not own:
        beside = max((role.needed / min(1.0, role.gpus) for role in roles if role.gpus), default=0.0)
    limit = max(0.0, room - beside)
    return Role(name="driver", processes=1, gpus=min(1, gpus), memory=memory, limit=limit, beside=beside > 0)


def _used(roles: tuple[Role, ...]) -> float:
    return sum(role.processes * role.gpus for role in roles if not role.beside)


_ADVICE = {
    "learner": "try learner.gradient_checkpointing, a smaller learner.micro_batch_tokens, learner.sharded over more "
    "learner.num_learners, or learner.lora",
    "runner": "try model.vllm.dtype bfloat16, a smaller model.vllm.kv_cache_gb (or rollout.num_envs), "
    "model.vllm.tensor_parallel_size, or larger GPUs",
    "driver": "it evaluates there; leave it a GPU of its own (fewer learner.num_learners or rollout.num_env_runners), "
    "or try a smaller evaluation.batch_size, or evaluation.baselines false",
}
