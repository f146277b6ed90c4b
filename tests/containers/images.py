"""The Dockerfile's steps without an engine: its own commands, in folders that stand for the stages.

What differs: the interpreter is this machine's; packages come from uv's cache where it has them, with the same hashes
asked for; uv itself is the one of infra/setup.sh; users are made when something is started, not here.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from tests.containers.paths import Paths
from tests.support.deployment.dockerfile import Dockerfile, Instruction, Stage

PLACES = ("/opt/outlast", "/src", "/dist", "/locks", "/app")
_OF_THE_MACHINE = (
    "HOME",
    "TMPDIR",
    "UV_CACHE_DIR",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_STRATEGY",
    "SSL_CERT_FILE",
)
_ONLY_IN_AN_IMAGE = re.compile(r"^(groupadd|useradd)\b")


class Refused(Exception):
    """What was built or started is not what it should be."""


class Builder:
    def __init__(self, dockerfile: Dockerfile, context: Path, work: Path, *, uv: Path, python: Path) -> None:
        self._dockerfile = dockerfile
        self._context = context
        self._work = work
        self._uv = uv
        self._python = python
        self._built: dict[str, Path] = {}
        self._kept = [line[1:] for line in _lines(context / ".dockerignore") if line.startswith("!")]
        work.mkdir()
        self._tools = work / "interpreter"
        self._run([str(uv), "venv", "--quiet", "--python", str(python), str(self._tools)], {}, work)

    def build(self, name: str) -> Path:
        """The folder of the stage, built with all that it needs."""
        if name not in self._built:
            stage = self._dockerfile.stages[name]
            root = self._work / name
            if stage.base in self._dockerfile.stages:
                shutil.copytree(self.build(stage.base), root, symlinks=True)
            root.mkdir(exist_ok=True)
            for instruction in stage.instructions:
                self._do(stage, root, instruction)
            self._built[name] = root
        return self._built[name]

    def paths(self, root: Path) -> Paths:
        return Paths({place: root / place[1:] for place in PLACES})

    def _do(self, stage: Stage, root: Path, instruction: Instruction) -> None:
        if instruction.word == "COPY":
            self._copy(stage, root, instruction.words())
        elif instruction.word == "RUN":
            self._shell(stage, root, instruction.rest)

    def _workdir(self, stage: Stage, root: Path) -> Path:
        workdir = root / self._dockerfile.image(stage.name).workdir[1:]
        workdir.mkdir(parents=True, exist_ok=True)
        return workdir

    def _copy(self, stage: Stage, root: Path, words: list[str]) -> None:
        source_stage = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None)
        *sources, target = [word for word in words if not word.startswith("--")]
        goal = root / target[1:] if target.startswith("/") else self._workdir(stage, root) / target
        goal.parent.mkdir(parents=True, exist_ok=True)
        if source_stage is not None:
            # A link: a virtual environment names its own place, which in the images is the same everywhere.
            (source,) = sources
            goal.symlink_to(self.build(source_stage) / source[1:])
            return
        for source in sources:
            if source.split("/")[0] not in self._kept:
                raise Refused(f"{source} is left out of the context by .dockerignore")
            origin = self._context / source
            if origin.is_dir():
                shutil.copytree(origin, goal, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"), dirs_exist_ok=True)
            else:
                into = goal / origin.name if target.endswith("/") else goal
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, into)

    def _shell(self, stage: Stage, root: Path, text: str) -> None:
        steps = [step.strip() for step in text.split("&&") if not _ONLY_IN_AN_IMAGE.match(step.strip())]
        if not steps:
            return
        paths = self.paths(root)
        command = " && ".join(self._pip_by_uv(step) if step.startswith("pip install") else step for step in steps)
        for step in re.findall(r"uv pip (?:sync|install|check)[^&]*", paths.here(command)):
            if f"--python {self._work}" not in step:
                raise Refused(f"it would change another environment than its own: {step}")
        env = {key: paths.here(value) for key, value in self._dockerfile.image(stage.name).env.items()}
        self._run(["sh", "-euc", paths.here(command)], env, self._workdir(stage, root))

    def _pip_by_uv(self, step: str) -> str:
        words = shlex.split(step)[2:]
        locks = [lock for flag, lock in itertools.pairwise(words) if flag == "-r" and "setup.lock" not in lock]
        if "--require-hashes" not in words:
            raise Refused(f"without hashes: {step}")
        given = " ".join(f"-r {lock}" for lock in locks)
        return f"uv pip install --quiet --python {self._tools} --require-hashes --no-deps --no-build {given}"

    def _run(self, command: list[str], env: dict[str, str], cwd: Path) -> None:
        """From uv's cache, and over the network only where that does not do.

        Nothing of the caller's that chooses an environment is passed on: uv would install there.
        """
        kept = {name: value for name, value in os.environ.items() if name in _OF_THE_MACHINE or "proxy" in name.lower()}
        path = f"{self._tools}/bin:{self._uv.parent}:/usr/local/bin:/usr/bin:/bin"
        own = {key: value for key, value in env.items() if key != "UV_NO_CACHE"}
        own |= {"PATH": path, "UV_SYSTEM_CERTS": "1", "UV_NO_CONFIG": "1"}
        done = self._once(command, {**kept, **own, "UV_OFFLINE": "1"}, cwd)
        if done.returncode != 0:
            done = self._once(command, {**kept, **own}, cwd)
        if done.returncode != 0:
            raise Refused(f"{' '.join(command)}\n{done.stdout}{done.stderr}")

    def _once(self, command: list[str], env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip() and line[0] != "#"]
