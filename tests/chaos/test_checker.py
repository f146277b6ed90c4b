"""Each promise broken by hand, in evidence of a run that was taken over properly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.chaos.checker import Evidence, judge
from tests.chaos.ledger import BEGIN, END, KEPT, SAY, Entry
from tests.chaos.logs import faults
from tests.chaos.nemeses import Blow
from tests.chaos.report import recoveries
from tests.chaos.samples import BEGAN, FIRST, PIDS, RUN, SECOND, TOKEN, Sample


def test_nothing_is_wrong_with_a_proper_takeover() -> None:
    assert judge(Sample().evidence()) == []


def spoil_log(spoil: Callable[[Sample], None]) -> Evidence:
    """Clients have seen the log as it is."""
    sample = Sample()
    spoil(sample)
    return sample.evidence()


def drop(kind: str, which: int = 0) -> Callable[[Sample], None]:
    def spoil(sample: Sample) -> None:
        found = [event for event in sample.log.events if event["type"] == f"response.{kind}"]
        sample.log.events.remove(found[which])
        for number, event in enumerate(sample.log.events):
            event["sequence_number"] = number

    return spoil


def number_twice(sample: Sample) -> None:
    sample.log.events[9]["sequence_number"] = 8


def end_twice(sample: Sample) -> None:
    sample.log.add("completed", response=sample.response)


def begin_twice(sample: Sample) -> None:
    sample.log.events[8]["type"] = "response.in_progress"


def supersede_the_unknown(sample: Sample) -> None:
    marker(sample)["superseded"].append("msg_99")


def supersede_nothing(sample: Sample) -> None:
    marker(sample)["superseded"].clear()


def mark_backwards(sample: Sample) -> None:
    sample.log.events[-2]["outlast"] = {"attempt": 1, "superseded": []}


def marker(sample: Sample) -> dict:
    return next(event["outlast"] for event in sample.log.events if "outlast" in event)


def say_late(sample: Sample) -> None:
    """A word of the first attempt behind the second one's marker."""
    deltas = [event for event in sample.log.events if event["type"] == "response.output_text.delta"]
    deltas[-1]["delta"] = deltas[-1]["delta"].replace("2|", "1|")


def say_of_others(sample: Sample) -> None:
    deltas = [event for event in sample.log.events if event["type"] == "response.output_text.delta"]
    deltas[-1]["delta"] = deltas[-1]["delta"].replace(TOKEN, "c9.9")


def reuse_an_index(sample: Sample) -> None:
    added = [event for event in sample.log.events if event["type"] == "response.output_item.added"]
    added[-1]["output_index"] = 0


def speak_after_done(sample: Sample) -> None:
    first = next(event for event in sample.log.events if event["type"] == "response.output_item.done")
    sample.log.events[-3] = {**first, "sequence_number": sample.log.events[-3]["sequence_number"]}


def answer_less(sample: Sample) -> None:
    sample.response["output"].pop()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (number_twice, "not numbered"),
        (end_twice, "2 terminal events"),
        (begin_twice, "does not begin with"),
        (drop("queued"), "does not begin with"),
        (drop("completed"), "0 terminal events"),
        (drop("output_item.done", -1), "is never done"),
        (drop("output_item.added", -1), "has not been added"),
        (drop("output_text.delta", -1), "another text than was streamed"),
        (supersede_the_unknown, "which has not been added"),
        (supersede_nothing, "the stream leaves"),
        (mark_backwards, "after 2 of 2"),
        (say_late, "where attempt 2 writes"),
        (say_of_others, "a word of another run"),
        (reuse_an_index, "adds"),
        (speak_after_done, "which is done"),
        (answer_less, "missing"),
    ],
)
def test_a_log_with_a_fault_is_noticed(spoil: Callable[[Sample], None], said: str) -> None:
    found = judge(spoil_log(spoil))
    assert any(said in violation.sentence for violation in found), found


def run_changed(**changes: object) -> Evidence:
    evidence = Sample().evidence()
    evidence.runs[TOKEN] = replace(evidence.runs[TOKEN], **changes)  # type: ignore[arg-type]
    return evidence


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (run_changed(status="failed"), "is failed after 2 attempts"),
        (run_changed(status="in_progress"), "its log is closed"),
        (run_changed(closed=False), "its log is open"),
        (run_changed(last_seq=3), "its head says 3"),
        (run_changed(response={"id": RUN, "status": "completed", "output": []}), "another one than the last event's"),
        (replace(Sample().evidence(), leases=1), "1 leases are left"),
        (replace(Sample().evidence(), states={"t1": ["c1.1"]}), "the state has 1 messages"),
        (replace(Sample().evidence(), runs={}), "was accepted and is not there"),
    ],
)
def test_what_is_left_in_the_tables_is_judged(evidence: Evidence, said: str) -> None:
    assert any(said in violation.sentence for violation in judge(evidence))


def with_frames(change: Callable[[list[tuple[int, bytes]]], None]) -> Evidence:
    evidence = Sample().evidence()
    change(evidence.watched[0].connections[1].frames)
    return evidence


def lose_one(frames: list[tuple[int, bytes]]) -> None:
    del frames[2]


def double_one(frames: list[tuple[int, bytes]]) -> None:
    frames.insert(2, frames[2])


def change_one(frames: list[tuple[int, bytes]]) -> None:
    frames[2] = (frames[2][0], b"{}")


def lose_the_end(frames: list[tuple[int, bytes]]) -> None:
    frames.pop()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lose_one, "never sent [9]"),
        (double_one, "brought [7, 8, 9, 9"),
        (change_one, "not what the log has"),
        (lose_the_end, "said [DONE] at"),
    ],
)
def test_what_clients_were_sent_is_compared_with_the_log(
    change: Callable[[list[tuple[int, bytes]]], None], said: str
) -> None:
    assert any(said in violation.sentence for violation in judge(with_frames(change)))


def ended_as(status: str, **watched: object) -> Evidence:
    """A run that ended so, of which its client says this."""
    evidence = run_changed(status=status)
    evidence.watched = [replace(evidence.watched[0], **watched)]  # type: ignore[arg-type]
    return evidence


@pytest.mark.parametrize(
    ("evidence", "right"),
    [
        (ended_as("cancelled"), False),
        (ended_as("cancelled", fate="cancel"), True),
        (ended_as("failed", fate="cancel"), False),
        (ended_as("cancelled", mode="foreground"), True),  # it hung up once
        (ended_as("cancelled", mode="invoke", connections=[], final={}), False),
        (ended_as("completed", agent="mishap"), False),
        (ended_as("failed", agent="mishap"), True),
    ],
)
def test_a_run_ends_as_its_client_and_its_agent_let_it(evidence: Evidence, right: bool) -> None:
    assert any(violation.kind == "lost" for violation in judge(evidence)) != right


def test_what_was_deleted_and_is_there_is_noticed() -> None:
    evidence = Sample().evidence()
    evidence.watched[0].deleted = True
    assert [v.sentence for v in judge(evidence)] == [f"{RUN} was deleted and is there"]
    evidence.watched[0].run = "resp_0"  # before the one that is there, which a late request has made
    assert judge(evidence) == []
    evidence.runs.clear()
    assert judge(evidence) == []


def test_a_run_that_fails_by_another_reason_than_its_agents_is_noticed() -> None:
    evidence = run_changed(agent="mishap", status="failed", response={"output": [], "error": {"message": "No."}})
    evidence.states.clear()
    assert any("it fails by 'No.' where 'The agent" in violation.sentence for violation in judge(evidence))


def test_logs_are_searched_for_what_nothing_expected() -> None:
    late = {"event": "Task exception was never retrieved\nfuture: …", "level": "error", "exception": "E\nValueError: x"}
    logs = {
        "worker0": "\n".join(map(json.dumps, [{"event": "agent.failed", "level": "error"}, late])),
        "api0": "\n".join([json.dumps({"event": "request.broke", "level": "error"}), "Traceback (most …", "{"]),
        "api1": json.dumps({"event": "request.unavailable", "level": "warning"}),
    }
    assert faults(logs) == [
        "api0: request.broke ",
        "api0: a traceback that is no line of the log",
        f"worker0: {late['event']} ValueError: x",
    ]


def test_a_client_that_never_saw_the_end_is_noticed() -> None:
    evidence = Sample().evidence()
    evidence.watched[0].connections.pop()
    assert [violation.sentence for violation in judge(evidence)] == ["its client has not seen its end"]


def test_another_answer_than_the_stored_one_is_noticed() -> None:
    evidence = Sample().evidence()
    evidence.watched[0].final = {"id": RUN, "status": "failed", "output": []}
    assert {violation.kind for violation in judge(evidence)} == {"stream"}


def ledger_with(*entries: Entry, without: Callable[[Entry], bool] = lambda _: False) -> list[str]:
    sample = Sample()
    kept = [entry for entry in sample.entries if not without(entry)]
    evidence = replace(sample.evidence(), ledger=[*kept, *entries])
    return [f"{violation.kind}: {violation.sentence}" for violation in judge(evidence)]


def test_a_step_that_another_followed_is_not_run_again() -> None:
    again = Entry(99, PIDS[2], BEGIN, TOKEN, 2, FIRST, "another task")
    assert ledger_with(again) == [f"re-run: attempt 2 ran {FIRST}, although attempt 1 was at {SECOND}"]


def test_a_branch_whose_result_is_stored_is_not_run_again() -> None:
    stored = Entry(98, PIDS[2], BEGIN, TOKEN, 2, "left", "task of left"), Entry(98, PIDS[2], KEPT, task="task of left")
    again = Entry(99, 300, BEGIN, TOKEN, 3, "left", "task of left")
    assert ledger_with(*stored, again) == ["re-run: attempt 3 ran left, whose result attempt 2 had stored"]


def test_a_fenced_attempt_that_wakes_up_and_begins_a_kept_step_is_no_violation() -> None:
    woken = Entry(99, PIDS[1], BEGIN, TOKEN, 1, SECOND, f"task of {SECOND}")
    assert ledger_with(woken) == []


def test_a_word_said_by_a_replaced_attempt_is_in_no_log() -> None:
    """It is in the log where the numbers allow it: only the ledger tells that it came too late."""
    word = f"1|{TOKEN}|{SECOND}|1"
    late = Entry(99, PIDS[1], SAY, TOKEN, 1, SECOND, f"task of {SECOND}", word)
    [found] = ledger_with(late, without=lambda entry: entry.detail == word)
    assert found.startswith(f"late: {word} is in the log")


def test_a_run_that_completes_without_a_step_is_noticed() -> None:
    found = ledger_with(without=lambda entry: entry.kind == END and entry.step == SECOND)
    assert found == [f"skipped: it completed without ['{SECOND}']"]


def test_runs_of_one_thread_do_not_overlap() -> None:
    sample = Sample()
    other = replace(sample.stored(), token="c1.0", id="resp_0", started_at=BEGAN - timedelta(seconds=9))
    evidence = sample.evidence()
    evidence.runs = {"c1.0": other, **evidence.runs}
    evidence.ledger = [*evidence.ledger, *(replace(entry, token="c1.0", at=entry.at + 1) for entry in sample.entries)]
    found = [violation.sentence for violation in judge(evidence) if violation.kind == "thread"]
    assert found == ["it began before c1.0 of the same thread had ended"]


def test_recovery_is_from_the_blow_to_the_first_act_of_the_next_attempt() -> None:
    entries = Sample().entries
    died = max(entry.at for entry in entries if entry.attempt == 1)
    first = min(entry.at for entry in entries if entry.attempt == 2)
    assert recoveries([Blow("kill", "w", died + 0.5, died + 0.5, [PIDS[1]])], entries) == [first - died - 0.5]
    assert recoveries([Blow("kill", "w", died + 0.5, died + 0.5, [999])], entries) == []
