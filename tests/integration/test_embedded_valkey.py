import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kombu.connection import Connection
from redis import Redis

from outlast.infra.embedded import AlreadyRunning, EmbeddedError, Valkey
from tests.support.waiting import until_sync

STARTER = """
import sys
from pathlib import Path
from outlast.infra.embedded import Valkey

server = Valkey(Path(sys.argv[1]))
server.start()
print(server.pid, server.url, flush=True)
sys.stdin.read()
"""


@contextmanager
def started_elsewhere(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Another process which has started a Valkey: the process, the server's number and its URL."""
    command = [sys.executable, "-c", STARTER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid, url = starter.stdout.readline().split()
        yield starter, int(pid), url
        starter.kill()


@contextmanager
def running(valkey: Valkey) -> Iterator[Redis]:
    valkey.start()
    try:
        with Redis.from_url(valkey.url, decode_responses=True) as client:
            yield client
    finally:
        valkey.stop()


def test_data_is_kept_between_starts(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey")
    for count in (1, 2):
        with running(valkey) as client:
            assert client.incr("count") == count
            assert valkey.poll() is None
    assert valkey.poll() == 0
    valkey.stop()


def test_other_users_read_neither_its_log_nor_the_names_of_its_files(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey")
    valkey.folder.mkdir(mode=0o755)
    valkey.log_file.touch(mode=0o644)  # as an earlier release has left it
    with running(valkey):
        assert valkey.folder.stat().st_mode & 0o066 == 0
        assert [path.name for path in valkey.folder.iterdir() if path.stat().st_mode & 0o077] == []
    valkey.log_file.unlink()
    with running(valkey):
        assert valkey.log_file.stat().st_mode & 0o777 == 0o600


def test_it_is_a_broker_and_nothing_else(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey")
    with running(valkey) as client:
        info = client.info("server")
        assert (info["process_id"], info["tcp_port"]) == (valkey.pid, 0)
        assert valkey.version in info.values()
        settings = {"appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
        assert client.config_get(*settings) == settings


def test_celerys_transport_can_use_it(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey")
    with running(valkey), Connection(valkey.broker_url) as connection:
        queue = connection.SimpleQueue("bells")
        queue.put({"ding": "dong"})
        assert queue.get(timeout=5).payload == {"ding": "dong"}
        queue.close()


def test_what_was_written_survives_kill_9(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey")
    with running(valkey) as client:
        client.set("key", "value")
        assert client.waitaof(num_local=1, num_replicas=0, timeout=5000) == [1, 0]
        valkey.kill()
        assert valkey.poll() == -signal.SIGKILL

    with running(Valkey(tmp_path / "valkey")) as client:
        assert client.get("key") == "value"


def test_a_server_that_died_can_be_started_again_by_its_starter(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey")
    with running(valkey) as client:
        client.set("key", "value")
        os.kill(valkey.pid, signal.SIGKILL)
        assert until_sync(lambda: valkey.poll() is not None)
        with running(valkey) as again:
            assert again.get("key") == "value"


def test_a_path_may_be_long_with_spaces_and_any_letters(tmp_path: Path) -> None:
    folder = tmp_path / "mit Leerzeichen, 'Häkchen' & 50%" / ("lang" * 25)
    for count in (1, 2):
        valkey = Valkey(folder)
        with running(valkey) as client:
            assert client.incr("count") == count
            assert folder not in valkey.socket.parents
        assert not valkey.socket.parent.exists()


def test_while_its_starter_lives_nobody_else_can_start_it(tmp_path: Path) -> None:
    with started_elsewhere(tmp_path) as (starter, pid, url):
        with pytest.raises(AlreadyRunning) as raised:
            Valkey(tmp_path).start()
        assert f"{tmp_path} is in use by process {starter.pid}" in str(raised.value)
        assert Redis.from_url(url).info("server")["process_id"] == pid
        os.kill(pid, signal.SIGKILL)


def test_an_orphan_is_ended_and_its_data_kept(tmp_path: Path) -> None:
    with started_elsewhere(tmp_path) as (starter, orphan, url):
        Redis.from_url(url).set("key", "value")
        starter.kill()
        starter.wait()
        os.kill(orphan, 0)  # it lives

        with running(Valkey(tmp_path)) as client:
            assert client.get("key") == "value"
            assert client.info("server")["process_id"] != orphan
    assert "Received SIGTERM" in (tmp_path / "valkey.log").read_text()


def test_a_failed_start_shows_the_end_of_the_log_and_frees_the_folder(tmp_path: Path) -> None:
    with running(Valkey(tmp_path)) as client:
        client.set("key", "value")
    manifest = next((tmp_path / "data").rglob("*.manifest"))
    kept = manifest.read_text()
    manifest.write_text("nonsense")

    with pytest.raises(EmbeddedError, match=r"exit code 1 instead of starting(.|\n)*set REDIS_URL(.|\n)*AOF"):
        Valkey(tmp_path).start()

    manifest.write_text(kept)
    with running(Valkey(tmp_path)) as client:
        assert client.get("key") == "value"


def test_a_hostile_socket_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25)
    valkey = Valkey(folder)
    with running(valkey):
        pass
    place = valkey.socket.parent
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    try:
        with pytest.raises(EmbeddedError, match="is open to other users"):
            Valkey(folder).start()
        assert list(place.iterdir()) == []
    finally:
        place.rmdir()
