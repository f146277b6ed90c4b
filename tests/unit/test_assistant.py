"""The assistant without a language model: tool calls, then an answer that quotes the user's own files."""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage

from examples.assistant import agent, describe
from examples.assistant.lookup import LookupModel
from examples.assistant.tools import TOOLS

OPENING = "Offline lookup (no language model): "


class Answer:
    """What one run said, called and was told, sorted."""

    def __init__(self, pieces: list[str], messages: list[BaseMessage]) -> None:
        self.pieces = pieces
        self.text = "".join(pieces)
        self.messages = messages
        self.calls = [call for each in messages if isinstance(each, AIMessage) for call in each.tool_calls]
        told = {each.tool_call_id: each for each in messages if isinstance(each, ToolMessage)}
        self.results = [told[call["id"] or ""] for call in self.calls]
        self.outputs = [each.text for each in self.results]

    @property
    def tools(self) -> list[str]:
        return [call["name"] for call in self.calls]

    @property
    def errors(self) -> list[str]:
        return [each.text for each in self.results if each.status == "error"]


async def ask(question: Any, *before: BaseMessage) -> Answer:
    pieces: list[str] = []
    state: dict[str, Any] = {}
    messages = [*before, HumanMessage(question)]
    async for kind, given in agent().astream({"messages": messages}, stream_mode=["messages", "values"]):
        if kind == "values":
            state = given
        elif isinstance(given[0], AIMessageChunk) and given[0].text:
            pieces.append(given[0].text)
    return Answer(pieces, state["messages"][len(messages) :])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, empty, beside files that are not the user's to show."""
    path = tmp_path / "notes"
    path.mkdir()
    (tmp_path / "private.md").write_text("private kittens")
    monkeypatch.setenv("ASSISTANT_FOLDER", str(path))
    monkeypatch.setenv("ASSISTANT_PACE_SECONDS", "0")
    return path


def a_word() -> str:
    return "".join(random.choices("bdfgklmnprtvz", k=9))


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def test_it_says_what_it_is():
    assert describe().startswith("offline lookup, no language model")


@pytest.mark.parametrize("name", ["facts.md", "deep/er/facts.txt", "facts.rst", "facts.yaml", "facts.py", "FACTS"])
@pytest.mark.parametrize("before", [0, 1, 7, 60])
async def test_a_fact_is_found_and_quoted_with_its_line(folder: Path, name: str, before: int):
    word, number = a_word(), random.randrange(10**9)
    fact = f"the {word} code: {number}"
    write(folder, name, "\n".join([*(f"filler {n}" for n in range(before)), fact, "filler", ""]))
    write(folder, "other.md", "A code is a number.\n\nEvery code is secret.\n")
    answer = await ask(f"What is the {word} code?")
    assert answer.text.startswith(OPENING)
    assert re.search(rf"{re.escape(fact)}[^\[]*\[{re.escape(name)}:{before + 1}\]", answer.text)
    assert re.search(
        rf"^{re.escape(name)}:{before + 1} \(lines .*\)  {re.escape(fact)}", answer.outputs[0], re.MULTILINE
    )
    assert answer.tools[:2] == ["search", "read"]
    assert f"{before + 1}  {fact}" in answer.outputs[1]


async def test_nothing_found_says_so_and_what_was_searched(folder: Path):
    write(folder, "a.md", "goats\n")
    write(folder, "b.txt", "sheep\n")
    answer = await ask("Where are the unicorns?")
    assert answer.text == f"{OPENING}Nothing was found for “unicorns” in 2 files of notes/."
    assert answer.tools == ["search"]
    assert answer.outputs == ["0 places in 2 files of notes/"]


async def test_words_that_no_file_has_are_named(folder: Path):
    write(folder, "a.md", "Goats are kept for milk.\n")
    answer = await ask("goats and unicorns")
    assert "\nNo file has “unicorns”.\n" in answer.outputs[0]
    assert answer.text.startswith(f"{OPENING}No file has “unicorns”. The best matches for “goats unicorns”")
    assert answer.text.endswith("Goats are kept for milk. [a.md:1]")


async def test_an_empty_folder_is_said(folder: Path):
    assert "in 0 files of notes/ (notes/ has no text)" in (await ask("goats")).text


async def test_a_missing_folder_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ASSISTANT_FOLDER", str(folder / "gone"))
    assert "in 0 files of gone/ (gone/ is missing)" in (await ask("goats")).text


async def test_without_a_folder_only_the_docs_and_readme_of_the_repository_are_seen(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("ASSISTANT_FOLDER", raising=False)
    monkeypatch.setenv("ASSISTANT_PACE_SECONDS", "0")
    assert "of docs/ and README.md" in (await ask("goats")).outputs[0]
    for other in ("pyproject.toml", "examples/assistant/lookup.py", ".git/config", "docs/../pyproject.toml"):
        assert len((await ask(f"read {other}")).errors) == 1


async def test_lines_of_a_file_are_read(folder: Path):
    write(folder, "a/goats.md", "\n".join(f"goat {n}" for n in range(1, 31)))
    answer = await ask("read a/goats.md 10-12")
    assert answer.calls[0]["args"] == {"file": "a/goats.md", "first_line": 10, "last_line": 12}
    shown = "a/goats.md, lines 10-12 of 30:\n\n   10  goat 10\n   11  goat 11\n   12  goat 12"
    assert answer.outputs == [shown]
    assert answer.text == OPENING + shown


async def test_a_file_is_found_by_the_end_of_its_path_when_there_is_only_one(folder: Path):
    write(folder, "a/goats.md", "one")
    assert (await ask("read goats.md")).text.endswith("    1  one")
    write(folder, "b/goats.md", "two")
    assert (await ask("read goats.md")).errors == ["goats.md could be any of a/goats.md, b/goats.md"]


async def test_a_long_file_is_read_in_part_and_the_part_is_named(folder: Path):
    write(folder, "long.txt", "x\n" * 1000)
    assert "long.txt, lines 1-200 of 1000:" in (await ask("read long.txt")).text
    assert "long.txt, lines 900-1000 of 1000:" in (await ask("read long.txt 900-99999")).text


@pytest.mark.parametrize(
    ("lines", "reason"),
    [("0", "a.md has lines 1 to 2, not 0"), ("3", "has lines 1 to 2"), ("2-1", "line 1 comes before line 2")],
)
async def test_lines_that_are_not_there_are_refused(folder: Path, lines: str, reason: str):
    write(folder, "a.md", "one\ntwo\n")
    answer = await ask(f"read a.md {lines}")
    assert reason in answer.errors[0]
    assert answer.text.startswith(f"{OPENING}The read tool failed: ")


@pytest.mark.parametrize(
    "path",
    [
        "../private.md",
        "a/../../private.md",
        "{outside}/private.md",
        "/etc/passwd",
        "~/private.md",
        "link.md",
        "linked/private.md",
        "loop.md",
        ".hidden/file.md",
        ".env",
        "env.txt",
        "binary.md",
        "picture.png",
        "huge.md",
        "missing.md",
        "a/",
        "private.md",
    ],
)
async def test_a_path_that_is_not_the_users_text_is_refused(folder: Path, path: str):
    lay_traps(folder)
    answer = await ask(f"read {path.format(outside=folder.parent)}")
    assert answer.tools == ["read"]
    assert len(answer.errors) == 1
    assert "kittens" not in answer.text + answer.outputs[0]


async def test_a_search_sees_only_the_users_text(folder: Path):
    lay_traps(folder)
    answer = await ask("kittens")
    assert answer.outputs[0].split("\n")[1:] == ["a/seen.md:1 (lines 1-1)  kittens"]


def lay_traps(folder: Path) -> None:
    write(folder, "a/seen.md", "kittens\n")
    write(folder, ".hidden/file.md", "hidden kittens")
    write(folder, ".env", "SECRET=kittens")
    write(folder, "node_modules/kittens.md", "their kittens")
    write(folder, "picture.png", "kittens")
    write(folder, "binary.md", "kittens \0 kittens")
    write(folder, "huge.md", "kittens " * 200_000)
    (folder / "link.md").symlink_to(folder.parent / "private.md")
    (folder / "linked").symlink_to(folder.parent, target_is_directory=True)
    (folder / "env.txt").symlink_to(folder / ".env")
    (folder / "loop.md").symlink_to(folder / "loop.md")


async def test_a_link_within_the_folder_is_followed_and_its_text_shown_once(folder: Path):
    write(folder, "z.md", "kittens\n")
    (folder / "a.md").symlink_to(folder / "z.md")
    assert (await ask("kittens")).text.count("kittens [") == 1
    assert (await ask("read a.md")).errors == []


async def test_a_folder_beyond_the_limit_is_searched_in_part_and_that_is_said(folder: Path):
    for n in range(2_003):
        write(folder, f"{n:04}.md", "goat")
    output = (await ask("goat")).outputs[0]
    assert "in 2000 files of notes/ (only the first 2000 of 2003 files were searched)" in output


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("what is 12 * (3+4)?", "12 * (3+4) = 84"),
        ("1/0", "The calculator tool failed: division by zero."),
        ("9**9**9", "The calculator tool failed: a result is too large (more than 4096 bits)."),
        ("1+" * 300_000 + "1", "The calculator tool failed: the expression is longer than 500 characters."),
        ("what time is it in Atlantis?", "The clock tool failed: no IANA time zone is called Atlantis."),
    ],
)
async def test_what_a_tool_returns_is_what_is_said(folder: Path, question: str, said: str):
    answer = await ask(question)
    assert answer.text == OPENING + said
    assert len(answer.calls) == len(answer.results) == 1


async def test_the_time_is_told(folder: Path):
    assert re.search(r"It is \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.$", (await ask("what time is it?")).text)
    assert "Asia/Tokyo" in (await ask("what time is it in Tokyo?")).text


async def test_one_question_may_ask_several_things(folder: Path):
    write(folder, "a.md", "A goat is an animal.\n")
    answer = await ask("What is 6 * 7 and what is a goat?")
    assert answer.tools == ["calculator", "search", "read"]
    assert answer.text.startswith(f"{OPENING}6 * 7 = 42\n\nThe best matches")
    assert answer.text.endswith("A goat is an animal. [a.md:1]")


@pytest.mark.parametrize("question", ["", "  \n", "help", "???", []])
async def test_an_empty_question_is_told_what_it_can_do(folder: Path, question: object):
    answer = await ask(question)
    assert answer.text.startswith(f"{OPENING}Ask about the files in notes/")
    assert answer.calls == []


async def test_every_call_has_one_result_and_an_id_of_its_own(folder: Path):
    write(folder, "a.md", "\n\n".join(f"goat number {n}" for n in range(9)))
    first, again = await ask("goat"), await ask("goat")
    ids = [call["id"] for call in first.calls + again.calls]
    assert first.tools == ["search", "read", "read", "read"]
    assert len(set(ids)) == len(ids) == 8
    assert len([each for each in first.messages if isinstance(each, ToolMessage)]) == 4


async def test_the_same_question_has_the_same_answer(folder: Path):
    for n in range(50):
        write(folder, f"{n}.md", "The goat eats.\n\nThe goat sleeps in the barn.\n\n# Goat\n\nWool.\n")
    first, again = await ask("goat barn"), await ask("goat barn")
    assert (first.pieces, first.outputs) == (again.pieces, again.outputs)


async def test_an_earlier_turn_changes_nothing(folder: Path):
    write(folder, "a.md", "A goat is an animal.\n")
    first = await ask("goat")
    again = await ask("goat", HumanMessage("goat"), *first.messages)
    assert (first.pieces, first.outputs) == (again.pieces, again.outputs)


async def test_a_model_made_anew_goes_on_from_the_messages_of_another(folder: Path):
    write(folder, "a.md", "A goat is an animal.\n")
    whole = await ask("What is 6 * 7 and what is a goat?")
    assert [each.type for each in whole.messages] == ["ai", "tool", "tool", "ai", "tool", "ai"]
    for place, expected in enumerate(whole.messages):
        if not isinstance(expected, AIMessage):
            continue
        so_far = [HumanMessage("What is 6 * 7 and what is a goat?"), *whole.messages[:place]]
        went_on = await LookupModel(title="notes/").bind_tools(TOOLS).ainvoke(so_far)
        assert went_on.text == expected.text
        assert [call["args"] for call in went_on.tool_calls] == [call["args"] for call in expected.tool_calls]


async def test_it_calls_only_tools_that_it_is_given(folder: Path):
    question = [HumanMessage("What is 6 * 7 and what is a goat?")]
    model = LookupModel(title="notes/")
    assert [c["name"] for c in (await model.bind_tools(TOOLS[:1]).ainvoke(question)).tool_calls] == ["search"]
    for without in (model, model.bind_tools(TOOLS, tool_choice="none")):
        answer = await without.ainvoke(question)
        assert answer.tool_calls == []
        assert answer.text.startswith(f"{OPENING}Ask about the files in notes/")


def test_without_an_event_loop_it_says_the_same(folder: Path):
    model = LookupModel(title="notes/").bind_tools(TOOLS)
    whole = model.invoke("What is 6 * 7?")
    pieces = list(model.stream("What is 6 * 7?"))
    assert [call["args"] for call in whole.tool_calls] == [{"expression": "6 * 7"}]
    assert [call["args"] for piece in pieces for call in piece.tool_calls] == [{"expression": "6 * 7"}]


async def test_a_changed_file_is_read_anew(folder: Path):
    write(folder, "a.md", "The goat is red.\n")
    assert "red" in (await ask("goat")).text
    write(folder, "a.md", "The goat is green now.\n")
    assert "The goat is green now. [a.md:1]" in (await ask("goat")).text


@pytest.mark.parametrize(
    ("text", "question", "quoted"),
    [
        ("Das Café öffnet um 9.", "when does the cafe open", "Das Café öffnet um 9. [ü 山.md:1]"),
        ("Ё — буква.\n\nКозёл — животное.", "козел?", "Козёл — животное. [ü 山.md:3]"),
        ("山羊は白い。羊は黒い。", "羊は黒いですか", "羊は黒い。 [ü 山.md:1]"),
        ("बकरी दूध देती है", "बकरी", "बकरी दूध देती है [ü 山.md:1]"),
        ("\ufeffgoat\r\nsheep\r\n", "sheep", "sheep [ü 山.md:2]"),
        ("a goat 🐐\u2028 here", "goat", "a goat 🐐\u2028 here [ü 山.md:1]"),
    ],
)
async def test_other_scripts_are_found_and_quoted(folder: Path, text: str, question: str, quoted: str):
    write(folder, "ü 山.md", text)
    assert quoted in (await ask(question)).text


REPEATED: dict[str, Callable[[], str]] = {
    "spaces": lambda: " " * 1_000_000 + "kittens",
    "words": lambda: "kittens and " * 90_000,
    "one word": lambda: "x" * 1_000_000,
    "manners": lambda: "please " * 150_000,
    "brackets": lambda: "(" * 1_000_000,
    "quotes": lambda: "read '" * 200_000,
    "dots": lambda: "read " + "../" * 300_000 + "etc/passwd",
    "questions": lambda: "what is " * 120_000,
    "characters": lambda: "".join(random.Random(7).choices(string.printable + "\0é山\ud800", k=1_000_000)),
}
HOSTILE = [
    "read a\0.md",
    "\0",
    "\ud800\udfff kittens",
    "[a-z]*+?{}\\ (?P<x> kittens",
    "what time is it in ../../../etc/passwd",
    "read .\\..\\..\\private.md",
    'read "../private.md',
    "read " + "a/" * 230 + "x.md",
    "\x1b[31m kittens",
]


@pytest.mark.parametrize("question", [*HOSTILE, *REPEATED])
async def test_hostile_questions_are_answered(folder: Path, question: str):
    write(folder, "a.md", "kittens\n")
    answer = await ask(REPEATED[question]() if question in REPEATED else question)
    assert answer.text.startswith(OPENING)
    assert "private kittens" not in answer.text
    # It can be stored and sent: no NUL, no lone surrogate, and not a megabyte of echo.
    stored = json.dumps([answer.text, answer.outputs, answer.calls], ensure_ascii=False).encode()
    assert b"\\u0000" not in stored
    assert len(stored) < 100_000


@pytest.mark.parametrize(
    "filling", ["-", " ", ". ", "\t", "|", "- ", "#", "[", "=", "1. ", "> ", "**", "`", "a.", "(\n", "\n"]
)
@pytest.mark.parametrize("name", ["a.md", "a.py", "a.toml"])
async def test_hostile_files_are_searched_in_time(folder: Path, name: str, filling: str):
    # A pattern that is quadratic somewhere would hold the interpreter for minutes here.
    write(folder, name, "kittens\n\n" + (filling * 100_000)[:100_000] + " kittens")
    answer = await ask("kittens")
    assert f"kittens [{name}:1]" in answer.text
    assert len(answer.text) < 5_000


async def test_control_characters_of_a_file_do_not_reach_the_client(folder: Path):
    write(folder, "a.md", "kittens \x1b[31m red\n")
    answer = await ask("kittens")
    assert "kittens  [31m red [a.md:1]" in answer.text
    assert "\x1b" not in answer.outputs[1]


async def test_the_answer_comes_in_small_pieces(folder: Path):
    write(folder, "a.md", "Goats are kept for milk, wool and company.\n")
    pieces = (await ask("goats")).pieces
    assert len(pieces) > 15
    assert max(map(len, pieces)) < 20
