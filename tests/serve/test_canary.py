"""Which model answers a conversation while a candidate is tried."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from common.errors import UserError
from serve.canary import Canary
from serve.engine import Engine
from serve.following import candidate_of
from serve.settings import Settings

TALKS = [f"{number:032x}" for number in range(400)]


@pytest.fixture
def canary(engine: Engine, settings: Settings) -> Callable[..., Canary]:
    def make(candidate: str = "other", share: float = 0.1, **more: Any) -> Canary:
        return Canary(engine, replace(settings, canary=candidate, canary_share=share, max_loaded_models=2, **more))

    return make


def drawn(canary: Canary) -> set[str]:
    return {talk for talk in TALKS if canary.answers("random", talk, "") == ("other", "random")}


def test_a_share_of_conversations_is_the_candidate_s_and_stays_so(canary: Callable[..., Canary]) -> None:
    few, half, all_of_them = (drawn(canary(share=share)) for share in (0.1, 0.5, 1.0))
    assert 20 <= len(few) <= 60
    assert few < half < all_of_them == set(TALKS)
    assert drawn(canary(share=0.1)) == few
    assert drawn(canary(share=0.0)) == set()


def test_a_conversation_that_was_begun_stays_with_its_model(canary: Callable[..., Canary]) -> None:
    tried = canary(share=0.5)
    chosen, rest = drawn(tried), set(TALKS) - drawn(tried)
    assert {tried.answers("random", talk, "random") for talk in chosen} == {("random", "")}
    assert {tried.answers("random", talk, "other") for talk in rest} == {("other", "random")}
    assert {tried.answers("random", talk, "endless") for talk in chosen} == {("other", "random")}  # of a third


def test_who_asks_for_a_model_by_name_gets_it(canary: Callable[..., Canary]) -> None:
    tried = canary(share=1.0)
    assert tried.answers("endless", TALKS[0], "") == ("endless", "")
    assert tried.answers("other", TALKS[0], "") == ("other", "")
    assert tried.answers("random", "", "") == ("random", "")  # a program that tells of no conversation


@pytest.mark.parametrize("candidate", ["", "random", "models:/gone@candidate"])
def test_without_a_candidate_all_are_the_champion_s(canary: Callable[..., Canary], candidate: str) -> None:
    tried = canary(candidate, share=1.0)
    assert tried.candidate is None
    assert tried.answers("random", TALKS[0], "other") == ("random", "")


def test_a_candidate_that_is_no_model_and_no_alias_ends_the_start_in_one_line(canary: Callable[..., Canary]) -> None:
    with pytest.raises(UserError, match="SERVE_CANARY=gone: no such model answers here: endless, "):
        canary("gone")
    with pytest.raises(UserError, match="SERVE_CANARY=models:/one/3: must be models:/name@alias, or the name of"):
        candidate_of("models:/one/3")
