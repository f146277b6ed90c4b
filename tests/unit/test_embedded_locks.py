import os
import subprocess
from pathlib import Path

from outlast.infra.embedded.locks import FileLock


def test_a_held_lock_is_refused_and_says_what_its_holder_noted(tmp_path: Path) -> None:
    held, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert held.try_acquire()
    held.write_note("a longer note")
    held.write_note("4711")

    assert held.try_acquire()  # once more is nothing
    assert not other.try_acquire()
    assert other.read_note() == "4711"

    held.release()
    held.release()
    assert other.try_acquire()


def test_a_left_over_file_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4711")

    assert FileLock(tmp_path / "lock").try_acquire()


def test_a_child_inherits_it_only_when_it_is_given_the_file(tmp_path: Path) -> None:
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert lock.try_acquire()

    with subprocess.Popen(["sleep", "60"]) as stranger:
        lock.release()
        assert other.try_acquire()
        stranger.kill()

    with subprocess.Popen(["sleep", "60"], pass_fds=(other.fd,)) as heir:
        other.release()
        assert not lock.try_acquire()
        heir.kill()

    assert lock.try_acquire()
    assert not os.get_inheritable(lock.fd)
