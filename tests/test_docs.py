"""What the documentation points to is there: linked files and headings, named files, modules and make targets."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from project import ROOT, project_files

OUTPUTS = {"data", "models", "reports"}  # folders for what a run makes
MADE = ("benchmarks/results/", "CHANGELOG.md")  # records of what was: their code is not held to what is


FILES = project_files()
PAGES = sorted(name for name in FILES if name.endswith(".md"))
TOLD = [name for name in PAGES if not name.startswith(MADE)]


def parse(text: str) -> list[Token]:
    """All tokens of a page, those within lines among them."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    return [inner for token in tokens for inner in (token, *(token.children or []))]


def links(text: str) -> Iterator[str]:
    """Where a page's links and pictures lead, those in HTML among them."""
    for token in parse(text):
        if token.type in ("link_open", "image"):
            yield str(token.attrGet("href") or token.attrGet("src"))
        if token.type.startswith("html"):
            yield from re.findall(r"""(?:href|src)=["']([^"']+)""", token.content)


def anchors(text: str) -> set[str]:
    """The headings' names in links, as repository hosts make them; the second of one name ends in -1."""
    tokens, found = parse(text), set[str]()
    for heading, line in pairwise(tokens):
        if heading.type == "heading_open":
            words = "".join(part.content for part in line.children or [])
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.add(next(name for name in (slug, *(f"{slug}-{n}" for n in range(1, 99))) if name not in found))
    return found


def broken(page: str, text: str) -> list[str]:
    """The page's links to files that no clone has, and to headings that are not there."""
    return [link for link in links(text) if not leads_somewhere(link, (ROOT / page).parent, text)]


def leads_somewhere(link: str, folder: Path, text: str) -> bool:
    """Whether a link of a page in this folder is kept; what it is on other machines is not asked."""
    url = urlsplit(unquote(link))
    target = folder.joinpath(url.path).resolve()
    if url.scheme:
        return True
    if url.path and not is_there(target):
        return False
    return not url.fragment or url.fragment in anchors(target.read_text() if url.path else text)


def is_there(path: Path) -> bool:
    """Whether a clone has this file, or a folder with files."""
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else "outside"
    return name in FILES or any(file.startswith(f"{name}/") for file in FILES)


def code(text: str) -> str:
    """What a page shows as code."""
    return "\n".join(token.content for token in parse(text) if token.type in ("code_inline", "code_block", "fence"))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert broken(page, (ROOT / page).read_text()) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](../README.md) [b](../docs) [c](export.md) [d](https://example.org/x)", []),
        ("[a](missing.md)", ["missing.md"]),
        ("see [a]\n\n[a]: ../missing/file.json", ["../missing/file.json"]),
        ("![a](images/missing.png)", ["images/missing.png"]),
        ('<img src="images/missing.png">', ["images/missing.png"]),
        ("[a](/README.md) [b](../../README.md)", ["/README.md", "../../README.md"]),
        ("`[a](missing.md)`\n\n    [b](missing.md)", []),
        ("## What is `x`, and y?\n\n[a](#what-is-x-and-y) [b](#what-is-x)", ["#what-is-x"]),
        ("# One\n\n# One\n\n[a](#one-1) [b](#one-2)", ["#one-2"]),
        ("[a](../README.md#tunesmith) [b](../README.md#gone)", ["../README.md#gone"]),
    ],
)
def test_a_link_that_leads_nowhere_is_found(text: str, wrong: list[str]) -> None:
    assert broken("docs/page.md", text) == wrong


@pytest.mark.parametrize("page", TOLD)
def test_files_that_are_named_are_there(page: str) -> None:
    folders = "|".join({name.partition("/")[0] for name in FILES if "/" in name} - OUTPUTS)
    named = re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*\w", code((ROOT / page).read_text()))
    assert [path for path in named if not is_there(ROOT / path)] == []


@pytest.mark.parametrize("page", TOLD)
def test_modules_that_are_named_can_be_run(page: str) -> None:
    named = set(
        re.findall(r"python3? -m ((?:pipeline|serve|starter|benchmarks)[\w.]*)", code((ROOT / page).read_text()))
    )
    files = {name: (f"{name.replace('.', '/')}.py", f"{name.replace('.', '/')}/__main__.py") for name in named}
    assert [name for name, ways in files.items() if not FILES & set(ways)] == []


@pytest.mark.parametrize("page", TOLD)
def test_tests_that_are_named_are_there(page: str) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", code((ROOT / page).read_text()))
    gone = [f"{file}::{name}" for file, name in named if f"\ndef {name}(" not in (ROOT / file).read_text()]
    assert gone == []
    assert named or page != "docs/security.md"


@pytest.mark.parametrize("page", TOLD)
def test_make_targets_that_are_named_are_there(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^\s*make ([a-z][a-z-]*)", code((ROOT / page).read_text()), re.MULTILINE)) <= targets
