"""The errors that people see in front of a plan.

HeadraceError
├── MixtureError   a mixture that cannot be planned: wrong key, absent manifest, an amount that there is not
└── PlanError      a plan, or something that it names, that is not what it was when it was made
"""

from __future__ import annotations

from tokenizer.errors import HeadraceError


class MixtureError(HeadraceError):
    """A mixture that cannot be planned, found before any work."""


class PlanError(HeadraceError):
    """A plan, a pack index, a manifest or a shard that differs from what the plan was made of."""
