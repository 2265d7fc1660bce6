"""MkDocs's hook: the site is laid out as the repository, so that a link holds in both; and pages of the API.

Only what git would commit is on the site: a page that links to another file fails the strict build.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "NOTICE", "starter/README.md")
FOLDERS = ("docs", "benchmarks/results")  # what pages may link to beside those files
PACKAGES = ("common", "llama", "pipeline", "serve", "starter")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the API to the navigation that mkdocs.yml has."""
    config.nav = [*(config.nav or []), {"API": [page for page, _ in api_pages()]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the repository's files in the place of those in docs/ alone; the theme's own stay."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    ours = [File.generated(config, name, abs_src_path=str(ROOT / name)) for name in tracked(*FILES, *FOLDERS)]
    pages = [File.generated(config, page, content=content) for page, content in api_pages()]
    return Files([*theme, *ours, *pages])


def tracked(*patterns: str) -> list[str]:
    """Return the files that git has or would add, by their path in the repository; a * goes through folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(name for name in names if (ROOT / name).is_file())


def api_pages() -> Iterator[tuple[str, str]]:
    """Yield a page for each package with modules: its path, and what mkdocstrings reads."""
    for package in PACKAGES:
        for folder in sorted({Path(name).parent for name in tracked(f"{package}/*.py")}):
            name = ".".join(folder.parts)
            modules = [path.stem for path in sorted((ROOT / folder).glob("*.py")) if not path.stem.startswith("_")]
            yield f"api/{name}.md", "\n\n".join([f"# {name}", *(f"::: {name}.{module}" for module in modules)])
