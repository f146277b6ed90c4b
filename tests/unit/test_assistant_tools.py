"""The assistant's pure parts: rules, calculator, clock, words and ranking."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from examples.assistant.calculator import MAX_LENGTH, calculate
from examples.assistant.clock import tell_time
from examples.assistant.passages import cut
from examples.assistant.quotes import best_sentence, excerpt, quotation, sentences
from examples.assistant.results import Found, Lines, Listing, write_lines, write_listing
from examples.assistant.rules import plan
from examples.assistant.search import Ranking, rank
from examples.assistant.steps import Calculate, Clock, Read, Search, Step, ToolError
from examples.assistant.words import term, terms

NOON = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("question", "steps"),
    [
        ("", ()),
        ("   \n ", ()),
        ("?!", ()),
        ("hello", ()),
        ("help", ()),
        ("What can you do?", ()),
        ("2+2", (Calculate("2+2"),)),
        ("what is 2+2?", (Calculate("2+2"),)),
        ("What's 12 * (3+4) =", (Calculate("12 * (3+4)"),)),
        ("how much is 6 times 7", (Calculate("6 * 7"),)),
        ("2^10", (Calculate("2**10"),)),
        ("calculate 1e3 / 7", (Calculate("1e3 / 7"),)),
        ("calculate __import__('os')", (Calculate("__import__('os')"),)),
        ("Compute the lease length", (Search("Compute lease length"),)),
        ("2026-01-15", (Search("2026 01 15"),)),
        ("what time is it?", (Clock(),)),
        ("please, what time is it now in Tokyo?", (Clock("Tokyo"),)),
        ("What's the current time in America/New_York", (Clock("America/New_York"),)),
        ("what time is it in Tokyo and in New York?", (Clock("Tokyo"), Clock("New York"))),
        ("what is today's date?", (Clock(),)),
        ("What is the time?", (Clock(),)),
        ("what day is it today?", (Clock(),)),
        ("time in Europe/Berlin", (Clock("Europe/Berlin"),)),
        ("what is the time in seconds of a lease?", (Search("time seconds lease"),)),
        ("What time does the sweep start?", (Search("time sweep start"),)),
        ("read docs/lifecycle.md 10-20", (Read("docs/lifecycle.md", 10, 20),)),
        ("show me the file docs/lifecycle.md lines 10 to 20.", (Read("docs/lifecycle.md", 10, 20),)),
        ("show lines 3-4 of notes.txt", (Read("notes.txt", 3, 4),)),
        ("show me file Makefile", (Read("Makefile"),)),
        ('read "my notes and more.md"', (Read("my notes and more.md"),)),
        ("notes.md:7", (Read("notes.md", 7, 7),)),
        ("cat ../../etc/passwd", (Read("../../etc/passwd"),)),
        ("read about leases", (Search("read leases"),)),
        ("Compare leases and fences", (Search("leases fences"),)),
        ("What happens to a run when its worker is killed?", (Search("run worker killed"),)),
        ("What is 6 * 7 and what is a lease?", (Calculate("6 * 7"), Search("lease"))),
        ("What is a lease? what time is it?", (Clock(), Search("lease"))),
        ("2+2\n3+3", (Calculate("2+2"), Calculate("3+3"))),
        ("lease Leases leased", (Search("lease"),)),
    ],
)
def test_a_question_becomes_steps(question: str, steps: tuple[Step, ...]):
    assert plan(question) == steps


def test_of_a_very_long_question_the_ends_are_searched():
    query = plan("alpha " + "filler " * 200_000 + " what is omega?")[-1]
    assert isinstance(query, Search)
    assert query.query.split()[0] == "alpha"
    assert query.query.split()[-1] == "omega"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2+2", "4"),
        ("12 * (3+4)", "84"),
        ("-3 - -4", "1"),
        ("+5", "5"),
        ("7 // 2", "3"),
        ("7 % 4", "3"),
        ("2 ** 10", "1024"),
        ("2 ** -1", "0.5"),
        ("10 / 4", "2.5"),
        ("10 / 5", "2"),
        ("0.1 + 0.2", "0.3"),
        ("1e3", "1000"),
        ("2 ** 4000 % 7", str(2**4000 % 7)),
        ("2 ** 4000 - 1", str(2**4000 - 1)),
    ],
)
def test_the_calculator_gives_the_value(expression: str, value: str):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1/0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("9**9**9", "too large"),
        ("9**9**9**9**9", "too large"),
        ("2 ** 5000", "too large"),
        ("(2**4000) * (2**4000)", "too large"),
        ("1e308 * 10", "too large"),
        ("1e999", "too large"),
        ("2.0 ** 100000", "too large"),
        ("10**1000 / 3", "too large"),
        ("(-8) ** 0.5", "not a real number"),
        ("1+" * 300 + "1", f"longer than {MAX_LENGTH}"),
        ("(" * 240 + "1+1" + ")" * 240, "not an expression"),
        ("", "not an expression"),
        ("2 +", "not an expression"),
        ("2 2", "not an expression"),
        ("()", "only numbers"),
        ("2(3)", "only numbers"),
        ("*5", "not an expression"),
        ("1, 2", "only numbers"),
        ("__import__('os').system('id')", "only numbers"),
        ("1 if 2 else 3", "only numbers"),
        ("9j", "only numbers"),
        ("1\0", "only numbers"),
        ("a" * 400, "only numbers"),
    ],
)
def test_the_calculator_refuses(expression: str, reason: str):
    with pytest.raises(ToolError, match=reason):
        calculate(expression)


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        (None, "2026-01-15 12:00:00 UTC"),
        ("UTC", "2026-01-15 12:00:00 UTC"),
        ("Asia/Tokyo", "2026-01-15 21:00:00+09:00 Asia/Tokyo (Thursday), 2026-01-15 12:00:00 UTC"),
        ("tokyo", "2026-01-15 21:00:00+09:00 Asia/Tokyo (Thursday), 2026-01-15 12:00:00 UTC"),
        ("New York", "2026-01-15 07:00:00-05:00 America/New_York (Thursday), 2026-01-15 12:00:00 UTC"),
        ("são paulo", "2026-01-15 09:00:00-03:00 America/Sao_Paulo (Thursday), 2026-01-15 12:00:00 UTC"),
    ],
)
def test_the_clock_tells_the_time_in_a_zone(zone: str | None, told: str):
    assert tell_time(NOON, zone) == told


@pytest.mark.parametrize("zone", ["Atlantis", "", "../../etc/passwd", "/etc/localtime", "Asia", "a\0b", "x" * 5000])
def test_the_clock_knows_no_other_zone(zone: str):
    with pytest.raises(ToolError, match="no IANA time zone"):
        tell_time(NOON, zone)


@pytest.mark.parametrize(
    "alike",
    [
        ("lease", "leases", "leased", "leasing", "Lease"),
        ("kill", "kills", "killed", "killing"),
        ("run", "runs", "running"),
        ("retry", "retries", "retried", "retrying"),
        ("process", "processes", "processed"),
        ("status", "statuses"),
        ("stop", "stopped", "stopping"),
        ("café", "cafe", "CAFÉ", "cafe\u0301"),
    ],
)
def test_forms_of_a_word_are_one_term(alike: tuple[str, ...]):
    assert len({term(each) for each in alike}) == 1


def test_different_words_stay_different():
    assert len({term(each) for each in ("lease", "least", "run", "ring", "string", "speed", "redis", "feed")}) == 8


def test_identifiers_are_found_whole_and_by_their_parts():
    assert set(terms("TASK_TIMEOUT_SECONDS")) == {"task_timeout_seconds", "task", "timeout", "second"}


def _ranked(text: str, question: str) -> Ranking:
    step = plan(question)[-1]
    assert isinstance(step, Search)
    return rank(cut("notes.md", text.split("\n")), step.query)


def test_what_says_it_ranks_above_what_mentions_it():
    text = """# Workers
A worker is a process. Each worker has slots, a worker beats, and a worker drains when told.

The worker page lists every worker, and every worker's version.

# Takeover
When a worker is killed, its runs go on: another worker takes each run over from its last checkpoint.

# Deploys
A worker of the new release starts before the worker of the old one stops.
"""
    best = _ranked(text, "What happens to a run when its worker is killed?").places[0]
    assert best.sentence.line == 7


def test_a_heading_counts_for_the_paragraph_below_it():
    text = "# Colours\n\nThe sea is blue.\n\n# Zebras\n\nThey are striped.\n\nThe grass is green.\n"
    assert _ranked(text, "tell me about zebras").places[0].passage.first_line == 5


def test_a_definition_ranks_above_a_mention():
    text = "lease lease lease, and again the lease\n\n| word | sense |\n|---|---|\n| **Lease** | a right |\n"
    assert _ranked(text, "What is a lease?").places[0].sentence.text == "| **Lease** | a right |"


def test_an_example_that_repeats_the_question_ranks_below_the_answer():
    text = 'Try this:\n\n```\n$ ask "How do goats swim?"\n```\n\nGoats swim with all four legs, slowly.\n'
    assert _ranked(text, "How do goats swim?").places[0].sentence.line == 7


def test_words_that_occur_nowhere_are_named():
    ranking = _ranked("A goat.\n\nA cow.\n", "goats unicorns")
    assert [(place.passage.file, place.sentence.line) for place in ranking.places] == [("notes.md", 1)]
    assert ranking.missing == ("unicorns",)


def test_equal_places_come_in_the_order_of_the_file_and_copies_once():
    text = "red goat\n\nold goat\n\nred goat\n"
    assert [place.sentence.line for place in _ranked(text, "goat").places] == [1, 3]


def test_hashes_in_code_are_no_headings():
    text = "# Real\n\n```\n# goat in a comment\n\nx = 1\n```\n\nsheep\n"
    assert [each.first_line for each in cut("a.md", text.split("\n"))] == [1, 9]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["One. Two goats!", "Three"], [(1, "One."), (1, "Two goats!"), (2, "Three")]),
        (["- first", "- second"], [(1, "first"), (2, "second")]),
        (["alpha is 1", "beta is 2"], [(1, "alpha is 1"), (2, "beta is 2")]),
        (["It takes 6 s, e.g. when", "killed"], [(1, "It takes 6 s, e.g. when"), (2, "killed")]),
        (["| a | b |", "|---|---|", "| 1. x | 2 |"], [(1, "| a | b |"), (3, "| 1. x | 2 |")]),
        (["山羊は白い。羊は黒い。"], [(1, "山羊は白い。"), (1, "羊は黒い。")]),
    ],
)
def test_sentences_keep_their_lines(lines: list[str], expected: list[tuple[int, str]]):
    assert [(each.line, each.text) for each in sentences("a.md", 1, lines)] == expected


def test_a_wrapped_sentence_is_one_and_begins_at_its_first_line():
    lines = ["Goats are kept for their milk, and in the mountains also", "for company."]
    choices = sentences("a.md", 4, lines)
    best, _ = best_sentence(choices, {term("company"): 1.0})
    assert quotation("a.md", choices, best.line, best.text) == (
        "Goats are kept for their milk, and in the mountains also for company. [a.md:4]"
    )


def test_a_heading_that_is_quoted_takes_what_follows_along():
    lines = ["# Zebras", "", "They are striped."]
    assert quotation("a.md", sentences("a.md", 1, lines), 1, "Zebras") == "Zebras\nThey are striped. [a.md:1]"


def test_of_a_line_without_end_the_part_around_the_word_is_quoted():
    line = "x " * 50_000 + "goat 7 " + "y " * 50_000
    part = excerpt(line, {"goat": 1.0})
    quote = quotation("a.json", sentences("a.json", 1, [line, "z"]), 1, part)
    assert "goat 7" in quote
    assert len(quote) < 450


def test_a_sentence_that_the_lines_do_not_show_is_quoted_alone():
    choices = sentences("a.md", 7, ["Goats eat.", "They sleep."])
    assert quotation("a.md", choices, 9, "Goats eat.") == "Goats eat. [a.md:9]"
    assert quotation("a.md", (), 9, "Goats eat.") == "Goats eat. [a.md:9]"


@pytest.mark.parametrize("file", ["a.md", "a b/c:3  x.md", "ü 山.md", "No file has x.md", "x, lines 1-2 of 3:.md"])
def test_what_the_tools_write_is_read_back(file: str):
    corpus = cut(file, ["# Goats", "", "Goats eat \u2028 (lines 3-4)  grass: 7.", "", "x", "", "A goat sleeps."])
    ranking = rank(corpus, "goats unicorns")
    listing = Listing.read(write_listing(ranking, "1 file of notes/ (a remark)"))
    assert listing.searched == "1 file of notes/ (a remark)"
    assert listing.missing == "No file has “unicorns”."
    assert listing.places == tuple(Found.of(place, ranking) for place in ranking.places)
    assert len(listing.places) > 1
    lines = ("  one", "", "   12  two", "a, lines 1-2 of 9:")
    assert Lines.read(write_lines(file, 8, lines, 99)) == Lines(file, 8, lines)


def test_what_the_tools_did_not_write_reads_as_nothing():
    assert Listing.read("") == Listing("", (), "")
    assert Listing.read("The search engine is\ndown").places == ()
    assert Lines.read("no title\n\n    1  x") == Lines("", 1, ())
