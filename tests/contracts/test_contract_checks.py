"""Each way in which a contract can break, on a library that is made for it; and each use that needs a row."""

import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from library_members import broken
from member_uses import Code
from private_members import Member

LIBRARY = """
    class Loop:
        def __init__(self):
            self._total = 0

        def run(self, model):
            self._step(model, number=1)
            return getattr(model, "_is_ready", False)

        def _step(self, model, number):
            self._total += number

    class Narrow(Loop):
        def _step(self, model, number):
            super()._step(model, number)

    def _helper(text): ...
"""
STEP = Member("planted", "planted.Loop._step", "1.0", "overridden", "planted.Loop.run", ("model", "number"))


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a library `planted` in the path, with some of its text replaced."""

    def write(before: str = "", after: str = "") -> None:
        monkeypatch.delitem(sys.modules, "planted", raising=False)
        assert before in LIBRARY
        (tmp_path / "planted.py").write_text(textwrap.dedent(LIBRARY.replace(before, after) if before else LIBRARY))
        monkeypatch.syspath_prepend(str(tmp_path))

    yield write
    sys.modules.pop("planted", None)


@pytest.fixture
def uses(plant, tmp_path: Path):
    """What a file of ours uses of the library."""
    plant()

    def found(text: str) -> set[str]:
        (tmp_path / "ours").mkdir()
        (tmp_path / "ours" / "code.py").write_text(textwrap.dedent(text))
        return {use.name for use in Code([tmp_path / "ours"]).uses}

    return found


def test_a_contract_holds(plant) -> None:
    plant()
    marks = replace(STEP, name="*._is_ready", parameters=())
    total = replace(STEP, name="planted.Loop._total", called_by="planted.Loop._step", parameters=())
    assert [broken(member) for member in (STEP, marks, total)] == [None] * 3


def test_a_member_that_is_gone_is_told(plant) -> None:
    plant(
        "def _step(self, model, number):\n            self._total",
        "def _advance(self, model, number):\n            self._total",
    )
    assert broken(replace(STEP, called_by="")) == "planted.Loop._step is gone"


def test_an_attribute_that_is_no_longer_set_is_told(plant) -> None:
    plant("_total", "_sum")
    assert (
        broken(replace(STEP, name="planted.Loop._total", called_by="", parameters=())) == "planted.Loop._total is gone"
    )


def test_a_parameter_that_is_gone_is_told(plant) -> None:
    plant("number", "index")
    assert broken(STEP) == "planted.Loop._step no longer has the parameter number"


def test_a_hook_that_nobody_calls_any_more_is_told(plant) -> None:
    plant("self._step(model, number=1)", "self._total += 1")
    assert broken(STEP) == "planted.Loop.run no longer calls _step"


def test_a_mark_that_nobody_looks_for_any_more_is_told(plant) -> None:
    plant('getattr(model, "_is_ready", False)', "False")
    assert broken(replace(STEP, name="*._is_ready")) == "planted.Loop.run no longer calls _is_ready"


def test_a_caller_that_is_gone_is_told(plant) -> None:
    plant("def run", "def go")
    assert broken(STEP) == "planted.Loop.run is gone"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("from planted import _helper", "planted._helper"),
        ("from planted._inner import x", "planted._inner.x"),
        ("import planted as p\np._helper('')", "planted._helper"),
        ("def f():\n    from planted import Loop\n    return Loop._step", "planted.Loop._step"),
        ("def f(loop):\n    loop._total = 1", "*._total"),
        ("def f(loop):\n    return loop.inner._total.x", "*._total"),
        ("def f(loop):\n    return setattr(loop, '_total', 1)", "*._total"),
        ("def f(loop):\n    return getattr(loop, f'_total{loop}')", "*._total"),
        ("import logging\nlogging.getLogger('planted._inner')", "*.planted._inner"),
        ("from planted import Loop\nclass A(Loop):\n    def _step(self): ...", "planted.Loop._step"),
        ("from planted import Loop\nclass A(Loop): ...\nclass B(A):\n    def _step(self): ...", "planted.Loop._step"),
        ("from planted import Loop\nclass A(Loop):\n    def f(self):\n        self._total", "planted.Loop._total"),
        ("from planted import Loop\nclass A(Loop):\n    def f(self):\n        self._total = 0", "planted.Loop._total"),
        ("from planted import Loop\nclass A(Loop):\n    def f(self):\n        super()._step(1)", "planted.Loop._step"),
        ("from planted import Loop\nclass A(Loop):\n    def f(self):\n        return self._unknown", "*._unknown"),
        ("class A:\n    def f(self):\n        return self.loop._total", "*._total"),
        ("def f(self):\n    self._total", "*._total"),
        ("import uvicorn\nclass A(uvicorn.Server):\n    def startup(self): ...", "uvicorn.server.Server.startup"),
        ("from mlflow.store.db import utils", "mlflow.store.db.utils"),
    ],
)  # fmt: skip
def test_a_use_of_a_private_member_is_found(uses, text: str, name: str) -> None:
    assert uses(text) == {name}


def test_a_base_of_the_base_counts_where_both_have_the_member(uses) -> None:
    text = "from planted import Narrow\nclass A(Narrow):\n    def _step(self): ..."
    assert uses(text) == {"planted.Narrow._step", "planted.Loop._step"}


def test_what_is_ours_or_documented_needs_no_row(uses) -> None:
    text = """
        import os
        from ours.other import _mine
        from planted import Loop

        class A(Loop):
            def __init__(self):
                self._own = self.__dict__

            def _extra(self, other):
                return other._own, self._extra, _mine, os._exit, other._asdict(), "_low", getattr(self, f"_e{other}")
    """
    assert uses(text) == set()
