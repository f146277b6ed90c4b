import os
import pwd
import stat
from pathlib import Path

import pytest

from outlast.infra.embedded.accounts import (
    UNPRIVILEGED,
    Account,
    account_for_postgres,
    away_folder,
    namespace_account,
    own_account,
)
from outlast.infra.embedded.errors import EmbeddedError


def test_our_own_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    own_account().take(tmp_path)

    assert (tmp_path / "file").stat().st_uid == os.geteuid()
    assert not own_account().is_other_user


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_gives_a_whole_tree_away_but_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "not ours").touch()
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder/file").touch()
    (tree / "link").symlink_to(tmp_path / "not ours")

    Account(12345, 12345).take(tree)

    assert {path.lstat().st_uid for path in (tree, *tree.rglob("*"))} == {12345}
    assert (tmp_path / "not ours").stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root can take any file")
def test_a_plain_user_is_told_whose_files_they_are(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=f"belongs to user {os.geteuid()}.*sudo chown -R 12345"):
        Account(12345, 12345).take(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="Postgres refuses to be root")
def test_a_plain_user_runs_postgres_directly() -> None:
    assert account_for_postgres() == own_account()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another identity")
def test_root_without_namespaces_takes_an_existing_unprivileged_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("PATH", "")  # no unshare
    assert namespace_account() is None
    account = account_for_postgres()
    assert pwd.getpwuid(account.uid).pw_name in UNPRIVILEGED

    monkeypatch.undo()
    assert account.reaches(Path("/"))
    assert not account.reaches(tmp_path)


def test_data_elsewhere_is_found_again_and_a_tampered_name_is_not_followed(tmp_path: Path) -> None:
    folder, away = tmp_path / "project", tmp_path / "away"
    folder.mkdir()

    first = away_folder(folder, own_account(), away=away)

    assert first.parent == away
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert away_folder(folder, own_account(), away=away) == first
    (folder / "away").write_text("../project")
    assert away_folder(folder, own_account(), away=away) not in (first, folder)
