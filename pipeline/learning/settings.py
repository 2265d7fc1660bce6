"""What can be set of learning from feedback."""

from dataclasses import dataclass
from typing import Literal

from common.errors import UserError

Masked = Literal["email", "iban", "card", "phone", "ip"]


@dataclass(frozen=True)
class LearnSettings:
    """How records become data.

    Args:
        per_visitor: rows at most of one visitor, so that nobody outweighs the others.
        near_duplicates: overlap (Jaccard, word 3-grams) from which one row of a cluster is kept; None keeps all.
        held_out: share of what is split that is never learnt, for judging: the test split.
        validation: share that training is stopped by.
        mask: personal data that is masked, by pipeline/data/masking.py's names.
        seed: of the draws.
    """

    per_visitor: int = 20
    near_duplicates: float | None = 0.9
    held_out: float = 0.2
    validation: float = 0.1
    mask: tuple[Masked, ...] = ("email", "iban", "card", "phone", "ip")
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_visitor < 1:
            raise UserError(f"--per-visitor is {self.per_visitor}; it must be 1 or more")
        if self.near_duplicates is not None and not 0 < self.near_duplicates <= 1:
            raise UserError(f"--near-duplicates is {self.near_duplicates:g}; it must be above 0 and at most 1")
        if not (self.held_out > 0 and self.validation > 0 and self.held_out + self.validation < 1):
            raise UserError(
                f"--held-out is {self.held_out:g} and --validation {self.validation:g}; both must be above 0, and "
                "together below 1"
            )
