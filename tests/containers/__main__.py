"""``make containers``: the Dockerfile and docker-compose.yml at work without an engine.

Builds the wheel and the three images' environments, starts what compose would start, and uses it through the real
proxy while parts of it are killed. Exits 1, with the reason, when anything is not as it should be.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from tests.containers import checks
from tests.containers.box import can_isolate
from tests.containers.images import Builder, Refused
from tests.containers.proxy import proxy
from tests.containers.smoke import Smoke
from tests.containers.stack import Stack
from tests.support.deployment import compose, dockerfile

ROOT = Path(__file__).parents[2]
TARGETS = ("api", "worker", "migrate")
_BEGAN = time.monotonic()


def _say(what: str, result: str) -> None:
    print(f"{time.monotonic() - _BEGAN:6.1f} s  {what:<34} {result}", flush=True)


def _checked(check: Callable[[], str]) -> None:
    _say(check.__name__.replace("_", " "), check())


def _build(work: Path, file: dockerfile.Dockerfile) -> dict[str, Path]:
    uv = Path(subprocess.check_output(["sh", "infra/setup.sh", "uv"], cwd=ROOT, text=True).strip())
    builder = Builder(file, ROOT, work / "images", uv=uv, python=Path(sys.executable))
    images = dict[str, Path]()
    for target in TARGETS:
        images[target] = builder.build(target)
        environment = images[target] / "opt/outlast"
        said = checks.has_only_its_lock(target, environment, ROOT / f"infra/docker/{target}.lock")
        (empty := work / f"empty-{target}").mkdir()
        checks.sees_no_checkout(environment, ROOT, {**file.image(target).env, "PYTHONPATH": str(empty)}, empty)
        _say(f"built {target}", said)
    return images


def _use(stack: Stack, work: Path, *, isolated: bool) -> None:
    for service in ("api", "worker"):
        if service not in stack.replicas:
            stack.start(service)
    for service in ("api", "worker"):
        stack.await_healthy(service)
    _say("started and healthy", ", ".join(replica.name for replica in stack.everything))
    if isolated:
        _say("writes nowhere but in /tmp", _writes_nowhere(stack))
    with proxy(ROOT / "infra/docker/haproxy.cfg", stack, work) as url:
        smoke = Smoke(stack, url)
        _checked(smoke.invokes)
        _checked(smoke.streams_event_by_event)
        _checked(smoke.resumes_in_the_background)
        _checked(smoke.uses_all_replicas)
        _say("memory within the limits", _memory(stack))
        _checked(smoke.is_cancelled_with_its_client)
        _checked(smoke.outlives_an_api)
        _checked(smoke.outlives_a_worker)
        _checked(smoke.stops_in_time)


def _writes_nowhere(stack: Stack) -> str:
    """Each is the image's user, and neither its packages nor its agents' code can be changed."""
    places = "/opt/outlast /app /run/outlast"
    script = f"id -u; touch /tmp/x; for at in {places}; do touch $at/x 2>/dev/null && echo $at; done; true"
    for replica in stack.everything:
        done = replica.run(["sh", "-c", script])
        if done.stdout.split() != [replica.box.user.partition(":")[0]] or done.returncode != 0:
            raise Refused(f"{replica.name} can write {done.stdout.split()[1:]}\n{done.stderr}")
    return f"{len(stack.everything)} containers"


def _memory(stack: Stack) -> str:
    """Each below its limit, which only an engine would enforce."""
    used = dict[str, int]()
    for replica in stack.everything:
        if replica.alive.poll() is None:
            used[replica.name] = replica.memory() // 2**20
            if replica.memory() > 0.8 * compose.size(compose.limits(replica.service)["memory"]):
                raise Refused(f"{replica.name} takes {used[replica.name]} MB, near its limit")
    return f"MB: {used}"


@contextmanager
def _folder() -> Generator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="oc-", dir="/tmp"))  # a short name: sockets are made below it
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    file = dockerfile.read((ROOT / dockerfile.DOCKERFILE).read_text("utf-8"))
    with _folder() as work:
        isolated = can_isolate(work)
        _say("isolation", "read-only root, plain user" if isolated else "NONE: namespaces are forbidden here")
        try:
            images = _build(work, file)
            stack = Stack((ROOT / compose.COMPOSE).read_text("utf-8"), file, images, ROOT, work, isolated=isolated)
            try:
                _use(stack, work, isolated=isolated)
            finally:
                stack.close()
        except (Refused, TimeoutError) as refused:
            print(f"refused: {refused}", file=sys.stderr)
            return 1
    print("1 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
