"""The training configuration: a YAML file whose keys are the fields below.

```yaml
model: {layers: 4, d_model: 128, heads: 4, head_dim: 32, d_ff: 256}
optimizer: {learning_rate: 0.003, warmup_steps: 20}
steps: 300              # what the learning rate decays over; all steps of the plan if not given
micro_batch: 4          # sequences a forward pass: what memory allows; the experts' load is balanced within it
```
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tokenizer.strict_yaml import YamlFile
from trainer_bridge.errors import TrainingError
from trainer_bridge.moe.config import ModelConfig


@dataclasses.dataclass(frozen=True, slots=True)
class ModelSettings:
    """The model's shape (see `ModelConfig`); its vocabulary is that of the plan's tokenizer."""

    layers: int
    d_model: int
    heads: int
    head_dim: int
    d_ff: int
    experts: int = 16
    experts_per_token: int = 2
    rope_base: float = 10_000.0
    aux_weight: float = 1e-2
    z_weight: float = 1e-3

    def config(self, vocabulary: int) -> ModelConfig:
        """Return the model's configuration. `ValueError` for a shape that cannot be built."""
        return ModelConfig(vocabulary=vocabulary, **dataclasses.asdict(self))

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built, before a plan is looked at."""
        self.config(8)


@dataclasses.dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """AdamW with linear warm-up, cosine decay to a share of the highest rate, and clipping by the gradients' norm."""

    learning_rate: float = 3e-3
    final_share: float = 0.1
    """Of the learning rate, what is left at the last step."""
    warmup_steps: int = 20
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what does not train."""
        for name in ("learning_rate", "gradient_clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} {getattr(self, name)}: allowed are numbers above 0")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: allowed are numbers from 0, below 1")
        if not 0 <= self.final_share <= 1:
            raise ValueError(f"final_share {self.final_share}: allowed are numbers from 0 to 1")
        if self.warmup_steps < 0 or self.weight_decay < 0:
            raise ValueError(f"warmup_steps {self.warmup_steps}, weight_decay {self.weight_decay}: allowed from 0 up")


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Everything about a training run that the plan does not say."""

    model: ModelSettings
    optimizer: OptimizerSettings = dataclasses.field(default_factory=OptimizerSettings)
    steps: int | None = None
    micro_batch: int = 4
    seed: int = 1
    """Of the initial weights; the order of data has its own, in the plan."""
    evaluate_every: int = 50
    evaluate_sequences: int = 32
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    loader_workers: int = 1
    threads: int | None = None
    """Of this process; PyTorch's own choice if not given. The last bits of the weights depend on it."""

    def __post_init__(self) -> None:
        """Refuse counts that are none."""
        for name in ("steps", "micro_batch", "evaluate_every", "evaluate_sequences", "checkpoint_every", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value}: allowed are whole numbers from 1 on")
        if self.keep_checkpoints < 2:
            raise ValueError(
                f"keep_checkpoints {self.keep_checkpoints}: allowed from 2 on, for the last may be damaged"
            )
        if self.loader_workers < 0:
            raise ValueError(f"loader_workers {self.loader_workers}: allowed from 0 on")


def load_settings(path: Path) -> TrainingSettings:
    """Load and check a training configuration; `TrainingError` names the file, the key and the value."""
    file = YamlFile(path, "training configuration", TrainingError)
    settings: TrainingSettings = file.build(TrainingSettings, file.load(), "")
    return settings
