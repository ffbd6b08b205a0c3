"""Files on disks that are full, read-only or taken from under a process: a whole file, the old one, or none."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sparsefx.passes.errors import BundleError, MaskError, TableError
from sparsefx.runtime.files import folder_beside, write_whole
from sparsefx.runtime.latency import table_file
from sparsefx.runtime.latency.record import Record

DATA = b"x" * 100_000


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own in memory; skips where this user may not mount one."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_keeps_the_old_file(tmp_path: Path) -> None:
    with disk(tmp_path / "small", "size=64k") as small:
        write_whole(small / "masks", b"old", MaskError)
        with pytest.raises(MaskError) as caught:
            write_whole(small / "masks", DATA, MaskError)
        message = str(caught.value)
        assert f"cannot write {small / 'masks'}: No space left on device; nothing was changed" in message
        assert "free some space, or choose another folder" in message
        assert (small / "masks").read_bytes() == b"old" and os.listdir(small) == ["masks"]
        with (
            pytest.raises(BundleError, match="No space left on device"),
            folder_beside(small / "x", BundleError) as new,
        ):
            (new / "model.onnx").write_bytes(DATA)
        assert os.listdir(small) == ["masks"]


def test_a_disk_that_is_read_only_is_told(tmp_path: Path) -> None:
    with disk(tmp_path / "fixed", "ro") as fixed:
        with pytest.raises(MaskError, match=r"Read-only file system.*choose a folder that you may write to"):
            write_whole(fixed / "masks", b"new", MaskError)
        with pytest.raises(BundleError, match="Read-only"), folder_beside(fixed / "deep" / "x.sfx", BundleError):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_of_somebody_else_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MaskError, match=r"Permission denied.*choose a folder that you may write to"):
        write_whole(tmp_path / "masks", b"new", MaskError)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_may_not_be_so_large_is_told(tmp_path: Path) -> None:
    with files_of_at_most(5000), pytest.raises(MaskError, match=r"File too large.*nothing was changed.*ulimit -f"):
        write_whole(tmp_path / "masks", DATA, MaskError)
    assert os.listdir(tmp_path) == []


def test_a_measurement_that_cannot_be_written_leaves_those_before(tmp_path: Path) -> None:
    table = tmp_path / "t.latency"
    table_file.write(table, {"setting": {}}, [])
    record = Record("net", None, (), 1e-3, 1e-2, 20, 1e-3)
    table_file.append(table, record)
    before = table.read_bytes()
    with files_of_at_most(len(before) + 10), pytest.raises(TableError, match="what was measured before is in it"):
        table_file.append(table, record)
    assert table.read_bytes() == before and len(table_file.read(table)[1]) == 1


@pytest.mark.parametrize("path", ["file/x", "folder"])
def test_a_path_that_is_taken_is_told(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(MaskError, match="choose another path"):
        write_whole(tmp_path / path, b"new", MaskError)


WRITER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the tests in the background
from pathlib import Path
from sparsefx.passes.errors import BundleError
from sparsefx.runtime.files import folder_beside
with folder_beside(Path(sys.argv[1]), BundleError) as folder:
    (folder / "model.onnx").write_bytes(b"half")
    print("half", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_writer_leaves_goes_with_the_next_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.sfx"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) for _ in "12"
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "half\n"
        assert len(os.listdir(tmp_path)) == 2 and not path.exists()
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait(60)
        leftovers = sorted(tmp_path.iterdir())
        assert len(leftovers) == 2 and all(p.name.startswith(".model.sfx.") for p in leftovers)
        _age(leftovers)
        write_whole(path, b"whole", BundleError)
        assert path.read_bytes() == b"whole" and len(os.listdir(tmp_path)) == 2, "the living writer's folder is kept"
        writers[1].send_signal(signal.SIGINT)
        writers[1].wait(60)
        assert os.listdir(tmp_path) == ["model.sfx"]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_a_temporary_of_this_minute_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".masks.0123abcd.partial").write_bytes(b"half")
    write_whole(tmp_path / "masks", b"whole")
    assert sorted(os.listdir(tmp_path)) == [".masks.0123abcd.partial", "masks"]
    _age([tmp_path / ".masks.0123abcd.partial"])
    write_whole(tmp_path / "masks", b"again")
    assert os.listdir(tmp_path) == ["masks"]


def _age(paths: list[Path]) -> None:
    then = time.time() - 3600
    for path in paths:
        os.utime(path, (then, then))
