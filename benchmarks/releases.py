"""Two releases of models that a server follows by one link, which is moved between them while it answers."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

from common.errors import UserError

KEY = "releases"  # SERVE_ADMIN_KEY of a server that lives as long as a benchmark
SETTINGS: dict[str, object] = {"admin_key": KEY, "follow_seconds": 0}


@dataclass(frozen=True)
class Releases:
    """Two folders, and the link by which a server with SETTINGS finds one of them; the first one to begin with."""

    link: Path
    folders: tuple[Path, Path]

    @classmethod
    def laid_out(cls, place: Path, one: Path, other: Path) -> "Releases":
        """Lay out releases of links to models, each a GGUF file or a folder of them."""
        folders = place / "release-1", place / "release-2"
        for folder, models in zip(folders, (one, other), strict=True):
            for path in _files(models):
                link = folder / path.relative_to(models if models.is_dir() else models.parent)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())
        made = cls(place / "current", folders)
        made.move(0)
        return made

    def move(self, which: int) -> None:
        """Let the link lead to the first folder (0) or the second one (1)."""
        point(self.link, self.folders[which])


def point(link: Path, to: Path) -> None:
    """Let a symbolic link lead elsewhere, in one step."""
    new = link.with_name(f".{link.name}")
    new.symlink_to(to)
    new.replace(link)


async def look(client: httpx.AsyncClient) -> None:
    """Have a server look at once where its sources lead. Raises UserError where it does not follow."""
    told = await client.post("/admin/reload", headers={"x-api-key": KEY})
    if told.status_code != 200:
        raise UserError(told.text)


def _files(models: Path) -> Iterable[Path]:
    return models.rglob("*.gguf") if models.is_dir() else [models]
