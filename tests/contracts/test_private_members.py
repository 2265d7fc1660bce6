"""What the table of other libraries' private members says of the installed ones, and of our code."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from library_members import broken, full_name, installed
from member_uses import Code, Use
from private_members import INTERNAL, MEMBERS, Member

ROOT = Path(__file__).parents[2]
PACKAGES = ("common", "llama", "pipeline", "serve", "starter")


@pytest.fixture(scope="module")
def code() -> Code:
    """All that is shipped."""
    return Code(ROOT / name for name in PACKAGES if (ROOT / name).is_dir())


@pytest.fixture(scope="module", autouse=True)
def _converter(code: Code) -> Iterator[None]:
    """llama.cpp's converter can be imported, beside the installed gguf and not with its own."""
    import gguf  # noqa: F401

    before = sys.path.copy()
    (where,) = (source.where for source in code.sources if "def llama_cpp_tree" in (ROOT / source.where).read_text())
    source = importlib.import_module(where.removesuffix(".py").replace("/", "."))
    sys.path.append(str(source.llama_cpp_tree()))
    yield
    sys.path[:] = before


def covers(member: Member, use: Use) -> bool:
    """Whether a row names what is used: the member, what is reached by it, or the class whose member it is."""
    if use.name.startswith("*."):
        return f".{member.name}".endswith(use.name[1:])
    if use.name.startswith(INTERNAL) and member.name.startswith(f"{use.name}."):
        return True
    return f"{use.name}.".startswith((f"{member.name}.", f"{full_name(member.name)}."))


def unnamed(code: Code, members: tuple[Member, ...]) -> list[str]:
    """The uses that no row names."""
    return sorted({f"{use.where} uses {use.name}" for use in code.uses if not any(covers(m, use) for m in members)})


def is_used(code: Code, member: Member) -> bool:
    """Whether our code has any use of it; one without an underscore by its bare name."""
    return any(covers(member, use) for use in code.uses) or (
        not member.attribute.startswith("_") and member.attribute in code.names
    )


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_a_member_is_there_as_we_rely_on_it(member: Member) -> None:
    version = installed(member)
    if version is None:
        pytest.skip(f"{member.library} is not installed")
    wrong = broken(member)
    assert wrong is None, f"{member.library} {version} (read in {member.read_in}): {wrong}. We need it: {member.why}"


def test_every_private_member_in_use_is_in_the_table(code: Code) -> None:
    missing = unnamed(code, MEMBERS)
    assert not missing, "\n".join(["name them in tests/contracts/private_members.py, or do without:", *missing])


def test_every_row_of_the_table_is_used(code: Code) -> None:
    unused = [member.name for member in MEMBERS if not is_used(code, member)]
    assert not unused, "\n".join(["nothing uses these any more, take their rows out:", *unused])
