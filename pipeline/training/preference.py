"""What is learnt of answers that are compared or judged: losses by their papers' equations, and what is told of them.

All are of the log-probability of an answer behind its prompt, summed over its tokens, in nats; conventions are TRL's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from pipeline.core.config import PreferenceSettings

# Sums that figures are made of, over the answers of updates, by their places in a tensor.
CHOSEN, CHOSEN_COUNT, REJECTED, REJECTED_COUNT, RIGHT, PAIRS, REPLAYED, REPLAYED_TOKENS, DRIFT, DRIFTS = range(10)
SUMS = 10


@dataclass(frozen=True)
class Answers:
    """The answers of a micro-batch."""

    nats: torch.Tensor  # negative log-likelihood of each, of the model that learns
    reference: torch.Tensor | None  # the same of the one that it is held against
    counts: torch.Tensor  # their tokens
    chosen: torch.Tensor  # which of them are; of pairs, in the order of `rejected`
    rejected: torch.Tensor

    @property
    def log_ratios(self) -> torch.Tensor:
        """How much likelier each is than under the reference."""
        assert self.reference is not None  # noqa: S101 -- the losses that ask have one
        return self.reference - self.nats


def losses(answers: Answers, settings: PreferenceSettings, drift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each comparison, and the reward of each answer.

    Args:
        answers: of some comparisons.
        settings: the loss, and its weights.
        drift: the reference point of KTO, a scalar.
    """
    if settings.loss == "dpo":
        return dpo(answers, settings)
    if settings.loss == "kto":
        return kto(answers, settings, drift)
    return orpo(answers, settings.beta)


def dpo(answers: Answers, settings: PreferenceSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Rafailov et al. 2023's loss (equation 7) of each pair, and the answers' implicit rewards.

    With a weight the chosen answer's nats a token are added, as by Pang et al. 2024 (equation 1).
    """
    rewards = settings.beta * answers.log_ratios
    compared = -logsigmoid(rewards[answers.chosen] - rewards[answers.rejected])
    chosen = answers.nats[answers.chosen] / answers.counts[answers.chosen].clamp(min=1)
    return compared + settings.nll_weight * chosen, rewards


def kto(answers: Answers, settings: PreferenceSettings, drift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Ethayarajh et al. 2024's loss (equation 8) of each judgement, and the answers' implicit rewards."""
    rewards, reference_point = settings.beta * answers.log_ratios, settings.beta * drift
    good = settings.desirable_weight * (1 - (rewards[answers.chosen] - reference_point).sigmoid())
    bad = settings.undesirable_weight * (1 - (reference_point - rewards[answers.rejected]).sigmoid())
    return torch.cat([good, bad]), rewards


def orpo(answers: Answers, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Hong et al. 2024's loss (equation 6) of each pair: the chosen one's nats a token, and the odds of both.

    Its rewards are TRL's: beta times the log-probability a token. (TRL's first term has the tokens of the prompt, too.)
    """
    likely = -answers.nats / answers.counts.clamp(min=1)
    odds = likely - torch.log1p(-likely.exp().clamp(max=1 - 1e-6))
    against = -logsigmoid(odds[answers.chosen] - odds[answers.rejected])
    return -likely[answers.chosen] + beta * against, beta * likely


def sums_of(answers: Answers, rewards: torch.Tensor, replayed: torch.Tensor, are_pairs: bool) -> torch.Tensor:
    """Return what figures are made of, for a micro-batch.

    Args:
        answers: of its comparisons.
        rewards: of each answer.
        replayed: which answers are replayed conversations.
        are_pairs: whether each chosen answer has a rejected one.
    """
    chosen, rejected = rewards[answers.chosen].detach(), rewards[answers.rejected].detach()
    right = (chosen > rejected).sum() if are_pairs else chosen.new_zeros(())
    counts = (len(chosen), len(rejected), len(chosen) if are_pairs else 0)
    of_chosen, of_rejected, pairs = (chosen.new_full((), count) for count in counts)
    nats, tokens = answers.nats[replayed].detach().sum(), answers.counts[replayed].sum()
    found = (chosen.sum(), of_chosen, rejected.sum(), of_rejected, right, pairs, nats, tokens, *chosen.new_zeros(2))
    return torch.stack([total.float() for total in found])


def figures(sums: torch.Tensor, prefix: str = "") -> Mapping[str, float]:
    """Return what sums come to, under TRL's names; nothing of what there was none of."""
    of = [float(total) for total in sums.tolist()]

    def mean(total: int, count: int) -> float | None:
        return of[total] / of[count] if of[count] else None

    chosen, rejected = mean(CHOSEN, CHOSEN_COUNT), mean(REJECTED, REJECTED_COUNT)
    told = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": None if chosen is None or rejected is None else chosen - rejected,
        "rewards/accuracies": mean(RIGHT, PAIRS),
        "kl": mean(DRIFT, DRIFTS),
        "replay_loss": mean(REPLAYED, REPLAYED_TOKENS),
    }
    return {f"{prefix}{name}": value for name, value in told.items() if value is not None}
