"""`outlast dev` with the example and a language model, as a user starts it: real processes, one of them killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import openai
import pytest

from tests.support.model_endpoint import Call, ModelEndpoint, Stall, Text, model_endpoint
from tests.support.processes import ROOT, Part, free_port
from tests.support.waiting import until_sync

KEY = "sk-a-key-that-nobody-may-see"


@pytest.fixture
def endpoint() -> Generator[ModelEndpoint]:
    with model_endpoint() as started:
        yield started


def environment(folder: Path, **more: str) -> dict[str, str]:
    leases = {"OUTLAST_LEASE_SECONDS": "1.5", "OUTLAST_BEAT_SECONDS": "0.3"}
    return {"PYTHONPATH": str(ROOT), "OUTLAST_DATA_DIR": str(folder / "data"), **leases, **more}


def test_a_killed_worker_asks_the_model_again_and_the_key_is_nowhere(tmp_path: Path, endpoint: ModelEndpoint) -> None:
    port, output = free_port(), tmp_path / "said.txt"
    env = environment(tmp_path, OPENAI_BASE_URL=endpoint.url, OPENAI_MODEL="small", OPENAI_API_KEY=KEY)
    part = Part(["dev", "--port", str(port), "--no-hello"], {**env, "OUTLAST_LOG_LEVEL": "debug"}, output, cwd=tmp_path)
    try:
        until_sync(lambda: "stop      Ctrl-C" in part.said, seconds=90)
        assert f"model     small at 127.0.0.1:{endpoint.origin.rpartition(':')[2]}" in part.said
        endpoint.will(Call("calculator", {"expression": "6*7"}))
        endpoint.will(Text("It is"), Stall())
        endpoint.otherwise = lambda _: [Text("It is 42.")]
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=60) as client:
            run = client.responses.create(input="6*7", background=True).id
            until_sync(endpoint.stalled.is_set)

            os.kill(int(re.search(r"kill -9 (\d+) \(worker\)", part.said)[1]), signal.SIGKILL)  # type: ignore[index]

            until_sync(lambda: client.responses.retrieve(run).status == "completed", seconds=60)
            assert client.responses.retrieve(run).output_text == "It is 42."
            # From the checkpoint: the tool is not called again, its result is what the model is asked with.
            assert endpoint.requests[-1].roles[-2:] == ["assistant", "tool"]
            endpoint.will_refuse(401, f"Incorrect API key provided: {KEY}")
            refused = client.responses.create(input="hello")
            assert refused.error is not None and "refused the key" in refused.error.message
    finally:
        part.stop(signal.SIGINT)
        part.close()
    assert KEY not in part.said
    assert {request.headers["authorization"] for request in endpoint.requests} == {f"Bearer {KEY}"}


def test_dev_refuses_an_environment_that_asks_for_a_model_it_cannot_have(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "outlast.infra.cli", "dev", "--port", str(free_port())]
    env = {**os.environ, **environment(tmp_path, OPENAI_BASE_URL="http://127.0.0.1:1/v1")}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert done.stderr == "outlast: OPENAI_BASE_URL needs OPENAI_MODEL: the name of a model that it serves\n"
    assert not (tmp_path / "data").exists()
