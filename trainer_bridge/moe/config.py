"""The shape of the model, and what follows from it by arithmetic: parameters and operations, exactly.

A layer is attention with one key/value head, a router, and experts of two matrices with a GELU between; nothing has a
bias, the embedding and the output matrix are two. Counts are Python integers and allocate nothing.
"""

from __future__ import annotations

import dataclasses

ROW_MULTIPLE = 8
"""`grouped_mm` reads rows of 16-byte multiples; 8 numbers are that in bfloat16 (2 bytes) and in float32 (4)."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelConfig:
    """See the module docstring. The width of attention is `heads * head_dim` and need not be `d_model`."""

    layers: int
    d_model: int
    heads: int
    head_dim: int
    d_ff: int
    """Inner width of one expert."""
    vocabulary: int
    experts: int = 16
    experts_per_token: int = 2
    rope_base: float = 10_000.0
    """Su et al. 2021, "RoFormer" (arXiv 2104.09864), section 3.2.2."""
    norm_eps: float = 1e-5
    aux_weight: float = 1e-2
    """Of the load-balance loss, summed over the layers: Fedus et al. 2021, "Switch Transformers" (arXiv 2101.03961)."""
    z_weight: float = 1e-3
    """Of the router's z-loss, summed over the layers: Zoph et al. 2022, "ST-MoE" (arXiv 2202.08906)."""
    init_std: float = 0.02
    """Of the weights' normal distribution; what writes into the residual stream has it over sqrt(2 * layers): Radford
    et al. 2019, "Language Models are Unsupervised Multitask Learners"."""

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built; `ValueError` names the field, its value and the remedy."""
        for field in dataclasses.fields(self):
            if field.type == "int":
                _check_count(field.name, getattr(self, field.name))
            else:
                _check_size(field.name, getattr(self, field.name))
        for name, multiple in (("d_model", ROW_MULTIPLE), ("d_ff", ROW_MULTIPLE), ("head_dim", 2)):
            _check_multiple(name, getattr(self, name), multiple)
        if self.experts_per_token > self.experts:
            raise ValueError(
                f"experts_per_token: {self.experts_per_token} is more than there are experts ({self.experts})\n"
                f"hint: give at most {self.experts}"
            )

    @property
    def attention_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def attention_parameters(self) -> int:
        """In all layers: queries and output (d_model x width each), one key and one value head."""
        return self.layers * 2 * self.d_model * (self.attention_width + self.head_dim)

    @property
    def expert_parameters(self) -> int:
        """Of one expert over all layers: two matrices d_model x d_ff."""
        return self.layers * 2 * self.d_model * self.d_ff

    @property
    def total_parameters(self) -> int:
        """All that is trained."""
        return self._always_active + self.experts * self.expert_parameters

    @property
    def active_parameters(self) -> int:
        """What takes part in one token: all but the experts that it is not sent to."""
        return self._always_active + self.experts_per_token * self.expert_parameters

    def forward_flops(self, length: int = 0) -> int:
        """Return the operations of one token's forward pass, a multiply-add counted as two.

        Matrices only: 2 for every active parameter but the embedding (a look-up) and the norms. `length` adds the
        attention scores of a document of so many tokens, whose tokens see (length + 1) / 2 keys on average, with
        4 * width for each key; 0 leaves them out, as the published figures do.
        """
        matrices = self.active_parameters - self.vocabulary * self.d_model - self._norm_parameters
        seen_twice = length + 1 if length else 0
        return 2 * matrices + self.layers * 2 * self.attention_width * seen_twice

    @property
    def _norm_parameters(self) -> int:
        return (2 * self.layers + 1) * self.d_model

    @property
    def _always_active(self) -> int:
        routers = self.layers * self.experts * self.d_model
        ends = 2 * self.vocabulary * self.d_model
        return self.attention_parameters + routers + ends + self._norm_parameters


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name}: {value!r} is no count\nhint: give a whole number from 1 up")


def _check_size(name: str, value: object) -> None:
    """Losses may weigh nothing; the base, the epsilon and the standard deviation divide or scale."""
    least = "from 0 up" if name.endswith("_weight") else "above 0"
    ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
    if not ok or (value == 0 and least == "above 0"):
        raise ValueError(f"{name}: {value!r} is no size\nhint: give a number {least}")


def _check_multiple(name: str, value: int, multiple: int) -> None:
    if value % multiple:
        nearest = value + -value % multiple
        raise ValueError(f"{name}: {value} is no multiple of {multiple}\nhint: give {nearest}")


GPT4_SHAPE = ModelConfig(layers=120, d_model=10_752, heads=168, head_dim=128, d_ff=43_008, vocabulary=100_352)
"""The configuration that meets the leaked figures: 1.83T parameters, 279B active, 55.8B of attention, 558 GFLOP."""
