"""Which of the agents are graphs: workers report it, and the API asks."""

from __future__ import annotations

from outlast.agent import Context, Request
from outlast.shared.connections import Database
from outlast.shared.domain.runs import AgentKind
from outlast.shared.settings import Settings
from outlast.shared.store import workers
from tests.support.adder import rule
from tests.support.graphs import RuleModel, calling
from tests.support.service import serving
from tests.support.waiting import until


async def function(request: Request, context: Context):
    yield "hello"


async def kind(database: Database, agent: str) -> AgentKind | None:
    return await database.run(lambda c: workers.kind_of(c, agent))


async def test_a_worker_reports_what_its_agents_are(settings: Settings, database: Database) -> None:
    async def reported() -> bool:
        return await kind(database, "graph") is not None

    async with serving(settings, {"graph": calling(RuleModel(answer=rule)), "function": function}):
        await until(reported)
        assert await kind(database, "graph") is AgentKind.GRAPH
        assert await kind(database, "function") is AgentKind.FUNCTION
        assert await kind(database, "other") is None


async def test_the_worker_that_was_seen_last_is_believed(database: Database) -> None:
    for owner, said in (("old", AgentKind.FUNCTION), ("new", AgentKind.GRAPH)):
        report = workers.Report(
            owner=owner, host="h", pid=1, version="1", queues=["default"], children=1, slots=1, running=0,
            draining=False, counters={}, agents={"a": said},
        )  # fmt: skip
        await database.run(lambda c, report=report: workers.report(c, report))
    assert await kind(database, "a") is AgentKind.GRAPH
