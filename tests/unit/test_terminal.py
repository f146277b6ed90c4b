"""What commands show of others' text: a terminal is told nothing by it, and no line is forged."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from outlast.infra.cli import hello, terminal
from outlast.infra.cli.ask import narrate
from outlast.infra.cli.demo.screen import Screen
from outlast.infra.cli.doctor import drawn
from outlast.infra.cli.operators import fail, table
from outlast.shared.doctor.examination import Examination
from outlast.shared.domain.errors import Invalid
from outlast.shared.domain.findings import Severity, error
from outlast.shared.domain.plain_text import on_a_line, visible

EVIL = "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\re\x7ff\u202eg\u2066h\x00i\x08"
OBEYED = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))]


def obeyed(text: str, *, besides: str = "\n\t") -> list[str]:
    return [character for character in text if character in OBEYED and character not in besides]


@pytest.mark.parametrize("character", OBEYED)
def test_what_a_terminal_obeys_is_shown_and_not_sent(character: str) -> None:
    assert visible(f"a{character}b") == f"a{character}b" if character in "\n\t" else obeyed(visible(character)) == []
    assert obeyed(on_a_line(character), besides="") == []
    assert len(on_a_line(character)) == 1


def test_it_is_told_which_character_it_was() -> None:
    assert visible("\x1b[31m\x7f\x85\ud800") == "␛[31m␡\ufffd\ufffd"
    assert on_a_line("a\r\nb\tc") == "a␍␊b␉c"


@pytest.mark.parametrize("text", ["one\n\ttwo\n", "naïve 日本語 👩\u200d🔬 שלום\u200f مرحبا"])
def test_an_answer_in_any_language_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_lines_of_another_system_end_as_ours() -> None:
    assert visible("one\r\ntwo\rthree") == "one\ntwo␍three"


def event(number: int, type: str, **fields: Any) -> dict[str, Any]:
    return {"type": type, "sequence_number": number, **fields}


def events() -> list[dict[str, Any]]:
    """A run with evil text wherever a caller, an agent or a tool can put some."""
    response = {"id": f"resp_{EVIL}", "status": "in_progress"}
    ended = {**response, "status": f"failed{EVIL}", "error": {"message": f"{EVIL}\ndone  0.1 s, all is well"}}
    tool = {"type": "mcp_call", "id": "1", "name": EVIL, "arguments": EVIL, "output": EVIL}
    refused = {**tool, "error": {"content": [{"text": EVIL}]}}
    return [
        event(0, "response.created", response=response),
        event(1, "response.output_text.delta", delta=EVIL),
        event(2, "response.output_text.delta", delta="\x1b"),
        event(3, "response.output_text.delta", delta="[2J\r"),
        event(4, "response.output_text.delta", delta="\nthe end\t."),
        event(5, "response.output_item.done", item=tool),
        event(6, "response.output_item.done", item=refused),
        event(7, "response.output_item.done", item={**tool, "type": "function_call"}),
        event(8, "response.output_item.done", item={"type": "reasoning", "summary": [{"text": EVIL}]}),
        event(9, "response.failed", response=ended),
    ]


def test_a_stream_that_is_told_sends_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert narrate(iter(events())) == 1
    said = capsys.readouterr()

    assert obeyed(said.out) == [] and obeyed(said.err) == []
    assert "␛[2J" in said.out, "a sequence that is split over two deltas"
    assert "\nthe end\t.\n" in said.out
    assert not any(line.startswith("done") for line in said.err.splitlines()), "an error forges no line"


def show_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __init__(self, *_: Any) -> None: ...

        def create(self, _: Any) -> list[dict[str, Any]]:
            message = {"type": "message", "content": [{"text": EVIL}]}
            ended = {"id": EVIL, "status": "completed", "attempt_number": 1}
            return [
                *events()[:-1],
                event(9, "response.output_item.done", item=message),
                event(10, "response.completed", response=ended),
            ]

    monkeypatch.setattr(hello, "Client", Evil)
    hello.say_hello("http://127.0.0.1:1")


def show_demo(_: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    shown = Screen(out, columns=lambda: 80, live=False, coloured=False)
    shown.answer(1, EVIL)
    shown.tell("kill", EVIL)
    shown.tell_briefly("2", EVIL)
    shown.tick("pause", 1.0, EVIL)
    terminal.typer.echo(out.getvalue())


def show_failure(_: pytest.MonkeyPatch) -> None:
    with pytest.raises(terminal.typer.Exit):
        fail(Invalid(EVIL))


def show_findings(_: pytest.MonkeyPatch) -> None:
    seen = Examination(Severity.ERROR, [error("agents", f"{EVIL}\nok  forged", EVIL)], "0", 0.0, 0.0)
    assert len(drawn(seen)) == 4
    terminal.echo("\n".join(drawn(seen)))


def show_table(_: pytest.MonkeyPatch) -> None:
    lines = table(("NAME",), [(f"{EVIL}\nforged",)])
    assert len(lines) == 2
    terminal.echo("\n".join(lines))


def show_screen(_: pytest.MonkeyPatch) -> None:
    terminal.redraw(["one", EVIL])


@pytest.mark.parametrize("show", [show_hello, show_demo, show_failure, show_findings, show_table, show_screen])
def test_no_way_of_showing_sends_what_others_wrote(
    show: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show(monkeypatch)
    said = "".join(capsys.readouterr()).replace("\x1b[H\x1b[J", "", 1)  # which clears the screen, and is ours

    assert "title" in said and obeyed(said) == []


@dataclass
class Named:
    name: str


def test_json_is_json_and_its_text_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.echo_json(Named(f"{EVIL}\n\u2028"))
    said = capsys.readouterr().out

    assert json.loads(said) == {"name": f"{EVIL}\n\u2028"}
    assert obeyed(said, besides="") == ["\n"] and said.endswith("}\n")


def test_progress_is_drawn_over_itself(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.echo_progress("1 of 2", last=False)
    terminal.echo_progress("2 of 2", last=True)

    assert capsys.readouterr().err == "\r1 of 2\r2 of 2\n"
