"""A process reward model: how good each step of a solution is, read from the state at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open

from search_agents.models import find_model, model_fingerprint
from search_env.errors import ModelError

__all__ = ["ProcessRewardModel"]

_HEADS = ("v_head.summary", "score")


class ProcessRewardModel:
    """A language model with a head of one number a token (Skywork-o1-Open-PRM, and what is stored like it).

    Args:
        body: The model without a head over the vocabulary.
        head: From hidden state to one number.
        tokenizer: Its tokenizer.
        fingerprint: Tells it from others.
    """

    def __init__(self, body: Any, head: torch.nn.Linear, tokenizer: Any, fingerprint: str) -> None:
        self._body, self._head, self._tokenizer = body, head, tokenizer
        self.fingerprint = fingerprint

    @classmethod
    def load(cls, name: str, *, device: str = "cpu") -> ProcessRewardModel:
        """Load a folder or hub id.

        Args:
            name: Its weights hold, beside the model's, those of a head: ``v_head.summary`` as Skywork publishes it, or
                ``score`` as a token classifier of one label has it.
            device: Where the weights go.

        Raises:
            ModelError: If there is no such model, or it has no head.
        """
        folder = find_model(name)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            body = (
                transformers.AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
                .to(device)
                .eval()
            )
            head = _read_head(folder)
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"cannot load the process reward model {name!r}: {error}") from error
        return cls(body, head.to(device=device, dtype=torch.float32), tokenizer, model_fingerprint(folder))

    @torch.inference_mode()
    def step_rewards(self, problem: str, response: str) -> tuple[float, ...]:
        """The reward of each step of a response: the sigmoid of the head's number at the line break after it.

        Args:
            problem: What the response answers.
            response: Its lines are the steps; blank ones are none.

        Returns:
            One number in (0, 1) a step. Steps beyond the model's context have none.
        """
        encode = self._tokenizer.encode
        separator = encode("\n", add_special_tokens=False)[-1]
        start = [self._tokenizer.bos_token_id] if self._tokenizer.bos_token_id is not None else []
        ids = [*start, *encode(f"{problem}\n", add_special_tokens=False)]
        ends = []
        for step in filter(str.strip, response.split("\n")):
            ids += [*encode(step, add_special_tokens=False, split_special_tokens=True), separator]
            ends.append(len(ids) - 1)
        limit = getattr(self._body.config, "max_position_embeddings", None) or len(ids)
        ends = [end for end in ends if end < limit]
        if not ends:
            return ()
        hidden = self._body(input_ids=torch.tensor([ids[:limit]], device=self._body.device)).last_hidden_state[0]
        rewards: list[float] = torch.sigmoid(self._head(hidden[ends].float())[:, 0]).tolist()
        return tuple(rewards)


def _read_head(folder: str) -> torch.nn.Linear:
    files = sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else _downloaded(folder)
    found: dict[str, torch.Tensor] = {}
    for file in files:
        with safe_open(str(file), framework="pt") as weights:
            names = [f"{head}.{kind}" for head in _HEADS for kind in ("weight", "bias")]
            found |= {name: weights.get_tensor(name) for name in names if name in weights.keys()}  # noqa: SIM118
    head = next((head for head in _HEADS if f"{head}.weight" in found), None)
    if head is None or found[f"{head}.weight"].shape[0] != 1:
        raise ValueError(
            f"its weights hold no head of one number ({' or '.join(f'{head}.weight' for head in _HEADS)}). Give a "
            "process reward model such as Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B."
        )
    weight, bias = found[f"{head}.weight"], found.get(f"{head}.bias")
    linear = torch.nn.Linear(weight.shape[1], 1, bias=bias is not None)
    linear.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return linear


def _downloaded(name: str) -> list[Path]:
    """The weights of a hub id."""
    from huggingface_hub import snapshot_download

    return sorted(Path(snapshot_download(name, allow_patterns="*.safetensors")).glob("*.safetensors"))
