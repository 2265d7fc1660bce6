"""Files and folders are whole under their final name or not there: after errors, kills, and on a full disk."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mounts import may_mount

from common.errors import UserError
from common.files import atomic_path, sha256, write_json, write_text

REPO = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPO)}

# Writes sys.argv[1] in sys.argv[2]; the bytes come from the file's name and go on until the disk is full or it is done.
FILL = """
import sys
from pathlib import Path
from common.errors import UserError
from common.files import atomic_path
kind, final, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
try:
    with atomic_path(final) as temporary:
        if kind == "folder":
            (temporary / "deep").mkdir(parents=True)
            temporary = temporary / "deep/file"
        with temporary.open("wb", buffering=0) as file:
            for _ in range(size):
                file.write(b"n" * 4096)
                print(".", flush=True)
except UserError as error:
    sys.exit(f"UserError: {error}")
"""


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def put(final: Path, kind: str, text: str) -> None:
    """Writes a file, or a folder with one file, atomically."""
    with atomic_path(final) as temporary:
        if kind == "folder":
            temporary.mkdir()
            temporary /= "file"
        temporary.write_text(text)


def fail(final: Path, error: BaseException) -> None:
    """Begins to write and then raises."""
    with atomic_path(final) as temporary:
        temporary.write_text("half")
        raise error


def content(final: Path) -> str:
    return (final / "file" if final.is_dir() else final).read_text()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_new_one_appears_with_its_parents_and_replaces_an_old_one(tmp_path: Path, kind: str) -> None:
    final = tmp_path / "a/b/final"
    put(final, kind, "first")
    assert content(final) == "first"
    put(final, kind, "second")
    assert content(final) == "second"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(("old", "new"), [("file", "folder"), ("folder", "file")])
def test_a_file_may_replace_a_folder_and_a_folder_a_file(tmp_path: Path, old: str, new: str) -> None:
    final = tmp_path / "final"
    put(final, old, "old")
    put(final, new, "new")
    assert content(final) == "new"
    assert final.is_dir() == (new == "folder")


def test_nothing_stands_under_the_final_name_while_it_is_written(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with atomic_path(final) as temporary:
        temporary.write_text("half")
        assert temporary.parent == final.parent  # a rename within one file system
        assert not final.exists()
    assert final.read_text() == "half"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_exception_leaves_the_old_one_and_passes_through(tmp_path: Path, kind: str) -> None:
    final = tmp_path / "final"
    put(final, kind, "old")
    with pytest.raises(KeyError, match="mine"):
        fail(final, KeyError("mine"))
    assert content(final) == "old"
    assert hidden(tmp_path) == []


def test_an_interrupt_leaves_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "final"
    put(final, "folder", "old")
    with pytest.raises(KeyboardInterrupt):
        fail(final, KeyboardInterrupt())
    assert content(final) == "old"
    assert hidden(tmp_path) == []


def test_nothing_written_is_an_error_that_leaves_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "final"
    put(final, "folder", "old")
    with pytest.raises(FileNotFoundError), atomic_path(final):
        pass
    assert content(final) == "old"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path, kind: str) -> None:
    final = tmp_path / "final"
    for leftover in (".final.tmp", ".final.old.tmp"):
        (tmp_path / leftover / "deep").mkdir(parents=True)
        (tmp_path / leftover / "deep/file").write_text("left")
    put(final, kind, "new")
    assert content(final) == "new"
    assert hidden(tmp_path) == []


def test_what_is_in_the_way_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file where a folder has to be")
    with pytest.raises(UserError, match=r"^cannot make the folder .*reports: a file has its") as raised:
        write_text(tmp_path / "reports/final", "x")
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(not may_mount(), reason="a full disk needs `unshare -rm` and a tmpfs mount")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_full_disk_ends_in_one_line_and_leaves_the_old_one(tmp_path: Path, kind: str) -> None:
    # The disk lives in a mount namespace of its own and goes with it.
    script = f"""
        mount -t tmpfs -o size=256k none {tmp_path} || exit 99
        {sys.executable} -c "$1" {kind} {tmp_path}/final 10 > /dev/null || exit 98
        find {tmp_path}/final -type f -exec sha256sum {{}} +
        {sys.executable} -c "$1" {kind} {tmp_path}/final 100 > /dev/null
        echo "exit $?"
        find {tmp_path}/final -type f -exec sha256sum {{}} +
        find {tmp_path} -name '.*'
    """
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", FILL],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    before, after = done.stdout.split("exit 1\n")
    assert before == after != ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"UserError: cannot write {tmp_path}/final: No space left on device; make room")


@pytest.mark.skipif(not may_mount(), reason="a read-only disk needs `unshare -rm` and a mount")
def test_a_read_only_folder_ends_in_one_line(tmp_path: Path) -> None:
    script = f"""
        mount -t tmpfs -o ro none {tmp_path} || exit 99
        {sys.executable} -c "$1" file {tmp_path}/final 1
    """
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", FILL], env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"UserError: cannot write {tmp_path}/final: Read-only file system; make room or grant access"
    )


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("old", [True, False])
def test_a_process_killed_while_writing_leaves_nothing_half_written(tmp_path: Path, kind: str, old: bool) -> None:
    final = tmp_path / "final"
    if old:
        put(final, kind, "old")
    process = subprocess.Popen(
        [sys.executable, "-c", FILL, kind, str(final), "1000000"], env=ENVIRONMENT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first block is written
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert hidden(tmp_path) != []  # it was killed in the middle
    assert (content(final) if final.exists() else None) == ("old" if old else None)
    put(final, kind, "new")
    assert content(final) == "new"
    assert hidden(tmp_path) == []


def test_a_process_killed_while_replacing_a_folder_leaves_a_whole_one(tmp_path: Path) -> None:
    writer = (
        "import itertools, sys; from pathlib import Path; from common.files import atomic_path\n"
        "for turn in itertools.count():\n"
        "    with atomic_path(Path(sys.argv[1])) as folder:\n"
        "        folder.mkdir(); [(folder / str(n)).write_text(str(turn)) for n in range(20)]\n"
        "    print(turn, flush=True)\n"
    )
    final = tmp_path / "final"
    for wait in (0.0, 0.003, 0.011, 0.029):
        process = subprocess.Popen([sys.executable, "-c", writer, str(final)], env=ENVIRONMENT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.kill()
        process.wait()
        process.stdout.close()
        if final.exists():  # killed between two renames, it is aside and DVC brings the last one back
            assert len({path.read_text() for path in final.iterdir()}) == 1
            assert len(list(final.iterdir())) == 20


def test_a_symlink_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    # DVC's cache may be linked into the workspace.
    (tmp_path / "cache").write_text("cached")
    (tmp_path / "final").symlink_to("cache")
    put(tmp_path / "final", "file", "new")
    assert (tmp_path / "final").read_text() == "new"
    assert (tmp_path / "cache").read_text() == "cached"


def test_json_is_readable_text_and_holds_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"größe": [1, 0.5, None]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "größe" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"größe": [1, 0.5, None]}
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == text


def test_the_digest_of_a_file_is_its_contents_and_of_a_folder_its_names_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"text").hexdigest()
    digests = set()
    for number, name in enumerate(("a", "b", "deep/a")):
        path = tmp_path / str(number) / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"text")
        digests.add(sha256(tmp_path / str(number)))
    shutil.copytree(tmp_path / "0", tmp_path / "copy")
    assert len(digests) == 3
    assert sha256(tmp_path / "copy") in digests
