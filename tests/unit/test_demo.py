"""The demo's verdict, which must not be kind, and its screen."""

from __future__ import annotations

import io
import re

import pytest

from outlast.infra.cli.demo.proof import findings
from outlast.infra.cli.demo.screen import Screen
from outlast.shared.wire import to_json
from tests.support.streams import stream_of

DONE = b"data: [DONE]\n\n"


def frame(event: dict[str, object]) -> bytes:
    return f"event: {event['type']}\ndata: {to_json(event)}\n\n".encode()


LOG = [*map(frame, stream_of(["Nobody ", "noticed."])), DONE]
TEXT = next(number for number, found in enumerate(LOG) if b"output_text.delta" in found)


def failed(received: list[bytes], log: list[bytes] = LOG) -> list[str]:
    return [finding.text for finding in findings(received, log) if not finding.holds]


def test_a_stream_that_is_the_log_holds() -> None:
    assert failed(LOG) == []
    assert [finding.text.split(":")[0] for finding in findings(LOG, LOG)] == [
        f"{len(LOG) - 1} events, numbered 0 to {len(LOG) - 2}",
        f"{sum(map(len, LOG)):,} bytes received, the same as the log's when it is read from 0",
        "one terminal event, and it is the last",
        "the streamed words, without those taken back, are the final answer",
    ]


LAST = LOG[-2]
DOCTORED = {
    "event 3 was expected, event 4 came": [*LOG[:3], *LOG[4:]],
    "event 4 was expected, event 3 came": [*LOG[:4], *LOG[3:]],
    "nothing was received where the log has the end of the stream": LOG[:-1],
    "the terminal events are: none": [*LOG[:-2], DONE],
    f"the terminal events are: response.completed ({len(LOG) - 2}), response.completed": [*LOG[:-2], LAST, LAST, DONE],
    "the streamed words, without those taken back, are not the final answer": [
        *LOG[:TEXT], LOG[TEXT].replace(b"Nobody", b"Somebody"), *LOG[TEXT + 1 :],
    ],
    "0 events": [],
}  # fmt: skip


@pytest.mark.parametrize(("said", "received"), DOCTORED.items())
def test_a_doctored_stream_does_not_hold(said: str, received: list[bytes]) -> None:
    assert any(text.startswith(said) for text in failed(received)), failed(received)


@pytest.mark.parametrize("number", range(len(LOG)))
def test_one_changed_byte_anywhere_is_found(number: int) -> None:
    doctored = [*LOG[:number], LOG[number].replace(b"e", b"E", 1).replace(b"D", b"d", 1), *LOG[number + 1 :]]

    assert any("was received where the log has" in text for text in failed(LOG, doctored))


def screen(*, live: bool, columns: int = 40) -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    return Screen(out, columns=lambda: columns, live=live, coloured=live), out


def test_lines_fit_the_screen_and_begin_with_their_event() -> None:
    shown, out = screen(live=False)
    for number, word in enumerate(["nobody", "noticed", "that", "it", "had", "been", "killed", "\n\nat", "all"]):
        shown.answer(number, f"{word} ")
    shown.tell("kill", "a line that is longer than this narrow screen")

    assert out.getvalue().splitlines() == [
        "     0  nobody noticed that it had been",
        "     6  killed",
        "     7  at all",
        "  kill  a line that is longer than this",
        "        narrow screen",
    ]


def test_a_terminal_sees_the_time_go_by_in_one_line_and_a_file_now_and_then() -> None:
    terminal, drawn = screen(live=True)
    file, written = screen(live=False)
    for shown in (terminal, file):
        for tenth in range(50):
            shown.tick("pause", tenth / 10, "why nothing moves and what may end it")
        shown.tell("resume", "on")

    assert drawn.getvalue().count("\n") == 1 and drawn.getvalue().count("\r\x1b[K") == 51
    ticks = [line for line in drawn.getvalue().split("\r\x1b[K") if "why" in line]
    assert {len(re.sub(r"\x1b\[\d+m", "", tick)) for tick in ticks} == {39}
    assert [line[:13] for line in written.getvalue().splitlines() if not line.startswith("        ")] == [
        " pause  0.0 s",
        " pause  2.0 s",
        " pause  4.0 s",
        "resume  on",
    ]
    assert "\x1b" not in written.getvalue()
