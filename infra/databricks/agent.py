"""The agent that the apps serve: put yours here, and its packages into one/ and worker/requirements.txt.

A LangGraph graph under a name is enough (OUTLAST_AGENTS=assistant=agent:graph); this one needs no model.
"""

from collections.abc import AsyncGenerator

from outlast.agent import Context, Request


async def agent(request: Request, _context: Context) -> AsyncGenerator[str]:
    for word in f"You said: {request.text}".split(" "):
        yield word + " "
