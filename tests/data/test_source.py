"""Rows of a data file: columns, ids, types, and the one sentence of a fault."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research.data.source import file_sha256
from tests.data.opening import LABELLED, TAGGED, TEXT, Content, WriteFile, fails, opened

# --- rows


def test_columns_ids_and_places(file: WriteFile) -> None:
    path = file("a.jsonl", '{"line": 5, "review": "good", "stars": 4}\n\n{"line": 6, "review": "bad", "stars": 1}\n')
    split = opened(path, {"text": "review"}, name="validation")
    assert split.rows.column_names == ["id", "text", "__line__", "line", "stars"]
    assert split.rows[:] == {
        "id": ["validation-0", "validation-1"],
        "text": ["good", "bad"],
        "__line__": [1, 3],
        "line": [5, 6],
        "stars": [4, 1],
    }
    assert split.lines and split.where(1) == f"{path}, line 3"
    assert split.fingerprint == file_sha256(path)


def test_ids_of_the_data(file: WriteFile) -> None:
    path = file("a.jsonl", [{"id": 7, "text": "a", "key": "x"}, {"id": 8, "text": "b", "key": "y"}])
    assert opened(path).rows["id"][:] == ["7", "8"]
    split = opened(path, {"id": "key", **TEXT})
    assert split.rows.column_names == ["id", "text", "__line__"] and split.rows["id"][:] == ["x", "y"]
    fails("id 'x'", "line 1 and line 3", value=file("b.jsonl", [{"id": i, "text": "a"} for i in "xyx"]))
    fails("line 2", "'id' is null", value=file("c.jsonl", [{"id": "x", "text": "a"}, {"text": "b"}]))
    fails("ids", "bool", value=file("d.jsonl", [{"id": True, "text": "a"}]))


def test_a_field_mapped_over_another_column(file: WriteFile) -> None:
    path = file("a.jsonl", [{"text": "raw", "clean": "c"}])
    assert opened(path, {"text": "clean", "pair": "clean"}).rows[0] == {
        "id": "train-0",
        "text": "c",
        "pair": "c",
        "__line__": 1,
    }


def test_limit_takes_the_first_rows(file: WriteFile) -> None:
    path = file("a.jsonl", [{"text": str(i)} for i in range(10)])
    assert opened(path, limit=3).rows["text"][:] == ["0", "1", "2"]
    assert len(opened(path, limit=99).rows) == 10


def test_rows_are_memory_mapped_and_fingerprinted_by_content(file: WriteFile, cache: Path) -> None:
    first = opened(file("a.jsonl", [{"text": "one"}]))
    assert str(cache) in first.rows.cache_files[0]["filename"]
    assert isinstance(first.rows.select_columns(["text"]).data.blocks[0][0], datasets.table.MemoryMappedTable)
    stamp = os.stat(first.origin)
    changed = file("a.jsonl", [{"text": "two"}])  # same length, same times
    os.utime(changed, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    second = opened(changed)
    assert second.rows["text"][:] == ["two"]
    assert first.fingerprint != second.fingerprint and first.rows._fingerprint != second.rows._fingerprint
    assert opened(changed).rows._fingerprint == second.rows._fingerprint
    assert opened(changed, name="test").rows._fingerprint != second.rows._fingerprint  # other ids


def test_a_file_is_parsed_once(file: WriteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file("a.jsonl", [{"text": "one"}])
    opened(path)
    monkeypatch.setattr("research.data.formats.read_lines", None)
    assert opened(path).rows["text"][:] == ["one"]


# --- types


def test_types_come_from_the_whole_file(file: WriteFile) -> None:
    rows = [{"text": "a", "note": None, "n": 1, "o": {"k": 1}}] * 6000
    rows += [{"text": "2020-01-01T00:00:00", "note": "late", "n": 1.5, "o": {"z": [2, "x"]}, "new": [True]}]
    split = opened(file("a.jsonl", rows))
    assert split.rows[0] == {
        "id": "train-0", "text": "a", "__line__": 1, "note": None, "n": 1.0, "o": {"k": 1}, "new": None,
    }  # fmt: skip
    last = split.rows[6000]
    assert (last["text"], last["note"], last["n"]) == ("2020-01-01T00:00:00", "late", 1.5)
    assert (last["o"], last["new"]) == ({"z": [2, "x"]}, [True])


def test_csv_stays_text(file: WriteFile) -> None:
    split = opened(file("a.csv", "text,label\nNA,007\nnull,1\n"), LABELLED)
    assert split.rows["text"][:] == ["NA", "null"] and split.rows["label"][:] == ["007", "1"]


def test_a_field_of_mixed_kinds(file: WriteFile) -> None:
    path = file("a.jsonl", [{"text": "a", "label": None}, {"text": "b", "label": "x"}, {"text": "c", "label": 1}])
    assert opened(path).rows["label"][:] == [None, "x", 1]
    fails("line 3: 'label' holds a number but a text in", "line 2", value=path, fields=LABELLED)
    path = file("b.jsonl", [{"text": "a", "answers": {"text": []}}, {"text": "b", "answers": {"start": []}}])
    fails("'answers' holds an object of another shape", value=path, fields={"answers": "answers"})


def test_null_in_a_field(file: WriteFile) -> None:
    path = file("a.jsonl", [{"text": "a", "label": "x"}, {"text": "b"}, {"text": None, "label": "x"}])
    fails("line 3", "'text' is null or missing", value=path)
    fails("line 2", "'label' is null or missing", value=path, fields={"label": "label"})
    assert opened(path, {"label": "label"}, optional=["label"]).rows["label"][:] == ["x", None, "x"]
    path = file("b.jsonl", [{"tokens": ["a"]}, {"tokens": ["a", None]}])
    fails("line 2", "'tokens' has a null in its list", value=path, fields={"tokens": "tokens"})


def test_large_and_empty_texts(file: WriteFile) -> None:
    rows = [{"text": "ä" * 500_000}, {"text": ""}]
    split = opened(file("a.jsonl", rows))
    assert [len(text) for text in split.rows["text"]] == [500_000, 0]
    split = opened(file("a.csv", "text,label\n" + "a" * 1_000_000 + ",x\n,y\n"))
    assert [len(text) for text in split.rows["text"]] == [1_000_000, 0]


# --- formats end to end


def test_conll_file(file: WriteFile) -> None:
    split = opened(file("a.iob2", "EU B-ORG\nsaid O\n\nPeter B-PER\n"), TAGGED)
    assert split.rows[1] == {"id": "train-1", "tokens": ["Peter"], "tags": ["B-PER"], "__line__": 4}
    assert split.where(1).endswith("a.iob2, line 4")


def test_squad_file(file: WriteFile) -> None:
    qas = [
        {"id": "q1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]},
        {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True},
    ]
    article: dict[str, Any] = {"title": "T", "paragraphs": [{"context": "Ada left.", "qas": qas}]}
    fields = {name: name for name in ("context", "question", "answers", "is_impossible")}
    split = opened(file("a.json", json.dumps({"data": [article]})), fields, optional=["is_impossible"])
    assert split.rows.features["answers"]["answer_start"].feature.dtype == "int32"
    assert split.rows[0]["answers"] == {"text": ["Ada"], "answer_start": [0]}
    assert split.rows["id"][:] == ["q1", "q2"] and split.rows["is_impossible"][:] == [None, True]
    assert split.where(1).endswith("a.json, question q2")
    article["paragraphs"][0]["qas"] = [qas[0], qas[1], qas[0]]
    path = file("b.json", json.dumps({"data": [article]}))
    fails("id 'q1' occurs in question 1 and question 3", value=path, fields=fields, optional=["is_impossible"])


def test_parquet_file(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    label = pa.array(["x", "y", "x"]).dictionary_encode()
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": label}), path)
    split = opened(path, LABELLED)
    assert split.rows.column_names == ["id", "text", "label"] and not split.lines
    assert split.rows["label"][:] == ["x", "y", "x"] and split.where(2) == f"{path}, row 2"
    with open(path, "r+b") as damaged:
        damaged.truncate(60)
    fails(path, "cannot be read as .parquet", value=path)


# --- faults of files


def test_missing_file(file: WriteFile, tmp_path: Path) -> None:
    file("train.jsonl", "{}")
    fails("no such file", "did you mean train.jsonl?", value=str(tmp_path / "trian.jsonl"))
    fails("no such file", "no folder", value=str(tmp_path / "date" / "train.jsonl"))
    fails("no such file", "`data.name`", value="train")


def test_folder_unknown_suffix_and_empty_file(file: WriteFile, tmp_path: Path) -> None:
    fails("is a folder", value=str(tmp_path))
    fails("unknown kind of file", ".jsonl", value=file("a.xml", "<a/>"))
    fails("is empty", "at least one row", value=file("a.jsonl", ""))


@pytest.mark.parametrize(
    "name, content, things",
    [
        ("a.csv", "text,label\n", "lines"),
        ("a.csv", "\n\n", "lines"),
        ("a.jsonl", "\n \n", "lines"),
        ("a.conll", "-DOCSTART- O\n\n", "lines"),
        ("a.json", "[]", "items"),
        ("a.json", " \n", "items"),
        ("a.json", '{"data": []}', "questions"),
    ],
)
def test_empty_split(file: WriteFile, name: str, content: Content, things: Any) -> None:
    path = file(name, content)
    assert fails("at least one", value=path).startswith(f"{path}: holds no {things}")


def test_empty_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    fails("holds no rows", value=str(tmp_path / "a.parquet"))


def test_unreadable_file(file: WriteFile, tmp_path: Path) -> None:
    path = file("a.jsonl", [{"text": "a"}])
    os.chmod(path, 0)
    user = os.geteuid()
    if user == 0:  # root may read anything
        os.seteuid(65534)
    try:
        fails("cannot be read (Permission denied)", "permissions", value=path)
    finally:
        os.seteuid(user)


def test_a_fault_in_the_file_leaves_nothing_in_the_cache(file: WriteFile, cache: Path) -> None:
    rows: list[Any] = [{"text": "a"}] * 6000 + ["no object"]
    path = file("a.jsonl", rows)
    fails("line 6001", value=path)
    path = file("a.json", json.dumps({"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "q"}]}]}]}))
    fails("qas[0]", "'question'", value=path)
    assert not list(cache.rglob("*.arrow"))


def test_unwritable_cache(file: WriteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file("a.jsonl", [{"text": "a"}])
    blocked = file("blocked", "a file where a folder should be")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", blocked)
    fails("cannot be written", "HF_DATASETS_CACHE", value=path)


@pytest.mark.parametrize("content", ["", '{"features": {', "[]"])
def test_a_damaged_description_in_the_cache(
    file: WriteFile, cache: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    path = file("a.jsonl", [{"text": "x"}, {"text": "y"}])
    opened(path)
    [description] = cache.rglob("dataset_info.json")
    description.write_text(content)
    assert opened(path).rows["text"][:] == ["x", "y"]
    assert f"{description} is damaged: the data file is read again" in caplog.text


def test_missing_column(file: WriteFile) -> None:
    path = file("a.csv", "sentence,label\na,x\n")
    fails("no column 'text'", "sentence, label", "`data.columns.text: <name>`", value=path)
    fails("no column 'sentense'", "`data.columns.text: sentence`", value=path, fields={"text": "sentense"})
    assert opened(path, {"pair": "pair"}, optional=["pair"]).rows.column_names == [
        "id",
        "__line__",
        "sentence",
        "label",
    ]


def test_tokens_and_tags_of_different_length(file: WriteFile) -> None:
    path = file("a.jsonl", [{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a", "b"], "tags": ["O"]}])
    fails("line 2: 2 tokens but 1 tags; give both as many", value=path, fields=TAGGED, aligned=("tokens", "tags"))
    fails(
        "'tags' holds string, not lists",
        value=file("b.jsonl", [{"tokens": ["a"], "tags": "O"}]),
        fields=TAGGED,
        aligned=("tokens", "tags"),
    )
    empty = file("c.jsonl", [{"tokens": ["a"], "tags": ["O"]}, {"tokens": [], "tags": ["O"]}])
    fails("line 2: 0 tokens but 1 tags", value=empty, fields=TAGGED, aligned=("tokens", "tags"))
    assert len(opened(path, TAGGED).rows) == 2  # only a task that says so asks for it


@pytest.mark.process
def test_imports_stay_light() -> None:
    script = (
        "import sys, json\n"
        "import research.data.source, research.data.labels\n"
        "assert 'torch' not in sys.modules and 'datasets' not in sys.modules\n"
        "import research.data.arrow, research.data.hub\n"
        "assert 'datasets' in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_link_to_a_blob_without_suffix_is_read_by_the_links_name(file: WriteFile, tmp_path: Path) -> None:
    """As the cache of the hub keeps files: snapshots/<commit>/train.jsonl -> ../../blobs/<sha256>."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots" / "0a1b").mkdir(parents=True)
    file("blobs/77af", [{"text": "good"}, {"text": "bad"}])
    link = tmp_path / "snapshots" / "0a1b" / "train.jsonl"
    link.symlink_to("../../blobs/77af")
    split = opened(str(link))
    assert split.rows["text"][:] == ["good", "bad"] and split.where(1) == f"{link}, line 2"
    assert split.fingerprint == file_sha256(tmp_path / "blobs" / "77af")
