import json
import os
import subprocess
import sys
import time

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research.data import hub
from research.data.labels import collect_labels, label_text
from research.data.source import Split, check_tagged, file_sha256, open_split
from research.errors import UserError

TEXT = {"text": "text"}
LABELLED = {"text": "text", "label": "label"}
TAGGED = {"tokens": "tokens", "tags": "tags"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def opened(
    value, fields=TEXT, *, name="train", hub_name=None, hub_config=None, hub_revision=None, **more
) -> Split:
    return open_split(
        name=name,
        value=value,
        hub_name=hub_name,
        hub_config=hub_config,
        hub_revision=hub_revision,
        fields=fields,
        **more,
    )


def fails(*fragments, **arguments):
    with pytest.raises(UserError) as caught:
        opened(**arguments)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for fragment in fragments:
        assert fragment in sentence, sentence
    return sentence


# --- rows


def test_columns_ids_and_places(file):
    path = file(
        "a.jsonl", '{"line": 5, "review": "good", "stars": 4}\n\n{"line": 6, "review": "bad", "stars": 1}\n'
    )
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


def test_ids_of_the_data(file):
    path = file("a.jsonl", [{"id": 7, "text": "a", "key": "x"}, {"id": 8, "text": "b", "key": "y"}])
    assert opened(path).rows["id"][:] == ["7", "8"]
    split = opened(path, {"id": "key", **TEXT})
    assert split.rows.column_names == ["id", "text", "__line__"] and split.rows["id"][:] == ["x", "y"]
    fails("id 'x'", "line 1 and line 3", value=file("b.jsonl", [{"id": i, "text": "a"} for i in "xyx"]))
    fails("line 2", "'id' is null", value=file("c.jsonl", [{"id": "x", "text": "a"}, {"text": "b"}]))
    fails("ids", "bool", value=file("d.jsonl", [{"id": True, "text": "a"}]))


def test_a_field_mapped_over_another_column(file):
    path = file("a.jsonl", [{"text": "raw", "clean": "c"}])
    assert opened(path, {"text": "clean", "pair": "clean"}).rows[0] == {
        "id": "train-0",
        "text": "c",
        "pair": "c",
        "__line__": 1,
    }


def test_limit_takes_the_first_rows(file):
    path = file("a.jsonl", [{"text": str(i)} for i in range(10)])
    assert opened(path, limit=3).rows["text"][:] == ["0", "1", "2"]
    assert len(opened(path, limit=99).rows) == 10


def test_rows_are_memory_mapped_and_fingerprinted_by_content(file, cache):
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


def test_a_file_is_parsed_once(file, monkeypatch):
    path = file("a.jsonl", [{"text": "one"}])
    opened(path)
    monkeypatch.setattr("research.data.formats.read_lines", None)
    assert opened(path).rows["text"][:] == ["one"]


# --- types


def test_types_come_from_the_whole_file(file):
    rows = [{"text": "a", "note": None, "n": 1, "o": {"k": 1}}] * 6000
    rows += [{"text": "2020-01-01T00:00:00", "note": "late", "n": 1.5, "o": {"z": [2, "x"]}, "new": [True]}]
    split = opened(file("a.jsonl", rows))
    assert split.rows[0] == {
        "id": "train-0", "text": "a", "__line__": 1, "note": None, "n": 1.0, "o": {"k": 1}, "new": None,
    }  # fmt: skip
    last = split.rows[6000]
    assert (last["text"], last["note"], last["n"]) == ("2020-01-01T00:00:00", "late", 1.5)
    assert (last["o"], last["new"]) == ({"z": [2, "x"]}, [True])


def test_csv_stays_text(file):
    split = opened(file("a.csv", "text,label\nNA,007\nnull,1\n"), LABELLED)
    assert split.rows["text"][:] == ["NA", "null"] and split.rows["label"][:] == ["007", "1"]


def test_a_field_of_mixed_kinds(file):
    path = file(
        "a.jsonl", [{"text": "a", "label": None}, {"text": "b", "label": "x"}, {"text": "c", "label": 1}]
    )
    assert opened(path).rows["label"][:] == [None, "x", 1]
    fails("line 3: 'label' holds a number but a text in", "line 2", value=path, fields=LABELLED)
    path = file("b.jsonl", [{"text": "a", "answers": {"text": []}}, {"text": "b", "answers": {"start": []}}])
    fails("'answers' holds an object of another shape", value=path, fields={"answers": "answers"})


def test_null_in_a_field(file):
    path = file("a.jsonl", [{"text": "a", "label": "x"}, {"text": "b"}, {"text": None, "label": "x"}])
    fails("line 3", "'text' is null or missing", value=path)
    fails("line 2", "'label' is null or missing", value=path, fields={"label": "label"})
    assert opened(path, {"label": "label"}, optional=["label"]).rows["label"][:] == ["x", None, "x"]
    path = file("b.jsonl", [{"tokens": ["a"]}, {"tokens": ["a", None]}])
    fails("line 2", "'tokens' has a null in its list", value=path, fields={"tokens": "tokens"})


def test_large_and_empty_texts(file):
    rows = [{"text": "ä" * 500_000}, {"text": ""}]
    split = opened(file("a.jsonl", rows))
    assert [len(text) for text in split.rows["text"]] == [500_000, 0]
    split = opened(file("a.csv", "text,label\n" + "a" * 1_000_000 + ",x\n,y\n"))
    assert [len(text) for text in split.rows["text"]] == [1_000_000, 0]


# --- formats end to end


def test_conll_file(file):
    split = opened(file("a.iob2", "EU B-ORG\nsaid O\n\nPeter B-PER\n"), TAGGED)
    assert split.rows[1] == {"id": "train-1", "tokens": ["Peter"], "tags": ["B-PER"], "__line__": 4}
    assert split.where(1).endswith("a.iob2, line 4")


def test_squad_file(file):
    qas = [
        {"id": "q1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]},
        {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True},
    ]
    article = {"title": "T", "paragraphs": [{"context": "Ada left.", "qas": qas}]}
    fields = {name: name for name in ("context", "question", "answers", "is_impossible")}
    split = opened(file("a.json", json.dumps({"data": [article]})), fields)
    assert split.rows.features["answers"]["answer_start"].feature.dtype == "int32"
    assert split.rows[0]["answers"] == {"text": ["Ada"], "answer_start": [0]}
    assert split.rows["id"][:] == ["q1", "q2"] and split.rows["is_impossible"][:] == [False, True]
    assert split.where(1).endswith("a.json, question q2")
    article["paragraphs"][0]["qas"] = [qas[0], qas[1], qas[0]]
    path = file("b.json", json.dumps({"data": [article]}))
    fails("id 'q1' stands in question 1 and question 3", value=path, fields=fields)


def test_parquet_file(tmp_path):
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


def test_missing_file(file, tmp_path):
    file("train.jsonl", "{}")
    fails("no such file", "did you mean train.jsonl?", value=str(tmp_path / "trian.jsonl"))
    fails("no such file", "no folder", value=str(tmp_path / "date" / "train.jsonl"))
    fails("no such file", "`data.name`", value="train")


def test_folder_unknown_suffix_and_empty_file(file, tmp_path):
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
def test_empty_split(file, name, content, things):
    path = file(name, content)
    assert fails("at least one", value=path).startswith(f"{path}: holds no {things}")


def test_empty_parquet(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    fails("holds no rows", value=str(tmp_path / "a.parquet"))


def test_unreadable_file(file, tmp_path):
    path = file("a.jsonl", [{"text": "a"}])
    os.chmod(path, 0)
    user = os.geteuid()
    if user == 0:  # root may read anything
        os.seteuid(65534)
    try:
        fails("cannot be read (Permission denied)", "permissions", value=path)
    finally:
        os.seteuid(user)


def test_a_fault_in_the_file_leaves_nothing_in_the_cache(file, cache):
    path = file("a.jsonl", [{"text": "a"}] * 6000 + ["no object"])
    fails("line 6001", value=path)
    path = file("a.json", json.dumps({"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "q"}]}]}]}))
    fails("qas[0]", "'question'", value=path)
    assert not list(cache.rglob("*.arrow"))


def test_unwritable_cache(file, tmp_path, monkeypatch):
    path = file("a.jsonl", [{"text": "a"}])
    blocked = file("blocked", "a file where a folder should be")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", blocked)
    fails("cannot be written", "HF_DATASETS_CACHE", value=path)


def test_missing_column(file):
    path = file("a.csv", "sentence,label\na,x\n")
    fails("no column 'text'", "sentence, label", "`data.columns.text: <name>`", value=path)
    fails("no column 'sentense'", "`data.columns.text: sentence`", value=path, fields={"text": "sentense"})
    assert opened(path, {"pair": "pair"}, optional=["pair"]).rows.column_names == [
        "id",
        "__line__",
        "sentence",
        "label",
    ]


def test_tokens_and_tags_of_different_length(file):
    path = file("a.jsonl", [{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a", "b"], "tags": ["O"]}])
    fails("line 2: 2 tokens but 1 tags", value=path, fields=TAGGED)
    fails(
        "'tags' holds string, not lists",
        value=file("b.jsonl", [{"tokens": ["a"], "tags": "O"}]),
        fields=TAGGED,
    )
    check_tagged({"tokens": ["a"], "tags": ["O"]}, "here")
    with pytest.raises(UserError, match="here: 0 tokens but 1 tags"):
        check_tagged({"tokens": [], "tags": ["O"]}, "here")


# --- hub data sets


@pytest.fixture
def folder(tmp_path):
    """A data set in the hub's format with label numbers, one row unlabelled."""
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
            "tokens": datasets.List(datasets.Value("string")),
        }
    )
    rows = {
        "text": ["a", "b", "c", "d"],
        "label": [1, 0, 1, -1],
        "tags": [[0, 1], [], [1], [0]],
        "tokens": [["a", "b"], [], ["c"], ["d"]],
    }
    data = datasets.Dataset.from_dict(rows, features=features)
    path = tmp_path / "sets" / "mine"
    (path / "data").mkdir(parents=True)
    data.to_parquet(path / "data" / "train-00000-of-00001.parquet")
    data.select([2]).to_parquet(path / "data" / "test-00000-of-00001.parquet")
    return str(path)


def test_hub_folder(folder):
    split = opened("train[:75%]", {**LABELLED, **TAGGED}, hub_name=folder)
    assert split.rows.column_names == ["id", "text", "label", "tokens", "tags"]
    assert split.rows["label"][:] == ["pos", "neg", "pos"]
    assert split.rows["tags"][:] == [["O", "B-X"], [], ["B-X"]]
    assert split.rows["id"][:] == ["train-0", "train-1", "train-2"]
    assert split.origin == f"{folder} (train[:75%])" and split.where(2) == f"{folder} (train[:75%]), row 2"
    assert not split.lines and len(split.fingerprint) == 64
    assert split.fingerprint == opened("train[:75%]", TEXT, hub_name=folder).fingerprint
    assert split.fingerprint != opened("train[:50%]", TEXT, hub_name=folder).fingerprint
    assert (
        split.rows._fingerprint
        == opened("train[:75%]", {**LABELLED, **TAGGED}, hub_name=folder).rows._fingerprint
    )


def test_hub_folder_unlabelled_row(folder):
    fails("(train), row 3", "'label' is null", value="train", fields=LABELLED, hub_name=folder)
    assert opened("train", LABELLED, hub_name=folder, optional=["label"]).rows["label"][3] is None


def test_a_folder_named_like_the_split_is_no_file(folder, tmp_path, monkeypatch):
    (tmp_path / "test").mkdir()
    monkeypatch.chdir(tmp_path)
    assert opened("test", hub_name=folder).rows["text"][:] == ["c"]


def test_a_file_beside_a_hub_data_set(folder, file):
    assert opened(file("a.jsonl", [{"text": "mine"}]), hub_name=folder).rows["text"][:] == ["mine"]


def test_hub_faults(folder, tmp_path):
    fails("(dev)", "Unknown split", "train", value="dev", hub_name=folder)
    fails("BuilderConfig", "large", value="train", hub_name=folder, hub_config="large")
    (tmp_path / "sets" / "bare").mkdir()
    fails("bare (train)", value="train", hub_name=str(tmp_path / "sets" / "bare"))


def test_hub_without_network(tmp_path):
    script = (
        "import sys, time, datasets\n"
        "from research.data.source import open_split\n"
        "from research.errors import UserError\n"
        "start = time.monotonic()\n"
        "try: open_split(name='train', value='train', hub_name='stanfordnlp/sst2', hub_config=None,"
        " hub_revision=None, fields={'text': 'sentence'})\n"
        "except UserError as error: print(error, time.monotonic() - start, sep='\\n')\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    sentence, seconds = run.stdout.splitlines()
    assert sentence.startswith("stanfordnlp/sst2: the hub (http://127.0.0.1:9) cannot be reached")
    assert "local file" in sentence and "`research prepare`" in sentence
    assert float(seconds) < 5


def test_hub_without_network_serves_what_is_cached(tmp_path, monkeypatch, cache):
    """The cache as a download leaves it: <owner>___<name>/<configuration>/<version>/<commit>."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    path = cache / "someone___reviews" / "default" / "0.0.0" / commit
    path.mkdir(parents=True)
    data = datasets.Dataset.from_dict({"text": ["kept"]})
    with datasets.arrow_writer.ArrowWriter(
        path=str(path / "reviews-train.arrow"), features=data.features
    ) as writer:
        writer.write_table(data.data.table)
        _, size = writer.finalize()
    info = datasets.DatasetInfo(
        features=data.features, builder_name="parquet", dataset_name="reviews", config_name="default",
        splits={"train": {"name": "train", "num_examples": 1, "num_bytes": size, "dataset_name": "reviews"}},
    )  # fmt: skip
    info.write_to_directory(str(path))
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    start = time.monotonic()
    assert opened("train", hub_name="someone/reviews").rows["text"][:] == ["kept"]
    assert opened("train", hub_name="someone/reviews", hub_revision=commit).rows["text"][:] == ["kept"]
    other = commit[::-1]
    fails("not of revision " + other, value="train", hub_name="someone/reviews", hub_revision=other)
    assert time.monotonic() - start < 5
    assert not datasets.config.HF_HUB_OFFLINE


# --- labels


def test_labels_are_collected_over_all_splits(file):
    train = opened(file("a.jsonl", [{"text": "a", "label": "pos"}, {"text": "b", "label": "neg"}]), LABELLED)
    test = opened(file("b.jsonl", [{"text": "a", "label": "mixed"}]), LABELLED, name="test")
    unlabelled = opened(file("c.jsonl", [{"text": "a"}]), name="input")
    assert collect_labels([train, test, unlabelled], "label", None) == ["mixed", "neg", "pos"]
    assert collect_labels([train, unlabelled], "label", ["pos", "neg", "none"]) == ["pos", "neg", "none"]
    with pytest.raises(UserError, match="no split has a value in 'label'"):
        collect_labels([unlabelled], "label", None)


def test_an_undeclared_label(file):
    path = file("a.jsonl", [{"text": "a", "label": "neg"}, {"text": "b", "label": "positiv"}])
    split = opened(path, LABELLED)
    with pytest.raises(UserError) as caught:
        collect_labels([split], "label", ["neg", "positive"])
    assert str(caught.value).startswith(f"{path}, line 2: the label 'positiv' of 'label' is not declared")
    assert "did you mean 'positive'?" in str(caught.value)


def test_numbers_and_truths_become_text(file):
    numbers = opened(file("a.jsonl", [{"text": "a", "label": n} for n in (10, 2, 1)]), LABELLED)
    assert collect_labels([numbers], "label", None) == ["1", "2", "10"]
    assert collect_labels([numbers], "label", ["10", "2", "1"]) == ["10", "2", "1"]
    truths = opened(file("b.jsonl", [{"text": "a", "label": value} for value in (True, False)]), LABELLED)
    assert collect_labels([truths], "label", None) == ["false", "true"]
    assert [label_text(value) for value in (True, 1, "x")] == ["true", "1", "x"]
    floats = opened(file("c.jsonl", [{"text": "a", "label": 0.5}]), LABELLED)
    with pytest.raises(UserError, match="labels are text"):
        collect_labels([floats], "label", None)


def test_labels_of_tags(file):
    split = opened(file("a.conll", "EU B-ORG\nsaid O\n\nPeter B-PER\n"), TAGGED)
    assert collect_labels([split], "tags", None) == ["B-ORG", "B-PER", "O"]
    with pytest.raises(UserError, match=r"line 4: the label 'B-PER'"):
        collect_labels([split], "tags", ["O", "B-ORG"])
    numbered = opened(file("b.jsonl", [{"tokens": ["a", "b"], "tags": [0, 3]}]), TAGGED)
    assert collect_labels([numbered], "tags", None) == ["0", "3"]


def test_an_empty_label(file):
    split = opened(file("a.csv", "text,label\na,x\nb,\n"), LABELLED)
    with pytest.raises(UserError, match="line 3: 'label' has an empty label"):
        collect_labels([split], "label", None)


def test_labels_of_a_million_rows():
    rows = datasets.Dataset(pa.table({"label": pa.array([f"class {i % 7}" for i in range(1_000_000)])}))
    split = Split(name="train", rows=rows, origin="somewhere", lines=False, fingerprint="")
    start = time.monotonic()
    assert len(collect_labels([split], "label", None)) == 7
    assert time.monotonic() - start < 1


def test_imports_stay_light():
    script = (
        "import sys, json\n"
        "import research.data.source, research.data.labels\n"
        "assert 'torch' not in sys.modules and 'datasets' not in sys.modules\n"
        "import research.data.arrow, research.data.hub\n"
        "assert 'datasets' in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
