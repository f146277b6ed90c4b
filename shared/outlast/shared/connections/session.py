"""Settings that connections give their sessions."""

from __future__ import annotations

# Until 17 each way that a plan may not go and goes costs 10**10: LLVM compiles it for seconds, at each execution.
_NOT_COMPILED = {"jit": "off"}
SESSION: dict[str, str] = {
    "idle_in_transaction_session_timeout": "2s",
    "statement_timeout": "4s",
    "lock_timeout": "2s",
    **_NOT_COMPILED,
}
# A plan made while a table was small reads all of it for as long as it is cached. What 100,000 queued runs then cost
# was measured without each of these: docs/decisions/0009.
PINNED_PLAN: dict[str, str] = {
    "enable_seqscan": "off",  # to see whether anything waits, the sweep reads all runs
    "enable_bitmapscan": "off",  # no statement of ours differs while enable_sort is off; LangGraph's were not measured
    "enable_sort": "off",  # to end a run, all that wait are read; to list those that wait takes seconds
    **_NOT_COMPILED,
}
