"""Personal data are found by form and checksum, and replaced; what only looks like some stays."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest

from research.cli import main
from research.data.words import word_places, words_of
from research.deploy.redact import Found, by_patterns, finder, merged, redact_lines, redacted
from research.tracking.run import Run

FOUND = {  # kind -> texts that hold one, alone between words; checksums are those of published test numbers
    "EMAIL": ("anna.smith+x@mail.example.org", "o'neil@example.co.uk", "jürgen@bücher.example"),
    "PHONE": ("+49 30 901820", "030/901820-14", "(212) 555-0143", "212-555-0143", "+1 212 555 0143",
              "0044 20 7946 0958"),
    "IBAN": ("DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "no93 8601 1117 947"),
    "CARD": ("4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444"),
    "IP": ("192.168.0.1", "2001:db8::8a2e:370:7334", "::ffff:192.0.2.128", "fe80:0:0:0:1:2:3:4"),
    "MAC": ("00:1B:44:11:3A:B7",),
    "SSN": ("123-45-6789",),
    "SECRET": ("hf_abcdefghijklmnopqrstuv", "AKIAIOSFODNN7EXAMPLE"),
}  # fmt: skip
OTHERS = (
    "DE88 3704 0044 0532 0130 00", "4111 1111 1111 1112", "0000 0000 0000 0000", "999.1.1.1", "1.2.3.4.5", "12:30:45",
    "a::b",
    "2024-05-17", "17.05.2024", "1 000 000", "3.14159265", "0.12345678", "order 12345678", "000-12-3456", "me@home",
    "std::map",
    "1234567890123", "v1.2.3", "§ 12 (3)",
)  # fmt: skip


@pytest.mark.parametrize("kind", FOUND)
def test_each_form_is_found_completely(kind: str) -> None:
    for text in FOUND[kind]:
        sentence = f"Write to {text}, or call."
        (place,) = by_patterns(sentence)
        assert (place.kind, sentence[place.start : place.end]) == (kind, text)


def test_what_only_looks_like_some_stays() -> None:
    assert [text for text in OTHERS if by_patterns(f"It is {text} here")] == []


@pytest.mark.slow
def test_hostile_lines_take_no_time_that_grows_with_their_square() -> None:
    """By processor time: eight times the text takes eight times as long, and would take 64 times."""

    def seconds(text: str) -> float:
        began = time.process_time()
        by_patterns(text)
        return time.process_time() - began

    for unit in ("a.", "1 ", "a@", "0-", "fe:", "DE12 ", "9" * 7 + "-", "'", "a@b.", "12.3.4.5 ", "-eyJ"):
        short = min(seconds(unit * (2_500 // len(unit))) for _ in range(3))
        assert min(seconds(unit * (20_000 // len(unit))) for _ in range(2)) < 24 * short + 0.01, unit


def test_words_with_their_places() -> None:
    text = ' "Anna" saw\tOslo... (it\'s 3.5%) @bob #fun :-) U.S. हिन्दी!'
    assert words_of(text) == [
        '"', "Anna", '"', "saw", "Oslo", "...", "(", "it's", "3.5%", ")", "@bob", "#fun",
        ":-)", "U.S", ".", "हिन्दी", "!",
    ]  # fmt: skip
    assert word_places("a  b!") == [(0, 1), (3, 4), (4, 5)] and word_places(" ") == []


def test_lines_and_json_keep_their_form() -> None:
    lines = [
        "call 212-555-0143\n",
        '{"text": "to a@b.example", "n": [1, {"ip": "10.0.0.1"}]}\n',
        "\n",
        "{no JSON a@b.example\n",
    ]
    output, places = io.StringIO(), io.StringIO()
    assert redact_lines(lines, finder(), output, places) == 4
    assert output.getvalue().splitlines() == [
        "call [PHONE]", '{"text": "to [EMAIL]", "n": [1, {"ip": "[IP]"}]}', "", "{no JSON [EMAIL]",
    ]  # fmt: skip
    assert [json.loads(line) for line in places.getvalue().splitlines()][2] == {
        "line": 2, "path": "n.1.ip", "start": 0, "end": 8, "kind": "IP",
    }  # fmt: skip
    alike = io.StringIO()  # two texts of one path
    redact_lines(['{"a.b": "one", "a": {"b": "two 10.0.0.1"}}\n'], finder(), alike)
    assert json.loads(alike.getvalue()) == {"a.b": "one", "a": {"b": "two [IP]"}}
    assert redacted("call 212-555-0143 now", [Found(5, 17, "PHONE")], same_length=True) == "call ████████████ now"
    assert merged([Found(5, 9, "IP")], [Found(0, 4, "PER"), Found(6, 12, "PER")]) == [
        Found(0, 4, "PER"),
        Found(5, 9, "IP"),
    ]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "log.txt", tmp_path / "out.txt"
    source.write_text("from 10.0.0.1\n")
    assert main(["redact", "--input", str(source), "--output", str(output)]) == 0
    assert output.read_text() == "from [IP]\n" and "1 place redacted" in capsys.readouterr().err
    source.write_bytes(b"a\xff")
    for arguments, reason in (
        (["--input", str(source)], "is not UTF-8"),
        (["--input", str(tmp_path / "none")], "cannot be read: No such file"),
        (["--kinds", "PER"], "name it by --names"),
    ):
        assert main(["redact", *arguments, "--output", str(output)]) == 2
        assert reason in capsys.readouterr().err
    assert output.read_text() == "from [IP]\n"


@pytest.mark.slow
def test_names_by_a_run(served_runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "log.txt", tmp_path / "out.txt"
    source.write_text("Anna saw a@b.example\n\n" * 40)
    run = served_runs["ner"]
    places = tmp_path / "places.jsonl"
    asked = ["redact", "--input", str(source), "--output", str(output), "--places", str(places)]
    assert main([*asked, "--names", str(run.path)]) == 0
    lines = output.read_text().splitlines()
    assert len(lines) == 80 and all(line.endswith("[EMAIL]") for line in lines[::2]) and set(lines[1::2]) == {""}
    for arguments, reason in (
        ([str(served_runs["sentiment"].path)], "names are found by a run of the task ner, not"),
        ([str(run.path), "--kinds", "XYZ"], "the run knows no entities of the kind 'XYZ'; it knows"),
    ):
        assert main([*asked, "--names", *arguments]) == 2
        assert reason in capsys.readouterr().err
