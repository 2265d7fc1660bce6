"""A sweep as it is to be: its trials, what each is, and which are one and the same training."""

import copy
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.errors import UserError
from pipeline.core.composition import reason
from pipeline.core.config import Config, load
from pipeline.core.learnt import learnt_settings
from pipeline.core.mappings import changed_keys, flatten
from pipeline.core.paths import PREPARE_REPORT
from pipeline.core.records import PrepareReport
from pipeline.sweeps.record import Extension, Folder, SweepRecord, Trial
from pipeline.sweeps.rungs import bracket_rungs, bracket_sizes, rungs
from pipeline.sweeps.settings import OWN_SAMPLERS, PLACE, SweepSettings, read_settings
from pipeline.sweeps.space import Dimension, Values, combinations, dimensions, sample
from pipeline.sweeps.winner import experiment_name, is_free, stands_on, winner_path

logger = logging.getLogger(__name__)

TRAIN = "train"  # the stage whose trials have checkpoints and a loss
OF_RUNGS = ("train.stop_step", "train.max_steps", "train.patience")  # which rungs set, or end a trial beside them
PREFERENCES = frozenset(("dpo", "kto", "orpo"))  # presets of `train`
# What losses of preferences are multiplied with, or made of.
SCALES = tuple(
    f"train.preference.{key}"
    for key in ("loss", "beta", "reference", "nll_weight", "desirable_weight", "undesirable_weight")
)
LOSSES = frozenset(("validation_loss", "train_loss"))  # of MEASURES
NOT_COMPARED = ("hydra", "tracking", "runtime", "compare", "canary")  # which change no result

Compose = Callable[[Sequence[str]], DictConfig]


@dataclass(frozen=True)
class Request:
    """A sweep as it was asked for."""

    name: str
    stage: str
    arguments: tuple[str, ...]  # the command line
    overrides: Sequence[Override]  # of the command line and of hydra.sweeper.params, which it overrules
    settings: SweepSettings
    compose: Compose
    composed: dict[tuple[str, ...], DictConfig] = field(default_factory=dict)  # what was, by its overrides

    @property
    def last(self) -> list[Override]:
        """The override of each key that counts: so a command line fixes what a preset sweeps over."""
        return list({override.key_or_group: override for override in self.overrides}.values())

    @property
    def space(self) -> list[Dimension]:
        """What trials differ in."""
        return dimensions(self.last)

    @property
    def fixed(self) -> tuple[str, ...]:
        """What they have in common."""
        return tuple(str(override.input_line) for override in self.last if not override.is_sweep_override())

    def composition(self, overrides: tuple[str, ...]) -> DictConfig:
        """Return what overrides compose to, composed once; not to be written to."""
        if overrides not in self.composed:
            self.composed[overrides] = self.compose(overrides)
        return self.composed[overrides]


def begin(request: Request, folder: Folder) -> SweepRecord:
    """Return the sweep of this folder: gone on with where it is the same, else planned; and write it.

    Raises:
        UserError: the folder has another sweep; the message has the keys that differ.
    """
    record = plan(request)
    warn_of_unlike_losses(record.space, request.settings)
    if folder.record_path.is_file():
        recorded = folder.read()
        refuse_another(recorded, record, folder)
        record = recorded
    if request.settings.sampler not in OWN_SAMPLERS:  # which proposes a bracket's trials from those before
        record.write(folder.record_path)
        return record
    return with_trials(record, request, folder, by_bracket(record, request))


def refuse_another(recorded: SweepRecord, asked: SweepRecord, folder: Folder) -> None:
    """Check that a folder's sweep is the one that is asked for.

    Raises:
        UserError: it is not; the message has the keys that differ.
    """
    old, new = compared(recorded), compared(asked)
    changed = [f"{key}: {old.get(key, '(none)')} -> {new.get(key, '(none)')}" for key in changed_keys(old, new)]
    if changed:
        name = recorded.name
        ways = f"give this one another name ({PLACE}.name=…), or go on with that: tunesmith sweeps resume {name}"
        raise UserError(f"{folder.path} has another sweep; differing: {'; '.join(changed)}; {ways}")


def plan(request: Request) -> SweepRecord:
    """Return a sweep without its trials yet.

    Raises:
        UserError: settings that do not fit the stage or one another.
    """
    settings, stage = request.settings, request.stage
    if settings.halves and stage != TRAIN:
        raise UserError(f"{PLACE} stops trainings at rungs, and {stage} is none; take hydra/sweeper=grid")
    refuse_own_winner(request)
    if settings.halves:
        refuse_own_steps(request)
    steps = rungs(settings.min_steps or 1, settings.max_steps, settings.eta) if settings.max_steps else []
    return SweepRecord(
        schema_version=1,
        name=request.name,
        stage=stage,
        arguments=request.arguments,
        settings=asdict(settings),
        fixed=request.fixed,
        space={
            each.get_key_element(): str(each.input_line).partition("=")[2]
            for each in request.last
            if each.is_sweep_override()
        },
        base=base_settings(request),
        data=learnt_digest() if stage == TRAIN else None,
        rungs=tuple(map(tuple, bracket_rungs(steps, settings.brackets))) if steps else ((),),
        trials=(),
    )


def warn_of_unlike_losses(space: Mapping[str, str], settings: SweepSettings) -> None:
    """Say where trials would be ranked by losses of unlike scale.

    Args:
        space: what trials differ in, and their values, as on the command line.
        settings: of the sweep.
    """
    unlike = [key for key in space if key in SCALES]
    if PREFERENCES & set(re.findall(r"\w+", space.get(TRAIN, ""))):
        unlike.append(TRAIN)
    if unlike and LOSSES & settings.weights.keys():
        logger.warning(
            f"losses of trials that differ in {' and '.join(unlike)} are of unlike scale: {PLACE}.objective="
            "[-validation_accuracy] ranks by the share of pairs whose chosen answer is preferred"
        )


def refuse_own_steps(request: Request) -> None:
    """Refuse settings that are the rungs'.

    Raises:
        UserError: there is one.
    """
    for override in request.overrides:
        if override.key_or_group in OF_RUNGS and override.value() is not None:
            raise UserError(
                f"{override.input_line} and rungs both end trainings; leave it out, and set {PLACE}.max_steps"
            )
    if OmegaConf.select(request.composition(request.fixed), "train.patience") is not None:
        raise UserError("train.patience and rungs both end trainings; set train.patience=null")


def refuse_own_winner(request: Request) -> None:
    """Refuse to stand on the experiment that the sweep writes, or to write over one of somebody else's.

    Raises:
        UserError: it would.
    """
    swept = [value for each in request.space if each.key == "experiment" for value in each.values]
    if (own := experiment_name(request.name)) in (*swept, *stands_on(request.fixed)):
        raise UserError(f"experiment={own} is what this sweep would write; give it another name ({PLACE}.name=…)")
    if request.settings.name is not None and not is_free(request.name):
        raise UserError(
            f"{winner_path(request.name)}, which this sweep would write, is none of its own; move that file, or give "
            f"the sweep another name ({PLACE}.name=…)"
        )


def base_settings(request: Request) -> dict[str, object]:
    """Return what the fixed overrides compose to, by dotted keys."""
    composed = OmegaConf.to_container(request.composition(request.fixed), resolve=False)
    assert isinstance(composed, dict)  # noqa: S101
    return flatten({key: value for key, value in composed.items() if key not in NOT_COMPARED})


def learnt_digest() -> str | None:
    """Return the digest of the prepared data, None where a stage has yet to complain that there are none."""
    return PrepareReport.read(PREPARE_REPORT).compared_digest if PREPARE_REPORT.is_file() else None


def compared(record: SweepRecord) -> dict[str, object]:
    """Return by dotted keys what makes a sweep another one; not how often a job is tried, nor the launcher.

    Of the configuration, not what each job is told anyway: adopting the winner changes that, and the sweep goes on.
    """
    settings = {key: value for key, value in record.settings.items() if key not in ("name", "attempts")}
    space = {f"space of {key}": value for key, value in record.space.items()}
    told = ("experiment", *(OF_RUNGS if record.rungs[0] else ()), *(key.lstrip("+") for key in record.space))
    base = {key: value for key, value in record.base.items() if not f"{key}.".startswith(tuple(f"{k}." for k in told))}
    return {
        "stage": record.stage,
        **flatten({"hydra": {"sweeper": settings}}),
        **space,
        **base,
        "prepared data": record.data,
    }


def by_bracket(record: SweepRecord, request: Request) -> Iterator[tuple[int, Values]]:
    """Yield each trial's bracket and values; trials that were added come last, in the first bracket.

    Raises:
        UserError: nothing says how many are drawn, or they are too few for the brackets.
    """
    settings = request.settings
    if settings.sampler == "grid" and settings.trials is None:
        chosen = combinations(request.space)
        first = len(chosen)
    else:
        count = required_trials(settings)
        asked = count + record.extension.trials
        chosen = sample(request.space, asked, settings.seed)
        first = min(count, len(chosen))
        if len(chosen) < asked:
            logger.info(f"{record.name}: of {asked:,} trials that are asked for the space has {len(chosen):,}")
    sizes = bracket_sizes(first, record.rungs) if len(record.rungs) > 1 else [first]
    if 0 in sizes:
        raise UserError(f"{first} trials are too few for {len(sizes)} brackets; take fewer brackets or more trials")
    numbers = [bracket for bracket, size in enumerate(sizes) for _ in range(size)]
    yield from zip(numbers + [0] * (len(chosen) - first), chosen, strict=True)


def required_trials(settings: SweepSettings) -> int:
    """Return how many trials are drawn.

    Raises:
        UserError: nothing says so.
    """
    if settings.trials is None:
        raise UserError(f"{PLACE}.sampler is {settings.sampler} and {PLACE}.trials null; set it to how many are drawn")
    return settings.trials


def with_trials(
    record: SweepRecord, request: Request, folder: Folder, chosen: Iterable[tuple[int, Values]]
) -> SweepRecord:
    """Write the record with these trials, each looked at: what cannot be configured is refused before anything runs.

    Raises:
        UserError: none of the trials can be configured; the message is the first one's.
    """
    have = {tuple(trial.values.items()) for trial in record.trials}
    fresh = [(bracket, values) for bracket, values in chosen if tuple(values.items()) not in have]
    known = identities(record, request) if fresh else {}
    trials = list(record.trials)
    for bracket, values in fresh:
        trials.append(looked_at(len(trials), bracket, values, known, request))
    if trials and all(trial.refused for trial in trials):
        raise UserError(str(trials[0].refused))
    record = record.model_copy(update={"trials": tuple(trials)})
    record.write(folder.record_path)
    return record


def looked_at(number: int, bracket: int, values: Values, known: dict[str, int], request: Request) -> Trial:
    """Return a trial, refused or another's twin where it is; `known` has trials by what they learn, and gets it."""
    try:
        identity = identity_of(configured(request, values), request)
    except UserError as error:
        return Trial(number=number, bracket=bracket, values=dict(values), refused=str(error))
    same_as = known.setdefault(identity, number) if identity else number
    trial = Trial(number=number, bracket=bracket, values=dict(values))
    return trial if same_as == number else trial.model_copy(update={"same_as": same_as})


def configured(request: Request, values: Values) -> Config:
    """Return the configuration of a trial.

    Raises:
        UserError: it cannot be.
    """
    plain = {key: text for key, text in values.items() if re.fullmatch(r"\w+(\.\w+)+", key)}
    others = (*request.fixed, *written({key: text for key, text in values.items() if key not in plain}))
    try:
        with suppress(OmegaConfBaseException):  # of which Hydra says more
            return load(updated(request.composition(others), plain))
        return load(request.compose([*request.fixed, *written(values)]))
    except HydraException as error:
        raise UserError(reason(error)) from error
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration does not resolve: {reason(error)}") from error


def updated(composed: DictConfig, values: Values) -> DictConfig:
    """Return a configuration with values in place of its own, in no time beside that of composing it again."""
    changed = copy.deepcopy(composed)
    for override in OverridesParser.create().parse_overrides(written(values)):
        OmegaConf.update(changed, override.key_or_group, override.value(), merge=True)
    return changed


def written(values: Values) -> list[str]:
    """Return what a trial has as overrides."""
    return [f"{key}={value}" for key, value in values.items()]


def identities(record: SweepRecord, request: Request) -> dict[str, int]:
    """Return the trials that a sweep has by what they learn; those that are another's twin are left out."""
    own = [trial for trial in record.trials if trial.same_as is None and trial.refused is None]
    found = ((identity_of(configured(request, trial.values), request), trial.number) for trial in own)
    return {identity: number for identity, number in found if identity}


def identity_of(config: Config, request: Request) -> str | None:
    """Return a name for what a trial learns; None where speed counts, or where the stage is none that learns."""
    if request.stage != TRAIN or "tokens_per_second" in request.settings.weights:
        return None
    learnt = {"model": asdict(config.model), "data": asdict(config.data), "train": learnt_settings(config.train)}
    return hashlib.sha256(json.dumps(learnt, sort_keys=True).encode()).hexdigest()[:16]


def extended(record: SweepRecord, rungs_more: int, trials_more: int) -> SweepRecord:
    """Return a sweep that goes on by rungs above its last, or by trials.

    Raises:
        UserError: it has no rungs, or no room for more trials.
    """
    settings, before = read_settings(record.settings), record.extension
    if rungs_more and not record.rungs[0]:
        raise UserError(f"{record.name} is a grid without rungs; a longer training is another sweep")
    if trials_more and (settings.trials is None or settings.sampler not in OWN_SAMPLERS):
        raise UserError(f"{record.name} draws no sample that could be larger; a wider space is another sweep")
    longer = tuple(
        (*steps, *(steps[-1] * settings.eta**more for more in range(1, rungs_more + 1))) for steps in record.rungs
    )
    extension = Extension(rungs=before.rungs + rungs_more, trials=before.trials + trials_more)
    return record.model_copy(update={"rungs": longer, "extension": extension})
