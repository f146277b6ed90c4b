"""What a real worker tells a host that asks it how it is, through what befalls a worker."""

from __future__ import annotations

import json
import os
import signal
from http.client import HTTPConnection
from pathlib import Path

from tests.support.processes import Part, agent_processes, free_port, parts
from tests.support.proxy import Mode, Proxy
from tests.support.waiting import until_sync


def asked(port: int, path: str) -> tuple[int, str | None]:
    """The status and the reason; 0 where nobody answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()).get("reason")
    except OSError:
        return 0, None
    finally:
        connection.close()


def reported(worker: Part, port: int, path: str, reason: str) -> None:
    """Until it says so."""

    def says_so() -> bool:
        assert worker.process.poll() is None, worker.said
        status, told = asked(port, path)
        return status == 503 and told is not None and told.startswith(reason)

    until_sync(says_so)


def test_a_worker_is_healthy_through_an_outage_and_ready_after_it(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    with Proxy(database_url) as way:
        env = {
            "DATABASE_URL": way.url,
            "REDIS_URL": redis_url,
            "OUTLAST_AGENTS": "count=tests.e2e.agents:count",
            "OUTLAST_LEASE_SECONDS": "1.5",
            "OUTLAST_BEAT_SECONDS": "0.3",
            "OUTLAST_LOG_LEVEL": "warning",
            "OUTLAST_HEALTH_PORT": str(port),
        }
        with parts(env, tmp_path) as started:
            worker = started.worker()
            assert asked(port, "/health") == asked(port, "/ready") == (200, None)

            way.mode = Mode.BLACK_HOLE
            reported(worker, port, "/ready", "no beat has reached the database for ")
            assert asked(port, "/health") == (200, None)
            way.mode = Mode.PASS
            until_sync(lambda: asked(port, "/ready") == (200, None))

            [child] = agent_processes(worker.process.pid)
            os.kill(child, signal.SIGKILL)
            reported(worker, port, "/ready", "it has no child")
            assert asked(port, "/health") == (200, None)
            until_sync(lambda: asked(port, "/ready") == (200, None))

            assert worker.stop() == 0
            assert asked(port, "/health") == (0, None)
