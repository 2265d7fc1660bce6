"""The configuration as frozen dataclasses: every key that exists, its type, and what it may be.

Values stand in conf/ alone; there are no defaults here. Stages get these objects and never Hydra's.
"""

import math
import operator
import re
import types
import typing
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Union
from urllib.parse import urlsplit

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.errors import UserError
from pipeline.core.data_settings import DataSettings, SourceSettings, sets_of, validate_whole
from pipeline.core.data_settings import validate as validate_data
from pipeline.core.limits import any_of, filled, limited, one_of
from pipeline.core.train_settings import validate as validate_training

SCHEDULERS = ("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt", "warmup_stable_decay")
# Transformers' names of those that learn with our updates, and the package that each needs. GaLore's and APOLLO's want
# modules named, LOMO's and the schedule-free ones a step or a mode of their own.
BITSANDBYTES = (
    "adamw_8bit", "adamw_bnb_8bit", "ademamix", "ademamix_8bit", "lion_32bit", "lion_8bit", "paged_adamw_32bit",
    "paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit",
    "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit",
)  # fmt: skip
OPTIMIZERS: dict[str, str | None] = {
    **dict.fromkeys(("adamw_torch_fused", "adamw_torch", "adafactor", "adagrad", "rmsprop", "sgd")),
    **dict.fromkeys(("adamw_torch_8bit", "adamw_torch_4bit"), "torchao"),
    **dict.fromkeys(BITSANDBYTES, "bitsandbytes"),
}
# The files of that folder, which need not be imported to be named: their libraries take seconds.
ENGINES = tuple(sorted(path.stem for path in (Path(__file__).parents[1] / "training/engines").glob("[a-z]*.py")))
# llama.cpp's names; what the loader of the served version quantizes to
QUANTIZATIONS = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0",
    "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K",
)  # fmt: skip
VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")  # of the environment; a key itself hardly looks like it


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which base model is tuned."""

    name: str
    path: str
    revision: str | None
    merge_path: str | None
    merge_revision: str | None
    chat_template: str | None
    load_in_4bit: bool

    @property
    def merge_base(self) -> tuple[str, str | None]:
        """Path and revision of the 16-bit base that an adapter is merged onto and compared with."""
        return (self.merge_path, self.merge_revision) if self.merge_path else (self.path, self.revision)


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """How what visitors said becomes rows (pipeline/learning)."""

    folder: str | None
    dataset: str | None
    per_visitor: int = limited(least=1)
    near_duplicates: float | None = limited(above=0, most=1)
    held_out: float = limited(above=0, below=1)
    validation: float = limited(above=0, below=1)
    mask: list[str] = any_of("email", "iban", "card", "phone", "ip")
    seed: int = limited(least=0)


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The adapter: rank, scale, dropout, what it sits on, and what learns whole beside it."""

    r: int = limited(least=1, most=1024)
    alpha: int = limited(least=1)
    rslora: bool
    dora: bool
    dropout: float = limited(least=0, most=0.9)
    target_modules: list[str] | Literal["all-linear"] = filled()
    modules_to_save: list[str]


@dataclass(frozen=True, kw_only=True)
class PreferenceSettings:
    """How it learns from answers that are compared or judged, where it does."""

    loss: str | None = one_of("dpo", "kto", "orpo")
    beta: float = limited(above=0)
    reference: str = one_of("start", "base")
    replay: float = limited(least=0, below=1)
    nll_weight: float = limited(least=0)
    desirable_weight: float = limited(above=0)
    undesirable_weight: float = limited(above=0)

    @property
    def has_reference(self) -> bool:
        """Whether the loss holds the model against another one."""
        return self.loss in ("dpo", "kto")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How the model is tuned."""

    method: str = one_of("lora", "qlora", "full")
    start_adapter: str | None
    preference: PreferenceSettings = field()
    engine: str = one_of("auto", *ENGINES)
    lora: LoraSettings = field()
    # Adam moves each weight by about the rate at each update: from 1 on, by many times what the weight is.
    lr: float = limited(above=0, most=1)
    scheduler: str = one_of(*SCHEDULERS)
    warmup_ratio: float = limited(least=0, below=1)
    min_lr_ratio: float = limited(least=0, below=1)
    decay_ratio: float | None = limited(above=0, most=1)
    neftune_alpha: float | None = limited(above=0)
    weight_decay: float = limited(least=0)
    max_grad_norm: float = limited(above=0)
    optimizer: str = one_of(*OPTIMIZERS)
    batch_size: int | Literal["auto"] = limited(least=1)
    gradient_accumulation_steps: int | None = limited(least=1)
    effective_batch: int = limited(least=1)
    epochs: float = limited(above=0)
    max_steps: int | None = limited(least=1)
    stop_step: int | None = limited(least=1)
    patience: int | None = limited(least=1)
    max_length: int = limited(least=8)
    loss_on: str = one_of("all", "last")
    max_truncated: float = limited(least=0, most=1)
    packing: bool | Literal["auto"] = field()
    attention: str = one_of("auto", "sdpa", "flash", "cudnn")
    compile: bool | Literal["auto"] = field()
    frozen_dtype: str = one_of("bf16", "fp8")
    gradient_checkpointing: bool | Literal["auto", "offload"] = field()
    seed: int = limited(least=0, most=2**32 - 1)  # all that NumPy takes
    save_steps: int = limited(least=1)
    save_total_limit: int = limited(least=1)
    eval_steps: int = limited(least=1)
    eval_batch_size: int = limited(least=1)
    logging_steps: int = limited(least=1)
    check_export: bool

    @property
    def update_size(self) -> int:
        """Rows that one update learns from, in however many forward passes."""
        if self.gradient_accumulation_steps is None:
            return self.effective_batch
        assert self.batch_size != "auto"  # noqa: S101 -- `load` has seen to it
        return self.batch_size * self.gradient_accumulation_steps


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Which GGUF files are made, and what they are held against."""

    quantizations: list[str] = one_of(*QUANTIZATIONS)
    base: list[str] = any_of(*QUANTIZATIONS)
    adapter: bool
    importance_matrix: bool
    verify_rows: int = limited(least=1)


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """What a model must reach to be promoted."""

    min_gain: float
    max_quantization_loss: float = limited(least=0)
    max_flips: float | None = limited(least=0, most=1)
    max_task_drop: float = limited(least=0, most=1)
    max_forgetting: float | None = limited(least=0)
    level: float = limited(above=0, below=1)
    min_rows: int = limited(least=2)  # one has no interval
    min_questions: int = limited(least=1)


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """Who compares replies, and how many."""

    url: str | None
    model: str | None
    key: str | None
    votes: str | None
    max_pairs: int | None = limited(least=1)
    max_tokens: int = limited(least=1)
    seconds: float = limited(above=0)
    at_once: int = limited(least=1)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """What base, tuned and exported models are asked."""

    prompts: list[str]
    max_new_tokens: int = limited(least=1)
    max_length: int = limited(least=8)
    batch_size: int | None = limited(least=1)
    max_rows: int | None = limited(least=1)
    max_questions: int | None = limited(least=1)
    tasks: list[str]
    tasks_limit: int | None = limited(least=1)
    general: dict[str, SourceSettings | None]
    seed: int = limited(least=0)
    stop_when_sure: bool
    judge: JudgeSettings
    gate: GateSettings


@dataclass(frozen=True, kw_only=True)
class MarginSettings:
    """By how much a file may be worse than another and is still taken for no worse."""

    loss: float = limited(least=0)
    accuracy: float = limited(least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """How one of several models is recommended, and when one takes over from another."""

    quality: str = one_of("accuracy", "loss", "preference")
    max_answer_seconds: float | None = limited(above=0)
    max_gguf_mb: float | None = limited(above=0)
    max_memory_mb: float | None = limited(above=0)
    level: float = limited(above=0, below=1)
    margin: MarginSettings


@dataclass(frozen=True, kw_only=True)
class CanarySettings:
    """When visitors' votes tell a candidate from the champion, and what follows."""

    level: float = limited(above=0, below=1)
    per_visitor: int = limited(least=1)
    max_votes: int = limited(least=1)
    max_days: float = limited(above=0)
    on_better: str = one_of("promote", "tell")
    on_worse: str = one_of("rollback", "tell")


@dataclass(frozen=True, kw_only=True)
class TrackingSettings:
    """Where runs are recorded."""

    enabled: bool
    experiment: str
    uri: str | None
    system_metrics: bool
    system_metrics_seconds: float = limited(above=0)


@dataclass(frozen=True, kw_only=True)
class DockerSettings:
    """Which stages run in a container of the train image, and what of this machine they see there."""

    stages: list[str] = any_of("prepare", "data_report", "train", "export", "evaluate", "report")
    image: str
    build: bool
    build_args: list[str]
    environment: list[str]
    network: str = one_of("host", "bridge", "none")


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """What this machine offers; no stage's result depends on it."""

    device: str = one_of("auto", "cpu", "cuda")
    processes: int | Literal["auto"] = limited(least=1)
    jobs_per_gpu: int = limited(least=1)
    checkpoint_root: str = field()
    time_limit: str | None
    docker: DockerSettings

    @property
    def seconds_allowed(self) -> float | None:
        """The time limit of a training process, in seconds."""
        return None if self.time_limit is None else parse_duration(self.time_limit)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that conf/ composes to."""

    model: ModelSettings
    learn: LearnSettings
    data: DataSettings
    train: TrainSettings
    export: ExportSettings
    evaluate: EvaluateSettings
    compare: CompareSettings
    canary: CanarySettings
    tracking: TrackingSettings
    runtime: RuntimeSettings
    experiment: str | None


def load(composed: DictConfig) -> Config:
    """Check a composed configuration and give it its types.

    Raises:
        UserError: an unknown or missing key, a value of the wrong type or out of range; the message names the key.
    """
    try:
        values = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration does not resolve: {' '.join(str(error).split())}") from error
    config = build(Config, values, "")
    validate_learn(config.learn)
    validate_data(config.data)
    for name, source in sets_of(config.evaluate.general).items():
        validate_whole(name, source, f"evaluate.general.{name}", "each text of a set is measured once")
    validate_judge(config.evaluate.judge)
    validate_environment(config.runtime.docker.environment)
    validate_batch(config.train)
    validate_training(config)
    _ = config.runtime.seconds_allowed
    if (config.train.method == "qlora") != config.model.load_in_4bit:
        raise UserError(
            f"train.method is {config.train.method} and model.load_in_4bit is {config.model.load_in_4bit}; "
            "qlora tunes a 4-bit base and needs both (model.load_in_4bit=true train=qlora)"
        )
    return config


def validate_learn(learn: LearnSettings) -> None:
    """Check what keys of `learn` must be to one another.

    Raises:
        UserError: two sources are named, or nothing is left to train on.
    """
    if learn.folder is not None and learn.dataset is not None:
        raise UserError(
            f"learn.folder is {learn.folder} and learn.dataset {learn.dataset}, of which one is read; "
            "set the other to null"
        )
    if learn.held_out + learn.validation >= 1:
        raise UserError(
            f"learn.held_out and learn.validation take {learn.held_out + learn.validation:g} of the rows together; "
            "leave a share for train"
        )


def validate_judge(judge: JudgeSettings) -> None:
    """Refuse an address, or a name of a key, that may hold a secret: settings are kept in git, and shown.

    Raises:
        UserError: what they say cannot be; the message has none of it.
    """
    if judge.url is not None and not _is_address(judge.url):
        raise UserError(
            "evaluate.judge.url is no address of an API, such as https://HOST/v1, without user, password, query and "
            "fragment; a key goes into the environment variable that evaluate.judge.key names"
        )
    if judge.key is not None and not VARIABLE.fullmatch(judge.key):
        raise UserError(
            "evaluate.judge.key is no name of an environment variable, of capitals, digits and _; the key itself "
            "belongs into that variable, and in no file"
        )


def validate_environment(names: list[str]) -> None:
    """Refuse what may be a value: settings are kept in git, and shown.

    Raises:
        UserError: an entry is no name of a variable; the message has none of it.
    """
    for number, name in enumerate(names):
        if not VARIABLE.fullmatch(name):
            raise UserError(
                f"runtime.docker.environment[{number}] is no name of an environment variable, of capitals, digits and "
                "_; its value is taken from where the stage is started, and belongs into no file"
            )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # half a bracket, a port that is no number
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not any(mark in url for mark in "@?#")


def validate_batch(train: TrainSettings) -> None:
    """Check what the three sizes of a batch must be to one another.

    Raises:
        UserError: accumulation is of a micro-batch that is not given.
    """
    if train.batch_size == "auto" and train.gradient_accumulation_steps is not None:
        raise UserError(
            "train.gradient_accumulation_steps multiplies train.batch_size, which is auto; set that to a number, or "
            "train.effective_batch to the conversations of an update"
        )


def parse_duration(text: str) -> float:
    """Return seconds of a text such as `5h30m`, `90m` or `45s`.

    Raises:
        UserError: it is none of these.
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not text or found is None:
        raise UserError(f"runtime.time_limit is {text!r}; it must be hours, minutes or seconds, such as 5h30m or 45s")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600.0 * hours + 60 * minutes + seconds


def unknown_key(dotted: str) -> str | None:
    """Return what is to be said of a key that the configuration lacks; None of one that it has, or that is Hydra's."""
    kind: type = Config
    path, keys = "", dotted.split(".")
    for key in keys if keys[0] != "hydra" else ():
        path = f"{path}.{key}" if path else key
        if values := _named_values(kind):  # whatever the name
            kind = values
            continue
        if not hasattr(kind, "__dataclass_fields__"):
            return f"{dotted} is not a key of the configuration; {path.rpartition('.')[0]} has no keys"
        hints = typing.get_type_hints(kind)
        if key not in hints:
            return _no_key(kind, path.rpartition(".")[0], key)
        kind = hints[key]
    return None


def _named_values(kind: object) -> type | None:
    """Return what the values of a mapping are; None of what is no mapping."""
    mapping = next((option for option in (kind, *typing.get_args(kind)) if typing.get_origin(option) is dict), None)
    values = typing.get_args(mapping)[1] if mapping else None
    return next((option for option in typing.get_args(values) if option is not types.NoneType), values)


def _no_key(kind: type, path: str, key: str) -> str:
    keys = ", ".join(field.name for field in fields(kind))
    return f"{path}.{key}".strip(".") + f" is not a key of the configuration; {path or 'it'} has {keys}"


def build(kind: type, values: Any, path: str) -> Any:
    """Return an instance of the dataclass `kind` from a mapping, its keys checked one by one.

    Raises:
        UserError: an unknown or missing key, a value of the wrong type or out of range; the message names the key.
    """
    if not isinstance(values, dict):
        raise UserError(f"{path or 'the configuration'} is {values!r}; it must be a mapping of keys to values")
    specs = {f.name: f for f in fields(kind)}
    prefix = f"{path}." if path else ""
    for key in values:
        if key not in specs:
            raise UserError(_no_key(kind, path, key))
    for key in () if getattr(kind, "may_lack_keys", False) else specs:
        if key not in values:
            raise UserError(f"{prefix}{key} is missing; set it in conf/{path.split('.')[0] or key}/")
    hints = typing.get_type_hints(kind)
    return kind(**{key: _value(hints[key], specs[key].metadata, values[key], prefix + key) for key in values})


def _value(hint: Any, limits: Any, value: Any, path: str) -> Any:
    """Return `value` as the annotated type, within its limits."""
    if typing.get_origin(hint) in (types.UnionType, Union):
        words = [word for option in typing.get_args(hint) for word in typing.get_args(option) if isinstance(word, str)]
        if value in words or (value is None and types.NoneType in typing.get_args(hint)):
            return value
        if isinstance(value, str) and words:
            other = _other_kind(typing.get_args(hint))
            raise UserError(f"{path} is {value!r}; it must be {other} or {', '.join(words)}")
        hint = _option(typing.get_args(hint), value)
    if hasattr(hint, "__dataclass_fields__"):
        return build(hint, value, path)
    if typing.get_origin(hint) is list:
        if not isinstance(value, list) or (limits.get("filled") and not value):
            entries = " with at least one entry" if limits.get("filled") else ""
            raise UserError(f"{path} is {value!r}; it must be a list{entries}, as in [a, b]")
        (item,) = typing.get_args(hint)
        return [_value(item, limits, entry, f"{path}[{index}]") for index, entry in enumerate(value)]
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise UserError(f"{path} is {value!r}; it must be names and their values, as in {{a: b}}")
        return {
            str(key): _value(typing.get_args(hint)[1], limits, each, f"{path}.{key}") for key, each in value.items()
        }
    return _within(_typed(hint, value, path), limits, path)


def _option(options: tuple[object, ...], value: object) -> object:
    """Return which of several types a value is to be: that of lists where it is one, or else the first."""
    kinds = [option for option in options if option is not types.NoneType]
    lists = [kind for kind in kinds if typing.get_origin(kind) is list and isinstance(value, list)]
    return (lists or kinds)[0]


def _other_kind(options: tuple[Any, ...]) -> str:
    """Return what a value may be beside certain words."""
    if int in options:
        return "a whole number"
    return "true, false" if bool in options else "a list of texts"


def _typed(hint: type, value: Any, path: str) -> Any:
    typed: Any = value
    if hint is float and type(value) in (int, str):  # YAML reads 2e-4 as a text
        with suppress(ValueError, OverflowError):
            typed = float(value)
    if type(typed) is not hint or (isinstance(typed, float) and not math.isfinite(typed)):
        names = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "str": "a text"}
        raise UserError(f"{path} is {value!r}; it must be {names[hint.__name__]}")
    return typed


def _within(value: Any, limits: Any, path: str) -> Any:
    allowed = limits.get("values")
    if allowed and value not in allowed:
        raise UserError(f"{path} is {value!r}; it may be {', '.join(allowed)}")
    words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    bounds = {name: limits[name] for name in words if limits.get(name) is not None}
    inside = {"least": operator.ge, "above": operator.gt, "most": operator.le, "below": operator.lt}
    if not all(inside[name](value, bound) for name, bound in bounds.items()):
        allowed = " and ".join(f"{words[name]} {bound}" for name, bound in bounds.items())
        raise UserError(f"{path} is {value}; it may be {allowed}")
    return value
