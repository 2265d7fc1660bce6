"""The tracked runs, in MLflow's own pages: on the database that they are recorded in.

tunesmith mlflow --port 5001
"""

import re
from collections.abc import Sequence

from common.errors import UserError
from pipeline.commands import deliver
from pipeline.core.composition import CONF, compose
from pipeline.core.config import load
from pipeline.tracking.delivery import is_database, tracking_uri, without_login

OVERRIDE = re.compile(r"(tracking|runtime)(\.\w+)*=")


def run(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Deliver what MLflow has not taken yet; return the database to show, if it is one, and the options for its pages.

    Args:
        arguments: settings, as in conf/tracking, and options of `mlflow server`.

    Raises:
        UserError: a setting that conf/ does not know, or a database whose driver is not installed.
    """
    overrides = [argument for argument in arguments if OVERRIDE.match(argument)]
    options = [argument for argument in arguments if argument not in overrides]
    uri = tracking_uri(load(compose(CONF, overrides)).tracking)
    if is_database(uri):
        require_driver(uri)
    deliver.run(overrides)
    if is_database(uri):
        return uri, options
    print(f"the runs are at {without_login(uri)}, which is a server already: none is started here")
    return None, options


def require_driver(uri: str) -> None:
    """See to it that Python can talk to a database.

    Raises:
        UserError: it cannot, or the address is none.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(uri).get_dialect().import_dbapi()
    except ArgumentError as error:
        raise UserError(f"{without_login(uri)} is no address of a database; see tracking.uri") from error
    except ImportError as error:
        raise UserError(f"{without_login(uri)} needs a driver ({error}); install it beside Tunesmith") from error
