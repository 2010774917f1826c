"""CSV and TSV as people have them."""

from typing import Any

import pytest

from research.data.csv_files import read_csv
from research.data.lines import Reading
from tests.data.opening import WriteFile, refuses


def test_csv_values_stay_text(file: WriteFile) -> None:
    path = file("a.csv", "\ufefftext,label\r\nNA,007\r\nnull,\r\n2020-01-01,1.50\r\n")
    rows = [row for _, row in read_csv(path)]
    assert rows == [
        {"text": "NA", "label": "007"},
        {"text": "null", "label": ""},
        {"text": "2020-01-01", "label": "1.50"},
    ]


def test_csv_place_is_the_first_line_of_a_record(file: WriteFile) -> None:
    path = file("a.csv", 'text,label\n"one\ntwo, ""three""",x\n\nfour,y\n')
    assert list(read_csv(path)) == [
        (2, {"text": 'one\ntwo, "three"', "label": "x"}),
        (5, {"text": "four", "label": "y"}),
    ]


def test_tsv_is_separated_by_tabs(file: WriteFile) -> None:
    assert list(read_csv(file("a.tsv", "text\tlabel\na, b\tx\n"))) == [(2, {"text": "a, b", "label": "x"})]


def test_csv_faults(file: WriteFile) -> None:
    refuses(read_csv, file("a.csv", "text,label\n\nwell, yes,x\n"), "line 3", "3 cells", "2", "a comma")
    refuses(read_csv, file("a.tsv", "text\tlabel\na\n"), "line 2", "1 cells", "a TAB")
    refuses(read_csv, file("b.csv", 'text,label\na,x\n"never closed,y\nb,x\n'), "line 3", "quot")
    refuses(read_csv, file("c.csv", "text,text\na,b\n"), "line 1", "'text' twice")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_csv_file_is_separated_by_what_its_first_line_is(file: WriteFile, separator: str) -> None:
    content = f'text{separator}label\n"good{separator} very, good; film"{separator}pos\n"bad 1,5"{separator}neg\n'
    rows = [tuple(row.values()) for _, row in read_csv(file("a.csv", content))]
    assert rows == [(f"good{separator} very, good; film", "pos"), ("bad 1,5", "neg")]


def test_commas_within_texts_separated_by_semicolons(file: WriteFile) -> None:
    path = file("a.csv", "text;score\ngood, very good film;0,5\nbad film;1,25\n")
    assert [row for _, row in read_csv(path)] == [
        {"text": "good, very good film", "score": "0,5"},
        {"text": "bad film", "score": "1,25"},
    ]


def test_the_separator_a_spreadsheet_or_a_key_names(file: WriteFile) -> None:
    row = {"text": "a,b", "label": "x"}
    assert list(read_csv(file("a.csv", "sep=;\ntext;label\na,b;x\n"))) == [(3, row)]
    path = file("b.csv", "text#label\na,b#x\n")
    assert list(read_csv(path, Reading(separator="#"))) == [(2, row)]


def test_a_file_without_header(file: WriteFile) -> None:
    path = file("a.csv", "pos,good film\nneg,bad film\n")
    assert list(read_csv(path, Reading(header=False))) == [
        (1, {"1": "pos", "2": "good film"}),
        (2, {"1": "neg", "2": "bad film"}),
    ]


def test_columns_without_a_name_and_blanks_in_the_header(file: WriteFile) -> None:
    assert next(read_csv(file("a.csv", ",text, label\n0,good,pos\n")))[1] == {
        "column_1": "0",
        "text": "good",
        "label": "pos",
    }
    path = file("b.csv", "v1,column_3,,,\nham,ok,,,\n")
    assert next(read_csv(path))[1] == {"v1": "ham", "column_3": "ok", "column_3_": "", "column_4": "", "column_5": ""}
    assert next(read_csv(file("c.csv", "text,label\na,b,,\n")))[1] == {"text": "a", "label": "b"}


# --- quotes

STRAY = ['"Great film', "Awful one", "It was dull", 'and it ended with "', 'He said "no"', '"So" he said', "good"]


def test_a_quote_in_a_tsv_file_is_a_character(file: WriteFile) -> None:
    path = file("a.tsv", "text\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(STRAY)))
    assert [(n, row["text"]) for n, row in read_csv(path)] == list(enumerate(STRAY, 2))
    assert [row["label"] for _, row in read_csv(path)] == list("0101010")


@pytest.mark.parametrize("name, how", [("a.csv", {}), ("a.tsv", {"quoting": "double"})])
def test_rows_swallowed_by_a_quote_are_refused(file: WriteFile, name: str, how: Any) -> None:
    separator = "\t" if name == "a.tsv" else ","
    rows = [("text", "label"), *((text, str(i % 2)) for i, text in enumerate(STRAY[:4])), ("good", "0"), ("bad", "1")]
    path = file(name, "".join(separator.join(row) + "\n" for row in rows))
    refuses(read_csv, path, "line 2", "takes in the next 3 lines", "`data.quoting: none`", **how)
    assert len(list(read_csv(path, Reading(quoting="none")))) == 6
    swapped = file(name, "".join(separator.join(row[::-1]) + "\n" for row in rows))
    refuses(read_csv, swapped, "line 2", "takes in the next 3 lines", **how)


def test_one_other_row_is_enough_to_recognise_them(file: WriteFile) -> None:
    path = file("a.csv", 'text,label\n"Great film,1\nAwful one,0\nand it ended with ",1\ngood,1\n')
    refuses(read_csv, path, "line 2", "takes in the next 2 lines")


def test_quoted_texts_of_several_lines_are_no_accident(file: WriteFile) -> None:
    text = "good, but\nlong,\nand dull, too"
    path = file("a.csv", f'text,label\nfine,pos\n"{text}",neg\nbad,neg\n"one, two\nthree",pos\n')
    assert [row["text"] for _, row in read_csv(path)] == ["fine", text, "bad", "one, two\nthree"]
    path = file("b.csv", 'label,text\nneg,fine\npos,"good\nbad, too"\npos,"good, but\nbad"\n')
    assert [row["text"] for _, row in read_csv(path)] == ["fine", "good\nbad, too", "good, but\nbad"]


def test_quotes_by_backslash(file: WriteFile) -> None:
    path = file("a.csv", 'text,label\n"he said \\"good\\" film",pos\n')
    refuses(read_csv, path, "line 2", "`data.quoting: backslash`")
    assert next(read_csv(path, Reading(quoting="backslash")))[1]["text"] == 'he said "good" film'
