"""A Dockerfile as stages and instructions, and what the image of a stage is started with."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCKERFILE = "infra/docker/Dockerfile"


@dataclass(frozen=True)
class Instruction:
    word: str
    """In capitals, as in COPY."""
    rest: str

    def words(self) -> list[str]:
        """The arguments, of either form: ["a", "b"] or a b."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    """An image, or the stage it begins with."""
    instructions: list[Instruction] = field(default_factory=list[Instruction])

    def all(self, word: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.word == word]


@dataclass
class Image:
    """What a container of it is started with."""

    env: dict[str, str] = field(default_factory=dict[str, str])
    user: str = "root"
    workdir: str = "/"
    entrypoint: list[str] = field(default_factory=list[str])
    command: list[str] = field(default_factory=list[str])
    healthcheck: list[str] | None = None
    ports: set[int] = field(default_factory=set[int])
    stop_signal: str = "SIGTERM"

    @property
    def started(self) -> list[str]:
        return [*self.entrypoint, *self.command]


@dataclass(frozen=True)
class Dockerfile:
    arguments: dict[str, str]
    stages: dict[str, Stage]

    def lineage(self, name: str) -> list[Stage]:
        """The stage and those it begins with, the first one first."""
        stage = self.stages[name]
        return [*(self.lineage(stage.base) if stage.base in self.stages else []), stage]

    def image(self, name: str) -> Image:
        image = Image()
        for stage in self.lineage(name):
            for instruction in stage.instructions:
                _apply(image, instruction)
        return image

    def copied_from(self, stage: Stage) -> set[str]:
        return {match for copy in stage.all("COPY") for match in re.findall(r"--from=(\S+)", copy.rest)}


def read(text: str) -> Dockerfile:
    """Raises ValueError for what is no Dockerfile."""
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in _logical_lines(text):
        word, _, rest = line.partition(" ")
        instruction = Instruction(word.upper(), rest.strip())
        if instruction.word == "ARG" and stage is None:
            name, _, value = instruction.rest.partition("=")
            arguments[name] = value
        elif instruction.word == "FROM":
            base, _, name = re.sub(r"\s+[Aa][Ss]\s+", "\0", instruction.rest).partition("\0")
            base = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], match[0]), base)
            stage = Stage(name or f"stage {len(stages)}", base)
            stages[stage.name] = stage
        elif stage is None:
            raise ValueError(f"{instruction.word} before any FROM")
        else:
            stage.instructions.append(instruction)
    return Dockerfile(arguments, stages)


def _logical_lines(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def _apply(image: Image, instruction: Instruction) -> None:
    match instruction.word:
        case "ENV":
            image.env |= dict(pair.split("=", 1) for pair in shlex.split(instruction.rest))
        case "USER":
            image.user = instruction.rest
        case "WORKDIR":
            image.workdir = instruction.rest
        case "ENTRYPOINT":
            image.entrypoint, image.command = instruction.words(), []
        case "CMD":
            image.command = instruction.words()
        case "EXPOSE":
            image.ports |= {int(port) for port in instruction.rest.split()}
        case "STOPSIGNAL":
            image.stop_signal = instruction.rest
        case "HEALTHCHECK":
            _, found, command = instruction.rest.partition("CMD ")
            image.healthcheck = Instruction("CMD", command.strip()).words() if found else None
        case _:
            pass
