"""What an exported file says of where it comes from."""

from pathlib import Path

from gguf import GGUFReader, LlamaFileType

from common.errors import UserError
from pipeline.core.records import FileLineage
from pipeline.gguf.lineage_key import LINEAGE_KEY


def read_gguf(path: Path) -> GGUFReader:
    """Return a file's header and tensors, which stay on disk.

    Raises:
        UserError: it is missing, no GGUF, or cut off.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file here")
    try:
        return GGUFReader(path)
    except Exception as error:  # a damaged header fails anywhere in gguf's reader
        raise UserError(
            f"{path} cannot be read as a GGUF: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def read_lineage_of(file: GGUFReader, path: Path) -> FileLineage:
    """Return where a file comes from.

    Args:
        file: that was read.
        path: its, for what is said of it.

    Raises:
        UserError: another maker's, another version's, or damaged.
    """
    field = file.get_field(LINEAGE_KEY)
    if field is None:
        raise UserError(
            f"{path} does not say where it comes from: another program made it, or Tunesmith before it wrote"
            f" {LINEAGE_KEY}; `tunesmith export` makes files that do"
        )
    try:
        text = str(field.contents())
    except UnicodeDecodeError as error:
        raise UserError(f"{path} has a damaged {LINEAGE_KEY}: {error.reason}") from error
    return FileLineage.parse_text(text, f"{LINEAGE_KEY} in {path}")


def type_of(file: GGUFReader, path: Path) -> str:
    """Return what a file's weights are in, such as Q4_K_M.

    Raises:
        UserError: it does not say, or nothing that is known.
    """
    field = file.get_field("general.file_type")
    try:
        name = LlamaFileType(int(field.contents())).name  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} has no general.file_type that is known") from error
    return name.removeprefix("ALL_").removeprefix("MOSTLY_")
