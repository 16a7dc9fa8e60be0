"""Files that several write at once, and those that nobody else may read."""

import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from valentina_pipeline.common import atomic_files


def test_several_replace_one_file_at_once(tmp_path: Path) -> None:
    contents = [bytes([number]) * 300_000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda content: atomic_files.replace(tmp_path / "one.png", content), contents * 4))
    assert (tmp_path / "one.png").read_bytes() in contents
    assert [file.name for file in tmp_path.iterdir()] == ["one.png"]


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    atomic_files.replace(tmp_path / ("a" * 255), b"content")
    assert (tmp_path / ("a" * 255)).read_bytes() == b"content"


def test_what_cannot_be_written_leaves_the_former_content_and_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("former")
    with pytest.raises(RuntimeError), atomic_files.replacing(tmp_path / "one") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert [file.read_text() for file in tmp_path.iterdir()] == ["former"]


def test_a_durable_file_reaches_the_disk_before_its_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, bool]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append((is_folder, (tmp_path / "one").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    atomic_files.replace(tmp_path / "one", b"content", durable=True)
    assert synced == [(False, False), (True, True)]
    assert (tmp_path / "one").read_bytes() == b"content"


def test_what_a_killed_process_left_is_removed_by_a_later_write_and_what_is_being_written_is_not(
    tmp_path: Path,
) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from valentina_pipeline.common import atomic_files
with atomic_files.replacing(Path(sys.argv[1])) as partial:
    partial.mkdir()
    (partial / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "one"])
    (left,) = tmp_path.iterdir()
    atomic_files.replace(tmp_path / "two", b"")
    assert left.is_dir()
    before = time.time() - atomic_files.MAX_WRITE_SECONDS - 1
    others = [tmp_path / name for name in ("another.partial", ".hidden")]
    for other in others:
        other.write_text("a person's")
    for path in (left, *others):
        os.utime(path, (before, before))
    atomic_files._remove_leftovers.cache_clear()  # as in the next process
    atomic_files.replace(tmp_path / "two", b"")
    assert {*tmp_path.iterdir()} == {tmp_path / "two", *others}


def test_a_mode_is_a_file_s_from_the_first_byte_on(tmp_path: Path) -> None:
    former = os.umask(0o022)
    try:
        atomic_files.replace(tmp_path / "key", b"", 0o600)
        atomic_files.replace(tmp_path / "image", b"")
    finally:
        os.umask(former)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("key", "image")]
    assert modes == [0o600, 0o644]


def test_a_private_folder_is_its_owner_s_alone_also_where_it_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir(mode=0o755)
    for folder in (tmp_path / "before", tmp_path / "above/new"):
        assert stat.S_IMODE(atomic_files.private(folder).stat().st_mode) == 0o700
