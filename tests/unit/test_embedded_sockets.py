import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.infra.embedded.errors import EmbeddedError
from outlast.infra.embedded.sockets import LONGEST_PATH, fits, listener_pid, socket_folder

UID, GID = os.geteuid(), os.getegid()


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A home whose path is too long for a socket; what it leaves in the temp folder is removed."""
    home = tmp_path / ("long" * 30)
    home.mkdir()
    outside = socket_folder(home, "s", uid=UID, gid=GID)
    yield home
    if outside.is_symlink():
        outside.unlink()
    shutil.rmtree(outside, ignore_errors=True)


def test_a_socket_path_is_short_and_plain() -> None:
    assert fits(Path("/srv/project-1/.outlast/s.sock"))
    assert fits(Path("/" + "x" * (LONGEST_PATH - 1)))
    for path in ("/" + "x" * LONGEST_PATH, "/with space/s", "/naïve/s", "/a,b/s", "/50%/s", "relative/s"):
        assert not fits(Path(path)), path


def test_the_folder_is_private_and_beside_the_data(tmp_path: Path) -> None:
    folder = socket_folder(tmp_path, "s", uid=UID, gid=GID)

    assert folder == tmp_path / "socket" or not fits(tmp_path / "socket" / "s")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_for_a_long_path_it_is_in_the_temp_folder_the_same_each_time(deep: Path) -> None:
    folder = socket_folder(deep, "s", uid=UID, gid=GID)

    assert fits(folder / "s")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder == socket_folder(deep, "s", uid=UID, gid=GID)


def test_a_folder_open_to_others_is_refused(deep: Path) -> None:
    socket_folder(deep, "s", uid=UID, gid=GID).chmod(0o750)

    with pytest.raises(EmbeddedError, match=r"is open to other users.*Remove it, or set TMPDIR"):
        socket_folder(deep, "s", uid=UID, gid=GID)


def test_a_symlink_in_its_place_is_refused(deep: Path, tmp_path: Path) -> None:
    outside = socket_folder(deep, "s", uid=UID, gid=GID)
    outside.rmdir()
    outside.symlink_to(tmp_path)

    with pytest.raises(EmbeddedError, match="is not a folder"):
        socket_folder(deep, "s", uid=UID, gid=GID)


@pytest.mark.skipif(UID != 0, reason="only root can make a folder that is another user's")
def test_a_folder_of_another_user_is_refused(deep: Path) -> None:
    os.chown(socket_folder(deep, "s", uid=UID, gid=GID), 12345, 12345)

    with pytest.raises(EmbeddedError, match="belongs to user 12345"):
        socket_folder(deep, "s", uid=UID, gid=GID)


def test_the_listener_of_a_socket_is_known(tmp_path: Path) -> None:
    path = socket_folder(tmp_path, "s", uid=UID, gid=GID) / "s"
    assert listener_pid(path) is None

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert listener_pid(path) is None  # bound, but nobody listens
        server.listen()
        assert listener_pid(path) == os.getpid()

    assert listener_pid(path) is None
    assert listener_pid(tmp_path / ("long" * 30)) is None
