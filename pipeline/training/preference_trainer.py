"""Our trainer for answers that are compared or judged: each update's loss is the mean over its comparisons.

The reference is computed beside the model, micro-batch by micro-batch: one pass forward more, for which the base stays
where it is and nothing is kept from one update to the next.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import cast

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from pipeline.core.config import PreferenceSettings
from pipeline.training import preference
from pipeline.training.comparisons import Comparisons
from pipeline.training.loss import answer_nats
from pipeline.training.preference import DRIFT, DRIFTS, SUMS, Answers, losses, sums_of
from pipeline.training.reference import Reference
from pipeline.training.trainer import Trainer
from pipeline.training.updates import Inputs

FOR_THE_MODEL = {"input_ids", "attention_mask", "position_ids", *("cu_seq_lens_q", "cu_seq_lens_k")}
FOR_THE_MODEL |= {"max_length_q", "max_length_k"}


class Unlogged(TrainerCallback, ExportableState):
    """What the comparisons since the last log line came to, as checkpoints keep it."""

    def __init__(self, sums: list[float] | None = None) -> None:
        self.sums = sums or [0.0] * SUMS

    def state(self) -> dict[str, dict[str, list[float]]]:
        """Return what a checkpoint keeps."""
        return {"args": {"sums": self.sums}, "attributes": {}}


class PreferenceTrainer(Trainer):
    """Our trainer with the losses of preferences."""

    preference: PreferenceSettings
    reference: Reference | None  # where the loss has one

    def learn_from(self, preference: PreferenceSettings) -> None:
        """Learn so from the conversations, which are comparisons; Unlogged is one of the callbacks."""
        self.preference, self.reference = preference, None
        self.drift, self.sums = self.nothing(1)[0], self.nothing(SUMS)

    def nothing(self, count: int) -> torch.Tensor:
        """Return so many zeros."""
        return torch.zeros(count, device=self.args.device)

    def settled(self, inputs: Iterator[Inputs]) -> Iterator[Inputs]:
        """Find the drift of an update from its mismatched answers, and return the other micro-batches."""
        differences, first = self.nothing(2), next(inputs)
        while first["mismatched"]:
            answers = self.answers(self.trained_model, first, learns=False)
            differences += torch.stack([answers.log_ratios.sum(), differences.new_full((), len(answers.nats))])
            first = next(inputs)
        if cast(Comparisons, self.conversations["train"]).mismatched:
            total, count = self.accelerator.reduce(differences, "sum")
            self.drift = (total / count).clamp(min=0)
            self.sums[DRIFT] += self.drift
            self.sums[DRIFTS] += 1
        return chain([first], inputs)

    def compute_loss(
        self, model: torch.nn.Module, inputs: Mapping[str, object], *_: object, **__: object
    ) -> torch.Tensor:
        """Return a micro-batch's share of the mean loss over the rows of its update, on all processes.

        Replayed ones count with the mean over their supervised tokens. It is multiplied by the number of processes, as
        Trainer's.
        """
        of = cast(Inputs, inputs)
        answers = self.answers(model, of, learns=True)
        replayed = self.moved(of, {"replayed"})["replayed"]
        compared, rewards = losses(answers, self.preference, self.drift)
        self.sums += sums_of(answers, rewards, replayed, self.preference.loss != "kto")
        of_replayed = answers.nats[replayed].sum() / max(1, of["num_items_in_batch"]) * of["replayed_rows"]
        rows = max(1, of["compared_rows"] + of["replayed_rows"])
        return (compared.sum() + of_replayed) / rows * self.args.world_size

    def answers(self, model: torch.nn.Module, inputs: Inputs, learns: bool) -> Answers:
        """Return the answers of a micro-batch, as the model and its reference have them."""
        moved = self.moved(inputs, FOR_THE_MODEL | {"positions", "targets", "counts", "chosen", "rejected"})
        counts, chosen, rejected = (moved[key] for key in ("counts", "chosen", "rejected"))
        told = {key: value for key, value in moved.items() if key not in ("chosen", "rejected")}
        reference = None if self.reference is None else self.aside(told, self.reference.in_place())
        if learns:
            with self.saved:
                nats = self.nats(model, told)
        else:
            nats = self.aside(told, nullcontext())
        return Answers(nats, reference, counts, chosen, rejected)

    def aside(self, told: Mapping[str, torch.Tensor], weights: AbstractContextManager[None]) -> torch.Tensor:
        """Return the negative log-likelihood of each answer without gradients, dropout and noise."""
        model = self.trained_model
        was_training = model.training
        model.eval()
        with weights, torch.no_grad():
            nats = self.nats(model, told)
        model.train(was_training)
        return nats

    def nats(self, model: torch.nn.Module, told: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the negative log-likelihood of each answer."""
        if self.learns_from_supervised:
            return cast(torch.Tensor, model(**told).loss)
        seen = {key: value for key, value in told.items() if key in FOR_THE_MODEL}
        return answer_nats(model(**seen).logits, told["positions"], told["targets"], told["counts"])

    def _begin(self) -> None:
        self.sums = torch.tensor(self.unlogged.sums, device=self.args.device)
        super()._begin()

    @property
    def unlogged(self) -> Unlogged:
        """What checkpoints keep of the sums."""
        return cast(Unlogged, self.find(Unlogged))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the rewards of the updates since the last line."""
        if "loss" in logs:
            logs |= preference.figures(self.accelerator.reduce(self.sums, "mean"))
            self.sums = self.nothing(SUMS)
        super().log(logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
        self.unlogged.sums = self.accelerator.reduce(self.sums.clone(), "mean").tolist()
        super()._save_checkpoint(model, trial)

    def evaluate(self, *args: object, **kwargs: object) -> dict[str, float]:
        """Return loss and rewards of validation; what updates came to is set aside, also where it is stopped."""
        of_updates = self.sums
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self.sums = of_updates

    def watch(self) -> None:
        """Count what validation comes to."""
        self.sums = self.nothing(SUMS)

    def watched(self) -> dict[str, float]:
        """Return the figures of validation."""
        told = preference.figures(self.accelerator.reduce(self.sums, "mean"), "eval_")
        right = told.get("eval_rewards/accuracies")
        return {**told, **({} if right is None else {"eval_accuracy": right})}
