"""Rows under data/raw, and what `prepare` makes of them."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.core.data_settings import DataSettings

SPLITS = ("train", "validation", "test")


def local(**changes: Any) -> DataSettings:
    return DataSettings(**({"name": "local", "source": "files", "files": ["data/raw/**/*"]} | changes))


def put_rows(root: Path, name: str, rows: list[Any]) -> None:
    path = root / "data/raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def splits_in(folder: Path) -> dict[str, list[Any]]:
    return {name: pq.read_table(folder / f"{name}.parquet")["messages"].to_pylist() for name in SPLITS}
