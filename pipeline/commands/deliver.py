"""Delivers to MLflow what the journals of trainings and sweeps still keep, where no stage runs any more.

tunesmith deliver
"""

from collections.abc import Iterator, Sequence

from pipeline.core.composition import CONF, compose
from pipeline.core.config import Config, load
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.journal import JOURNAL, Journal
from pipeline.tracking.run import SWEEPS, training_folder


def run(overrides: Sequence[str] = ()) -> None:
    """Deliver what is kept, and say of each journal that MLflow has taken it all.

    Args:
        overrides: settings, as in conf/tracking.

    Raises:
        UserError: a setting that conf/ does not know.
    """
    config = load(compose(CONF, list(overrides)))
    for journal in journals(config):
        if journal.sent < journal.size:
            delivery = Delivery(journal, config.tracking)
            delivery.start()
            delivery.close(None)
            if journal.sent == journal.size:
                print(f"delivered {journal.path}")


def journals(config: Config) -> Iterator[Journal]:
    """Yield the journals of sweeps, under whose runs their trials' are, and then those of all trainings."""
    trainings = training_folder(config, "").rglob(JOURNAL)  # a sweep's lie deeper than others
    sweeps = (path for folder in SWEEPS for path in folder.glob(f"*/{JOURNAL}"))
    for path in [*sorted(sweeps), *sorted(trainings)]:
        yield Journal(path.parent)
