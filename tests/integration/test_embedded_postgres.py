import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from outlast.infra.embedded import AlreadyRunning, EmbeddedError, Postgres
from outlast.infra.embedded.accounts import AWAY, Account, unprivileged_account
from outlast.infra.embedded.binaries import PostgresBinaries, find_postgres, postgres_in
from outlast.infra.embedded.sockets import socket_folder
from tests.support.waiting import until_sync

FAST = {"fsync": "off"}
AS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, to become another user; the other tests here ran as a plain user"
)
STARTER = """
import sys
from pathlib import Path
from outlast.infra.embedded import Postgres

server = Postgres(Path(sys.argv[1]), settings={"fsync": "off"})
server.start()
print(server.pid, server.url, flush=True)
sys.stdin.read()
"""
# Becomes the user only after its imports, which may lie where that user cannot read.
PLAIN_USER = """
import os, sys
from pathlib import Path
import psycopg
from outlast.infra.embedded import Postgres
from outlast.infra.embedded.binaries import postgres_in

folder, programs, uid, gid = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
for start in (1, 2):
    server = Postgres(folder, settings={"fsync": "off"}, binaries=postgres_in(programs))
    server.start()
    with psycopg.connect(server.url) as connection:
        connection.execute(f"CREATE TABLE start_{start} ()")
        print(connection.execute("SELECT to_regclass('start_1')").fetchone()[0], os.stat(server.data).st_uid)
    server.stop()
"""


@contextmanager
def running(postgres: Postgres) -> Iterator[psycopg.Connection]:
    postgres.start()
    try:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            yield connection
    finally:
        postgres.stop()


@contextmanager
def started_elsewhere(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Another process which has started a Postgres: the process, the server's number and its URL."""
    command = [sys.executable, "-c", STARTER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid, url = starter.stdout.readline().split()
        yield starter, int(pid), url
        starter.kill()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def one(connection: psycopg.Connection, query: str) -> object:
    row = connection.execute(query.encode()).fetchone()
    return None if row is None else row[0]


def words(connection: psycopg.Connection) -> set[str]:
    return {word for (word,) in connection.execute("SELECT word FROM words").fetchall()}


def write(connection: psycopg.Connection, word: str) -> None:
    connection.execute("INSERT INTO words VALUES (%s)", [word])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder which has been started and stopped once. The tests share it: another initdb takes a second."""
    folder = tmp_path_factory.mktemp("shared") / "postgres"
    half_done = folder / "data.new-of-a-start-cut-short"
    half_done.mkdir(parents=True)
    (half_done / "PG_VERSION").write_text("18\n")
    with running(Postgres(folder, settings=FAST)) as connection:
        connection.execute("CREATE TABLE words (word text)")
        write(connection, "first")
    assert not half_done.exists()
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One that runs, for tests which leave it as it is."""
    copied = shutil.copytree(folder, tmp_path_factory.mktemp("running") / "postgres")
    postgres = Postgres(copied, settings=FAST)
    postgres.start()
    yield postgres
    postgres.stop()
    assert postgres.poll() == 0


def test_data_is_kept_between_starts(folder: Path) -> None:
    postgres = Postgres(folder, settings=FAST)
    with running(postgres) as connection:
        write(connection, "kept")
        assert postgres.poll() is None
    assert postgres.poll() == 0
    with running(postgres) as connection:
        assert words(connection) >= {"first", "kept"}
    postgres.stop()


def test_it_says_what_it_is_and_takes_settings(server: Postgres) -> None:
    with psycopg.connect(server.url) as connection:
        assert one(connection, "SHOW server_version") == server.version == "18.6"
        assert one(connection, "SHOW max_connections") == "200"
        assert one(connection, "SHOW fsync") == "off"
        assert one(connection, "SHOW listen_addresses") == ""
        assert is_alive(server.pid)


def test_letters_beyond_ascii_have_cases(server: Postgres) -> None:
    with psycopg.connect(server.url) as connection:
        found = connection.execute(
            "SELECT datlocprovider, datlocale, datcollate, pg_encoding_to_char(encoding), 'É' ~* 'é'"
            "  FROM pg_database WHERE datname = current_database()"
        )
        assert found.fetchone() == ("b", "C.UTF-8", "C.UTF-8", "UTF8", True)


def test_listeners_are_notified(server: Postgres) -> None:
    with (
        psycopg.connect(server.url, autocommit=True) as listener,
        psycopg.connect(server.url, autocommit=True) as notifier,
    ):
        listener.execute("LISTEN bells")
        notifier.execute("NOTIFY bells, 'ding'")
        heard = list(listener.notifies(timeout=5, stop_after=1))
    assert [(bell.channel, bell.payload) for bell in heard] == [("bells", "ding")]


def test_several_databases_are_apart(server: Postgres) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        assert one(connection, "SELECT current_database()") == "outlast"
        connection.execute("CREATE DATABASE another")
        with psycopg.connect(server.url, dbname="another") as another:
            assert one(another, "SELECT to_regclass('words')") is None
        connection.execute("DROP DATABASE another")


def test_a_path_may_be_long_with_spaces_and_any_letters(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "mit Leerzeichen, 'Häkchen' & 50%" / ("lang" * 25))
    postgres = Postgres(copied, settings=FAST)
    with running(postgres) as connection:
        assert "first" in words(connection)
        assert one(connection, "SHOW data_directory") == str(copied / "data")
        assert copied not in postgres.socket.parents
        with psycopg.connect(postgres.url, dbname="postgres", autocommit=True) as other:
            other.execute("DROP DATABASE outlast WITH (FORCE)")
    assert not postgres.socket.parent.exists()

    with running(postgres) as connection:  # and a dropped database is made anew
        assert one(connection, "SELECT to_regclass('words')") is None


def test_committed_rows_survive_kill_9_of_the_postmaster(folder: Path) -> None:
    postgres = Postgres(folder)
    with running(postgres) as connection:
        write(connection, "before the postmaster was killed")
        postgres.kill()
        assert postgres.poll() == -signal.SIGKILL
        with running(Postgres(folder)) as again:
            assert "before the postmaster was killed" in words(again)


def test_a_server_that_died_can_be_started_again_by_its_starter(folder: Path) -> None:
    postgres = Postgres(folder)
    with running(postgres) as connection:
        write(connection, "before it died")
        os.kill(postgres.pid, signal.SIGKILL)
        assert until_sync(lambda: postgres.poll() is not None)
        with running(postgres) as again:
            assert "before it died" in words(again)


def test_committed_rows_survive_kill_9_of_everything(folder: Path) -> None:
    with started_elsewhere(folder) as (starter, pid, url):
        with psycopg.connect(url, autocommit=True) as connection:
            write(connection, "before everything was killed")
            processes = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
        for process in (starter.pid, pid, *(process for (process,) in processes)):
            if is_alive(process):
                os.kill(process, signal.SIGKILL)
        starter.wait()
        with running(Postgres(folder)) as connection:
            assert "before everything was killed" in words(connection)


def test_while_its_starter_lives_nobody_else_can_start_it(folder: Path) -> None:
    with started_elsewhere(folder) as (starter, pid, url):
        with pytest.raises(AlreadyRunning) as raised:
            Postgres(folder).start()
        assert f"{folder} is in use by process {starter.pid}" in str(raised.value)
        with psycopg.connect(url) as connection:
            assert "first" in words(connection)
        os.kill(pid, signal.SIGINT)


def test_nor_can_its_own_starter_start_it_twice(server: Postgres) -> None:
    for again in (server, Postgres(server.folder)):
        with pytest.raises(AlreadyRunning, match=f"in use by process {os.getpid()}"):
            again.start()
    with psycopg.connect(server.url) as connection:
        assert "first" in words(connection)


def test_an_orphan_is_ended_orderly_and_its_rows_kept(folder: Path) -> None:
    with started_elsewhere(folder) as (starter, orphan, url), psycopg.connect(url, autocommit=True) as client:
        write(client, "before it was orphaned")
        starter.kill()
        starter.wait()
        assert is_alive(orphan)

        postgres = Postgres(folder, settings=FAST)
        with running(postgres) as connection:
            assert "before it was orphaned" in words(connection)
            assert postgres.pid != orphan
    assert f"[{orphan}] LOG:  received fast shutdown request" in postgres.log_file.read_text()


def test_a_left_over_lock_file_with_the_number_of_a_living_process_does_not_block(folder: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (folder / "data/postmaster.pid").write_text(f"{stranger.pid}\n{folder}/data\n1700000000\n5432\n\n\n")
        with running(Postgres(folder, settings=FAST)) as connection:
            assert "first" in words(connection)
        assert stranger.poll() is None
        stranger.kill()


def test_data_of_another_major_version_is_refused_untouched(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "base").mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")

    with pytest.raises(EmbeddedError) as raised:
        Postgres(tmp_path).start()

    for word in ("made by Postgres 15", "18.6", f"Move {tmp_path} away", "set DATABASE_URL"):
        assert word in str(raised.value)
    assert sorted(path.name for path in data.rglob("*")) == ["PG_VERSION", "base"]
    assert (data / "PG_VERSION").read_text() == "15\n"


def test_a_failed_start_shows_the_end_of_the_log_and_frees_the_folder(folder: Path) -> None:
    with pytest.raises(EmbeddedError, match=r'set DATABASE_URL(.|\n)*FATAL:  parameter "fsync" requires'):
        Postgres(folder, settings={"fsync": "perhaps"}).start()
    with running(Postgres(folder, settings=FAST)) as connection:
        assert "first" in words(connection)


def test_a_hostile_socket_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / ("long" * 25))
    place = socket_folder(copied, ".s.PGSQL.5432", uid=os.geteuid(), gid=os.getegid())
    place.rmdir()
    place.symlink_to(tmp_path)
    try:
        with pytest.raises(EmbeddedError, match="is not a folder"):
            Postgres(copied).start()
    finally:
        place.unlink()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter; pytest's are private."""
    with tempfile.TemporaryDirectory() as created:
        folder = Path(created)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def hidden(tmp_path: Path) -> PostgresBinaries:
    """The wheel's programs, in a place that only we can enter."""
    found = find_postgres()
    assert found.package is not None
    tmp_path.chmod(0o700)
    for part in (found.package, found.package.with_name(f"{found.package.name}.libs")):
        (tmp_path / part.name).symlink_to(part)
    programs = tmp_path / found.folder.relative_to(found.package.parent)
    return postgres_in(programs, package=tmp_path / found.package.name)


@AS_ROOT
def test_where_namespaces_are_forbidden_root_uses_an_unprivileged_user(folder: Path, open_folder: Path) -> None:
    account = unprivileged_account()
    copied = shutil.copytree(folder, open_folder / "postgres")
    postgres = Postgres(copied, settings=FAST, account=account)
    with running(postgres) as connection:
        assert "first" in words(connection)
        assert {postgres.data.stat().st_uid, postgres.socket.parent.stat().st_uid} == {account.uid}
        assert copied.stat().st_uid == os.geteuid()
    with running(Postgres(copied, settings=FAST)) as connection:  # and back to the usual way
        assert "first" in words(connection)


@AS_ROOT
def test_what_that_user_cannot_reach_is_put_elsewhere(tmp_path: Path, hidden: PostgresBinaries) -> None:
    folder = tmp_path / "postgres"
    try:
        for start in (1, 2):
            postgres = Postgres(folder, settings=FAST, account=unprivileged_account(), binaries=hidden)
            with running(postgres) as connection:
                assert one(connection, "SHOW data_directory") == str(postgres.data)
                connection.execute(f"CREATE TABLE start_{start} ()".encode())
                assert one(connection, "SELECT to_regclass('start_1')") == "start_1"
        assert postgres.data.parents[1] == AWAY
        assert not (folder / "data").exists()
    finally:
        if (folder / "away").exists():
            shutil.rmtree(AWAY / (folder / "away").read_text())
            with suppress(OSError):
                AWAY.rmdir()  # unless somebody uses it


@AS_ROOT
def test_a_plain_user_needs_no_second_identity(open_folder: Path) -> None:
    user = pwd.getpwnam("nobody")
    nobody, found = Account(user.pw_uid, user.pw_gid), find_postgres()
    programs = found.folder
    if not nobody.reaches(found.server):
        assert found.package is not None
        for part in (found.package, found.package.with_name(f"{found.package.name}.libs")):
            shutil.copytree(part, open_folder / part.name)
        programs = open_folder / found.folder.relative_to(found.package.parent)
    folder = open_folder / "a project/postgres"
    folder.mkdir(parents=True)
    nobody.take(folder)

    command = [sys.executable, "-c", PLAIN_USER, str(folder), str(programs), str(nobody.uid), str(nobody.gid)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert (ran.stdout, ran.stderr) == (f"start_1 {nobody.uid}\n" * 2, "")
