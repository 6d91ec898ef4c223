"""A reward model over text: one number for what a method did, learned from better and worse examples.

Any encoder or causal language model reads a text; a linear head turns its embedding of
the text into a logit. Encoders are pooled by the mean over their tokens, causal models
at the last token, where a checkpoint for sequence classification has its own head too.
Trained in pairs it is the critic of CR-Planner, trained on targets the process reward
model of ReARTeR.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import transformers
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from torch.nn.utils.rnn import pad_sequence
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from search_agents.config.sections import Section
from search_env.errors import ConfigError, MissingDependencyError, ModelError

__all__ = ["RewardModel", "RewardTraining", "pairwise_loss", "pointwise_loss"]

_DESCRIPTION, _HEAD = "reward_model.json", "head.safetensors"


class RewardTraining(Section):
    """How a reward model is trained."""

    part: Literal["all", "head"] = "all"
    """all: every weight. head: the linear head alone, over embeddings that are computed once; it takes seconds, and
    cannot learn how two parts of a text bear on each other."""
    epochs: PositiveInt = 3
    """Passes over the examples; a head alone wants about 100."""
    learning_rate: PositiveFloat = 5e-5
    """Of the encoder, at its highest: it rises over the first tenth of the steps and falls to 0."""
    head_learning_rate: PositiveFloat = 1e-3
    """Of the head, likewise."""
    batch_size: PositiveInt = 16
    """Pairs, or texts with their targets, of one step."""
    weight_decay: NonNegativeFloat = 0.01
    """Of AdamW."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this norm."""
    seed: NonNegativeInt = 0
    """Orders the examples and draws the dropout."""


def pairwise_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Mean of ``-log sigmoid(chosen - rejected)``, the ranking loss of Bradley and Terry.

    Args:
        chosen: Logits of the better texts, [pairs].
        rejected: Logits of the worse ones, [pairs].
    """
    return -logsigmoid(chosen - rejected).mean()


def pointwise_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy of ``sigmoid(logits)`` and targets in [0, 1], both [texts]."""
    return binary_cross_entropy_with_logits(logits, targets)


class RewardModel:
    """Scores texts; make one with `from_pretrained` or `load`.

    Args:
        encoder: A transformer that returns hidden states.
        tokenizer: Its tokenizer; it is set to cut a long text at its beginning, since what is judged stands at the end.
        head: A linear layer from the hidden size to 1, float32.
        pooling: ``mean`` over the tokens, or the ``last`` one.
        max_tokens: The most tokens of a text that are read.
        base: What the encoder was loaded from.
    """

    def __init__(
        self, encoder: Any, tokenizer: Any, head: torch.nn.Linear, *, pooling: str, max_tokens: int, base: str
    ) -> None:
        tokenizer.truncation_side = "left"
        self._encoder, self._tokenizer, self._head = encoder.eval(), tokenizer, head.to(encoder.device)
        self._pooling, self._max_tokens, self._base = pooling, max_tokens, base

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        max_tokens: int = 512,
        dtype: str = "float32",
        device: str = "cpu",
        lora_rank: int | None = None,
        seed: int = 0,
    ) -> RewardModel:
        """A reward model with a random head, or the one of a causal checkpoint for sequence classification.

        Args:
            name_or_path: A Transformers folder or hub id; sentence encoders are such folders too.
            max_tokens: The most tokens of a text that are read, the last ones; never more than the encoder's positions.
            dtype: Of the encoder's weights.
            device: Where it computes.
            lora_rank: Train low-rank adapters of this rank instead of the encoder's weights; needs ``peft``.
            seed: Draws the head and the adapters.

        Raises:
            ModelError: If the encoder cannot be loaded.
            MissingDependencyError: If adapters are asked for and ``peft`` is not installed.
        """
        encoder, tokenizer, head = _load(str(name_or_path), dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = head or torch.nn.Linear(encoder.config.hidden_size, 1)
            if lora_rank is not None:
                peft = _peft()
                adapters = peft.LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear")
                encoder = peft.get_peft_model(encoder, adapters)
        return cls(
            encoder.to(device),
            tokenizer,
            head,
            pooling="mean" if encoder.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "last",
            max_tokens=min(max_tokens, getattr(encoder.config, "max_position_embeddings", None) or max_tokens),
            base=str(name_or_path),
        )

    @classmethod
    def load(cls, folder: str | Path, *, dtype: str = "float32", device: str = "cpu") -> RewardModel:
        """Read what `save` wrote.

        Raises:
            ModelError: If the folder holds no reward model.
            MissingDependencyError: If it holds adapters and ``peft`` is not installed.
        """
        folder = Path(folder)
        try:
            told = json.loads((folder / _DESCRIPTION).read_text())
            weights = load_file(folder / _HEAD)
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(
                f"{str(folder)!r} holds no reward model: {error}. Give a folder that RewardModel.save wrote."
            ) from error
        if told["adapters"]:
            encoder, tokenizer, _ = _load(told["base"], dtype)
            encoder = _peft().PeftModel.from_pretrained(encoder, str(folder), is_trainable=True)
        else:
            encoder, tokenizer, _ = _load(str(folder), dtype)
        head = torch.nn.Linear(weights["weight"].shape[1], 1)
        head.load_state_dict(weights)
        settings = {key: told[key] for key in ("pooling", "max_tokens", "base")}
        return cls(encoder.to(device), tokenizer, head, **settings)

    def save(self, folder: str | Path) -> None:
        """Write the folder that `load` reads: safetensors and JSON; of adapters, no more than the adapters."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._encoder.save_pretrained(str(folder))
        self._tokenizer.save_pretrained(str(folder))
        save_file({name: tensor.cpu() for name, tensor in self._head.state_dict().items()}, folder / _HEAD)
        told = {
            "base": self._base,
            "pooling": self._pooling,
            "max_tokens": self._max_tokens,
            "adapters": hasattr(self._encoder, "peft_config"),
            "fingerprint": self.fingerprint,
        }
        (folder / _DESCRIPTION).write_text(json.dumps(told, indent=2) + "\n")

    @property
    def fingerprint(self) -> str:
        """``reward-`` and a hash of all weights and of how texts are read."""
        digest = hashlib.sha256(f"{self._pooling} {self._max_tokens}".encode())
        for module in (self._encoder, self._head):
            for name, tensor in sorted(module.state_dict().items()):
                digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return f"reward-{digest.hexdigest()[:16]}"

    def score(self, texts: Sequence[str], *, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """Logits of texts, [texts]; a text's logit does not depend on the texts beside it, up to rounding."""
        with torch.no_grad():
            return self._head(self._embed(texts, batch_size)).squeeze(1).cpu().numpy()  # type: ignore[no-any-return]

    def fit_pairs(self, pairs: Sequence[tuple[str, str]], training: RewardTraining) -> list[float]:
        """Learn to score the first text of each pair above the second; see `pairwise_loss`.

        Returns:
            Mean loss of each epoch.

        Raises:
            ConfigError: If there are no pairs.
        """
        texts = [text for pair in pairs for text in pair]

        def loss(logits: torch.Tensor, examples: torch.Tensor) -> torch.Tensor:
            return pairwise_loss(logits[:, 0], logits[:, 1])

        return self._fit(texts, torch.arange(len(texts)).reshape(-1, 2), loss, training)

    def fit_targets(self, texts: Sequence[str], targets: Sequence[float], training: RewardTraining) -> list[float]:
        """Learn that ``sigmoid(logit)`` of each text is its target in [0, 1]; see `pointwise_loss`.

        Returns:
            Mean loss of each epoch.

        Raises:
            ConfigError: If there are no texts, another number of targets, or a target outside [0, 1].
        """
        if len(targets) != len(texts) or not all(0.0 <= target <= 1.0 for target in targets):
            raise ConfigError(
                f"{len(texts)} texts were given with {len(targets)} targets; give one in [0, 1] for each text."
            )
        wanted = torch.tensor(targets, dtype=torch.float32, device=self._head.weight.device)

        def loss(logits: torch.Tensor, examples: torch.Tensor) -> torch.Tensor:
            return pointwise_loss(logits[:, 0], wanted[examples])

        return self._fit(texts, torch.arange(len(texts)).reshape(-1, 1), loss, training)

    def _fit(
        self,
        texts: Sequence[str],
        groups: torch.Tensor,
        loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        training: RewardTraining,
    ) -> list[float]:
        """Minimise a loss over examples, each a row of `groups`: the places of its texts, [examples, texts of one]."""
        if not len(groups):
            raise ConfigError("a reward model was given nothing to learn from; collect examples first.")
        whole = training.part == "all"
        fixed = torch.empty(0)
        if not whole:
            with torch.no_grad():
                fixed = self._embed(texts, 32)
        encoded = self._encode(texts) if whole else []
        batches_an_epoch = -(-len(groups) // training.batch_size)
        optimizer, schedule = self._optimizer(training, training.epochs * batches_an_epoch)
        losses = []
        with torch.random.fork_rng():
            torch.manual_seed(training.seed)
            self._encoder.train(whole)
            for _ in range(training.epochs):
                total = 0.0
                for examples in torch.randperm(len(groups)).split(training.batch_size):
                    rows = groups[examples].flatten()
                    embedded = self._pool([encoded[row] for row in rows.tolist()]) if whole else fixed[rows]
                    loss = loss_of(self._head(embedded).reshape(len(examples), -1), examples)
                    optimizer.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(
                        [weight for group in optimizer.param_groups for weight in group["params"]],
                        training.max_grad_norm,
                    )
                    optimizer.step()
                    schedule.step()
                    total += loss.item() * len(examples)
                losses.append(total / len(groups))
        self._encoder.eval()
        return losses

    def _optimizer(
        self, training: RewardTraining, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        groups: list[dict[str, Any]] = [{"params": list(self._head.parameters()), "lr": training.head_learning_rate}]
        if training.part == "all":
            # With adapters, they alone are left to train.
            weights = [weight for weight in self._encoder.parameters() if weight.requires_grad]
            groups.append({"params": weights, "lr": training.learning_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=training.weight_decay)
        rise = max(1, steps // 10)

        def factor(step: int) -> float:
            return min((step + 1) / rise, (steps - step) / max(1, steps - rise))

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def _embed(self, texts: Sequence[str], batch_size: int) -> torch.Tensor:
        """Embeddings of texts, float32 [texts, hidden]; texts of about one length are read together."""
        encoded = self._encode(texts)
        embedded = torch.zeros(len(texts), self._head.in_features, device=self._head.weight.device)
        order = torch.tensor([len(ids) for ids in encoded]).argsort(stable=True)
        for rows in order.split(batch_size) if texts else ():
            embedded[rows] = self._pool([encoded[row] for row in rows.tolist()])
        return embedded

    def _encode(self, texts: Sequence[str]) -> list[torch.Tensor]:
        if not texts:
            return []
        ids = self._tokenizer(list(texts), truncation=True, max_length=self._max_tokens)["input_ids"]
        # A tokenizer that marks no beginning leaves nothing of an empty text.
        return [torch.tensor(row or [self._tokenizer.eos_token_id]) for row in ids]

    def _pool(self, encoded: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings of texts that are read together, float32 [texts, hidden]."""
        device = self._head.weight.device
        lengths = torch.tensor([len(ids) for ids in encoded], device=device)
        ids = pad_sequence(list(encoded), batch_first=True).to(device)
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        hidden = self._encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        if self._pooling == "last":
            return hidden[torch.arange(len(encoded)), lengths - 1]  # type: ignore[no-any-return]
        return (hidden * mask[:, :, None]).sum(dim=1) / lengths[:, None]  # type: ignore[no-any-return]


def _load(name: str, dtype: str) -> tuple[Any, Any, torch.nn.Linear | None]:
    """Encoder, tokenizer, and the head if the checkpoint is a causal model with one of a single label or more."""
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        judges = any(kind.endswith("ForSequenceClassification") for kind in config.architectures or ())
        kind = transformers.AutoModelForSequenceClassification if judges else transformers.AutoModel
        model = kind.from_pretrained(name, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (AttributeError, OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"cannot load the encoder {name!r} of a reward model: {str(error).strip().splitlines()[0]} Give a "
            "Transformers folder with config.json, *.safetensors and a tokenizer, or a hub id."
        ) from error
    if not judges:
        return model, tokenizer, None
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):  # BERT's and its kin's heads are made otherwise
        return model.base_model, tokenizer, None
    head = torch.nn.Linear(model.score.in_features, 1)
    with torch.no_grad():
        head.weight.copy_(model.score.weight[:1])
        head.bias.zero_()
    return model.base_model, tokenizer, head


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise MissingDependencyError("low-rank adapters need peft. Type: pip install 'search-env[lora]'.") from error
