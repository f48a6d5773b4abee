"""Files are whole or not there, and what a killed write leaves is removed later."""

import os
import stat
import subprocess
import sys
import time

import pytest
from processes import files_of_at_most

from otrw import atomic


def test_text_and_bytes_arrive_as_they_are(tmp_path):
    atomic.write_text(tmp_path / "a.txt", "caf\u00e9\r\n")
    atomic.write_bytes(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xc3\xa9\r\n"
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with atomic.replace(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        atomic.write_text(tmp_path / "nowhere" / "file", "x")


def test_permissions_are_those_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_name_that_is_taken_by_a_link_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda _: "guessed")
    (tmp_path / f"{atomic.PARTIAL}guessed").symlink_to(victim)
    with pytest.raises(FileExistsError):
        atomic.write_text(tmp_path / "file", "x")
    assert victim.read_text() == "precious"


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    atomic.write_text(tmp_path / "link", "new")
    assert ((tmp_path / "target").read_text(), (tmp_path / "link").read_text()) == ("old", "new")


def test_what_a_killed_write_left_is_removed_once_it_is_old(tmp_path):
    code = (
        "import os, pathlib, signal, sys\nfrom otrw import atomic\n"
        "with atomic.replace(pathlib.Path(sys.argv[1]) / 'file') as temporary:\n"
        "    temporary.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    atomic.remove_partial(tmp_path)
    assert left.exists()  # its writer may be alive
    hours_ago = time.time() - 7200
    os.utime(left, (hours_ago, hours_ago))
    folder = tmp_path / f"{atomic.PARTIAL}folder"
    folder.mkdir()
    (folder / "x").touch()
    os.utime(folder, (hours_ago, hours_ago))
    (tmp_path / "other").touch()
    atomic.remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    atomic.remove_partial(tmp_path / "nowhere")


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        atomic.write_bytes(path, bytes(5000))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
