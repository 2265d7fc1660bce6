import logging
from collections.abc import Iterator

import pytest

from common.logs import configure_logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    configure_logs()


def test_a_line_is_the_message_and_a_warning_says_that_it_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    logging.getLogger("pipeline.training.session").info("measuring %d", 3)
    logging.getLogger("llama.model").warning("it is slow")
    logging.getLogger("pipeline").debug("details")
    assert capsys.readouterr() == ("measuring 3\nwarning: it is slow\n", "")


def test_of_several_processes_the_others_warn_alone_and_say_which_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(rank=2)
    logging.getLogger("pipeline.training.session").info("measuring")
    logging.getLogger("pipeline.training.session").warning("it is slow")
    assert capsys.readouterr() == ("", "[rank 2] warning: it is slow\n")


def test_nobody_says_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    root = logging.StreamHandler()
    logging.getLogger().addHandler(root)
    try:
        logging.getLogger("pipeline.data").warning("once")
    finally:
        logging.getLogger().removeHandler(root)
    out, err = capsys.readouterr()
    assert out.count("once") == 1
    assert err == ""
