"""What must be true of the Dockerfile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .complaints import SECRET, asked_ports, is_pinned, known_variables, option, wrong_with_command
from .dockerfile import ROOT, Dockerfile, Stage, read

TARGETS = ("api", "worker", "migrate")
WORDS = {"RUN", "COPY", "ENV", "WORKDIR", "USER", "STOPSIGNAL", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


@dataclass(frozen=True)
class Source:
    """A Dockerfile and the context it is built in."""

    file: Dockerfile
    context: Path = ROOT

    @classmethod
    def of(cls, text: str) -> Source:
        return cls(read(text))

    @property
    def targets(self) -> list[Stage]:
        return [self.file.stages[name] for name in TARGETS if name in self.file.stages]


def only_known_instructions(source: Source) -> Iterator[str]:
    for stage in source.file.stages.values():
        for instruction in stage.instructions:
            if instruction.word not in WORDS:
                yield f"{stage.name}: {instruction.word} {instruction.rest}"


def targets_are_there(source: Source) -> Iterator[str]:
    for name in TARGETS:
        if name not in source.file.stages or source.file.stages[name].base != "base":
            yield f"no target {name} on base"


def bases_are_pinned(source: Source) -> Iterator[str]:
    for stage in source.file.stages.values():
        if stage.base not in source.file.stages and not is_pinned(stage.base):
            yield f"{stage.name} begins with {stage.base}"


def sources_are_in_the_context(source: Source) -> Iterator[str]:
    ignore = (source.context / ".dockerignore").read_text("utf-8").split()
    kept = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    for stage in source.file.stages.values():
        for copy in stage.all("COPY"):
            words = copy.words()
            if words[0].startswith("--from="):
                continue
            for path in words[:-1]:
                if not (source.context / path).exists():
                    yield f"{path} does not exist"
                elif path.split("/")[0] not in kept:
                    yield f"{path} is ignored"


def stages_come_before_their_use(source: Source) -> Iterator[str]:
    known = list[str]()
    for stage in source.file.stages.values():
        for name in source.file.copied_from(stage):
            if name not in known:
                yield f"{stage.name} copies from {name}"
        known.append(stage.name)


def packages_are_locked_wheels(source: Source) -> Iterator[str]:
    """Whatever installs asks for hashes and compiles nothing; our own wheel comes without its dependencies."""
    for stage, step in _steps(source):
        if not re.match(r"(pip|uv pip) (install|sync)\b", step):
            continue
        own_wheel = step.endswith("/dist/*.whl")
        wanted = ["--no-deps", "--no-index"] if own_wheel else ["--require-hashes"]
        wheels = own_wheel or "--no-build" in step or "--only-binary :all:" in step
        if not wheels or not all(flag in step for flag in wanted):
            yield f"{stage.name}: {step}"


def packages_have_one_place(source: Source) -> Iterator[str]:
    """uv would choose an environment by itself: in the image its own, elsewhere anybody's."""
    for stage, step in _steps(source):
        if step.startswith("uv pip ") and "--python /opt/outlast/bin/python" not in step:
            yield f"{stage.name}: {step}"


def each_target_has_its_own_lock(source: Source) -> Iterator[str]:
    for name in TARGETS:
        stage = source.file.stages.get(f"{name}-packages")
        text = " ".join(instruction.rest for instruction in stage.instructions) if stage else ""
        if set(re.findall(r"(\w+)\.lock", text)) != {name}:
            yield f"{name}-packages does not install {name}.lock alone"
        elif not (source.context / f"infra/docker/{name}.lock").exists():
            yield f"no infra/docker/{name}.lock"


def the_wheel_is_built_once(source: Source) -> Iterator[str]:
    built = [stage.name for stage, step in _steps(source) if "hatchling build" in step or " build " in step]
    if built != ["wheel"]:
        yield f"built in {built}"
    for name in TARGETS:
        stage = source.file.stages.get(f"{name}-packages")
        if stage is not None and source.file.copied_from(stage) != {"wheel"}:
            yield f"{stage.name} has not the wheel of the stage wheel"


def what_runs_has_only_its_packages(source: Source) -> Iterator[str]:
    """No installer, lock or compiler reaches an image: nothing but its environment is copied, nothing is installed."""
    for stage in source.targets:
        if [copy.rest for copy in stage.all("COPY")] != [f"--from={stage.name}-packages /opt/outlast /opt/outlast"]:
            yield f"{stage.name} copies {[copy.rest for copy in stage.all('COPY')]}"
        if stage.all("RUN"):
            yield f"{stage.name} runs {stage.all('RUN')[0].rest}"
    for stage, step in _steps(source):
        if re.search(r"\b(apt-get|apt|apk|gcc|g\+\+|build-essential|curl|wget)\b", step):
            yield f"{stage.name}: {step}"


def nothing_runs_as_root(source: Source) -> Iterator[str]:
    """By number: an engine that refuses root cannot look a name up."""
    for stage in source.targets:
        user = source.file.image(stage.name).user
        if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user):
            yield f"{stage.name} runs as {user}"


def the_root_file_system_may_be_read_only(source: Source) -> Iterator[str]:
    """Bytecode is made while building and never while running; temporary files have one place with a short name."""
    compiled = {
        name: source.file.image(f"{name}-packages").env.get("UV_COMPILE_BYTECODE")
        for name in TARGETS
        if f"{name}-packages" in source.file.stages
    }
    for name, value in compiled.items():
        if value != "1":
            yield f"{name}-packages makes no bytecode"
    for stage in source.targets:
        env = source.file.image(stage.name).env
        if env.get("PYTHONDONTWRITEBYTECODE") != "1" or env.get("TMPDIR") != "/tmp":
            yield f"{stage.name}: PYTHONDONTWRITEBYTECODE=1 and TMPDIR=/tmp"


def health_is_asked_where_it_is_answered(source: Source) -> Iterator[str]:
    for stage in source.targets:
        image = source.file.image(stage.name)
        if stage.name == "migrate":
            if not any(check.rest == "NONE" for check in stage.all("HEALTHCHECK")):
                yield "migrate ends: HEALTHCHECK NONE"
            continue
        served = option(image.command, "--port") or image.env.get("OUTLAST_HEALTH_PORT") or "0"
        asked = asked_ports(image.healthcheck or [])
        if not asked == image.ports == {int(served)}:
            yield f"{stage.name} serves {served}, exposes {image.ports}, is asked at {asked}"
        if "/ready" not in str(image.healthcheck):
            yield f"{stage.name} is not asked for /ready"


def commands_are_ours(source: Source) -> Iterator[str]:
    for stage in source.targets:
        image = source.file.image(stage.name)
        if image.entrypoint != ["outlast", stage.name]:
            yield f"{stage.name} starts {image.entrypoint}"
        elif wrong := wrong_with_command(image.started):
            yield wrong


def signals_arrive(source: Source) -> Iterator[str]:
    """A shell in between would swallow SIGTERM, and with it the drain."""
    for stage in source.targets:
        image = source.file.image(stage.name)
        forms = [word.rest[:1] for word in (*stage.all("ENTRYPOINT"), *stage.all("CMD"))]
        if set(forms) != {"["} or image.stop_signal != "SIGTERM":
            yield f"{stage.name}: {forms}, {image.stop_signal}"


def variables_are_known(source: Source) -> Iterator[str]:
    for stage in source.targets:
        for name in set(source.file.image(stage.name).env) - known_variables():
            yield f"{stage.name}: {name}"


def there_are_no_secrets(source: Source) -> Iterator[str]:
    names = {name for stage in source.file.stages for name in source.file.image(stage).env} | set(source.file.arguments)
    for name in names:
        if SECRET.search(name):
            yield name


RULES = (
    only_known_instructions, targets_are_there, bases_are_pinned, sources_are_in_the_context,
    stages_come_before_their_use, packages_are_locked_wheels, packages_have_one_place, each_target_has_its_own_lock,
    the_wheel_is_built_once,
    what_runs_has_only_its_packages, nothing_runs_as_root, the_root_file_system_may_be_read_only,
    health_is_asked_where_it_is_answered, commands_are_ours, signals_arrive, variables_are_known, there_are_no_secrets,
)  # fmt: skip


def _steps(source: Source) -> Iterator[tuple[Stage, str]]:
    for stage in source.file.stages.values():
        for run in stage.all("RUN"):
            for step in run.rest.split("&&"):
                yield stage, step.strip()
