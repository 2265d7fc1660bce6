"""Which settings a training learns by; what else there is follows the card or the clock."""

from dataclasses import asdict

from pipeline.core.config import TrainSettings

# What may change without changing a digit of what is learnt,
UNSEEN = (
    "save_steps", "save_total_limit", "eval_steps", "eval_batch_size", "logging_steps", "max_truncated", "check_export",
)  # fmt: skip
# and without changing more than the last ones.
NOT_LEARNT = (
    *UNSEEN, "stop_step", "batch_size", "packing", "attention", "compile", "gradient_checkpointing", "effective_batch",
    "gradient_accumulation_steps",
)  # fmt: skip
# Settings that came later, where they are off: trainings of before go on.
OFF: dict[str, object] = {
    "neftune_alpha": None, "min_lr_ratio": 0.0, "decay_ratio": None, "rslora": False, "dora": False,
    "modules_to_save": [], "loss_on": "all", "start_adapter": None, "nll_weight": 0.0,
}  # fmt: skip


def learnt_settings(train: TrainSettings) -> dict[str, object]:
    """Return those that change what is learnt, and the size of an update in place of what makes it up."""
    ignored = set(NOT_LEARNT) - ({"eval_steps"} if train.patience else set())  # which ends early by its evaluations
    ignored |= set() if train.preference.loss else {"preference"}
    learnt = {key: value for key, value in switched_on(asdict(train)).items() if key not in ignored}
    for part in {"lora", "preference"} & learnt.keys():
        learnt[part] = switched_on(asdict(train)[part])
    return {**learnt, "update_size": train.update_size}


def settings_of_digits(train: TrainSettings) -> dict[str, object]:
    """Return those that any digit of what is learnt follows from; all of them where evaluations end a training."""
    ignored = () if train.patience else UNSEEN
    return {key: value for key, value in asdict(train).items() if key not in ignored}


def switched_on(settings: dict[str, object]) -> dict[str, object]:
    """Return the settings but those that came later and are off."""
    return {key: value for key, value in settings.items() if key not in OFF or value != OFF[key]}
