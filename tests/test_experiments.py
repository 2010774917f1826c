"""Every shipped experiment is read and built: its own columns and splits, on small data of the same features."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from research.config.load import load_config
from research.continual.learn import module_of
from research.continual.sequence import cell_content, read_sequence
from research.training.build import build as build_module
from research.training.run import show
from tests.conftest import make_tiny_model
from tests.tasks.test_conformance import INFERENCE
from tests.tasks.test_translation import make_model

FOLDER = Path(__file__).parent.parent / "experiments"
SEQUENCES = sorted(FOLDER.glob("continual/*.yaml"))
FILES = sorted(p for p in FOLDER.rglob("*.yaml") if p.name != "base.yaml" and p not in SEQUENCES)
EXPERIMENTS = [str(p.relative_to(FOLDER)) for p in FILES]

STRING = datasets.Value("string")
POLARITY = datasets.ClassLabel(names=["negative", "positive"])
CONLL = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
WNUT = ["corporation", "creative-work", "group", "location", "person", "product"]
RELATIONS = ["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Other"]
TOPICS = ["World", "Sports", "Business", "Sci/Tech"]
INTENT_SLOTS = ("intent_slots/atis.yaml", "intent_slots/snips.yaml")
EMOTIONS = ["admiration", "joy", "neutral"]
INTENTS = ["activate_my_card", "age_limit"]
JOINT = ("multi/glue.yaml",)  # several tasks, each with the data of its own file
FEW = ("prompt/sst2.yaml", "setfit/sst2.yaml", "in_context/sst2.yaml")  # of SST-2, with its validation split as test
STARS = ["1 star", "2 star", "3 stars", "4 stars", "5 stars"]
ANSWERS = {"text": datasets.List(STRING), "answer_start": datasets.List(datasets.Value("int32"))}
QUESTION = {"id": STRING, "title": STRING, "context": STRING, "question": STRING, "answers": ANSWERS}


def sst2(i: int) -> dict[str, Any]:
    return {"idx": i, "sentence": f"a good film {i}", "label": i % 2}


def imdb(i: int) -> dict[str, Any]:
    return {"text": f"film {i}", "label": int(i >= 12500)}


def chnsenticorp(i: int) -> dict[str, Any]:
    return {"text": f"酒店很好 {i}", "label": i % 2}


def tagged(i: int, names: int) -> dict[str, Any]:
    return {"id": str(i), "tokens": ["Anna", "in", "Oslo"], "ner_tags": [1 + i % (names - 1), 0, 5]}


def cluener(i: int) -> dict[str, Any]:
    span = {"id": 0, "entity": "周荫如", "start_offset": 2, "end_offset": 5, "label": ("name", "company")[i % 2]}
    return {"text": "副长周荫如", "entities": [span] if i else []}


def relation(i: int) -> dict[str, Any]:
    return {"sentence": f"the <e1>cause</e1> {i} of an <e2>effect</e2>", "relation": i % len(RELATIONS)}


def question(i: int, none: bool = False) -> dict[str, Any]:
    answers = {"text": [], "answer_start": []} if none and i % 3 else {"text": ["Oslo"], "answer_start": [8]}
    texts = {"title": "Anna", "context": "Anna in Oslo.", "question": "where is Anna?"}
    return {"id": f"q{i}", **texts, "answers": answers}


def utterance(i: int) -> dict[str, Any]:
    return {"text": ["to", "Oslo", str(i)], "slot": ["O", "B-city", "O"], "intent": ("flight", "fare")[i % 2]}


# The features of each data set on the hub, a maker of its rows, the rows of each split.
HUB: dict[str, tuple[dict[str, Any], Callable[[int], dict[str, Any]], dict[str, int]]] = {
    "sentiment/sst2.yaml": (
        {"idx": datasets.Value("int32"), "sentence": STRING, "label": POLARITY},
        sst2,
        {"train": 12, "validation": 6, "test": 4},
    ),
    "sentiment/imdb.yaml": (
        {"text": STRING, "label": datasets.ClassLabel(names=["neg", "pos"])},
        imdb,
        {"train": 25000, "test": 8},
    ),
    "sentiment/chnsenticorp.yaml": (
        {"text": STRING, "label": POLARITY},
        chnsenticorp,
        {"train": 12, "validation": 6, "test": 4},
    ),
    "ner/conll2003.yaml": (
        {"id": STRING, "tokens": datasets.List(STRING), "ner_tags": datasets.List(datasets.ClassLabel(names=CONLL))},
        lambda i: tagged(i, 9),
        {"train": 12, "validation": 6, "test": 4},
    ),
    "ner/wnut17.yaml": (
        {
            "id": STRING,
            "tokens": datasets.List(STRING),
            "ner_tags": datasets.List(
                datasets.ClassLabel(names=["O", *(f"{p}-{kind}" for kind in WNUT for p in "BI")])
            ),
        },
        lambda i: tagged(i, 13),
        {"train": 24, "validation": 6, "test": 4},
    ),
    "ner/cluener.yaml": (
        {
            "text": STRING,
            "entities": [
                {
                    "id": datasets.Value("int64"),
                    "entity": STRING,
                    "start_offset": datasets.Value("int64"),
                    "end_offset": datasets.Value("int64"),
                    "label": STRING,
                }
            ],
        },
        cluener,
        {"train": 12, "validation": 6},
    ),
    "relation/semeval2010.yaml": (
        {"sentence": STRING, "relation": datasets.ClassLabel(names=RELATIONS)},
        relation,
        {"train": 20, "test": 4},
    ),
    "classification/ag_news.yaml": (
        {"text": STRING, "label": datasets.ClassLabel(names=TOPICS)},
        lambda i: {"text": f"good film {i}", "label": i % 4},
        {"train": 40, "test": 4},
    ),
    "classification/clinc_oos.yaml": (
        {"text": STRING, "intent": datasets.ClassLabel(names=["balance", "oos"])},
        lambda i: {"text": f"who is Anna {i}", "intent": i % 2},
        {"train": 12, "validation": 6, "test": 4},
    ),
    "classification/sms_spam.yaml": (
        {"sms": STRING, "label": datasets.ClassLabel(names=["ham", "spam"])},
        lambda i: {"sms": f"a good film {i}", "label": i % 2},
        {"train": 40},
    ),
    "regression/stsb.yaml": (
        {"sentence1": STRING, "sentence2": STRING, "label": datasets.Value("float32"), "idx": datasets.Value("int32")},
        lambda i: {"sentence1": f"a film {i}", "sentence2": "a book", "label": i % 6 / 2, "idx": i},
        {"train": 12, "validation": 6},
    ),
    "ordinal/yelp_stars.yaml": (
        {"label": datasets.ClassLabel(names=STARS), "text": STRING},
        lambda i: {"label": i % 5, "text": f"a good film {i}"},
        {"train": 100, "test": 5},
    ),
    "classification/banking77.yaml": (
        {"text": STRING, "label": datasets.ClassLabel(names=INTENTS)},
        lambda i: {"text": f"good city {i}", "label": i % 2},
        {"train": 40, "test": 4},
    ),
    "multi_label/go_emotions.yaml": (
        {"text": STRING, "labels": datasets.List(datasets.ClassLabel(names=EMOTIONS)), "id": STRING},
        lambda i: {"text": f"a good film {i}", "labels": [[0], [0, 1], [2]][i % 3], "id": f"e{i}"},
        {"train": 32, "validation": 6, "test": 4},
    ),
    "matching/squad.yaml": (QUESTION, question, {"train": 12, "validation": 6}),
    **dict.fromkeys(
        FEW,
        (
            {"idx": datasets.Value("int32"), "sentence": STRING, "label": POLARITY},
            sst2,
            {"train": 200, "validation": 6, "test": 4},
        ),
    ),
    "nli_zero_shot/ag_news.yaml": (
        {"text": STRING, "label": datasets.ClassLabel(names=TOPICS)},
        lambda i: {"text": f"good film {i}", "label": i % 4},
        {"train": 4000, "test": 4},
    ),
    **dict.fromkeys(
        INTENT_SLOTS,
        (
            {"text": datasets.List(STRING), "slot": datasets.List(STRING), "intent": STRING},
            utterance,
            {"train": 12, "validation": 6, "test": 4},
        ),
    ),
    "summarization/dialogsum.yaml": (
        {"id": STRING, "dialogue": STRING, "summary": STRING, "topic": STRING},
        lambda i: {"id": f"d{i}", "dialogue": f"#Person1#: film {i}?", "summary": f"A film {i}.", "topic": "film"},
        {"train": 12, "validation": 6, "test": 4},
    ),
    "translation/multi30k.yaml": (
        {"en": STRING, "de": STRING},
        lambda i: {"en": f"a film {i}", "de": f"ein Film {i}"},
        {"train": 12, "validation": 6, "test": 4},
    ),
    "qa/squad.yaml": (QUESTION, question, {"train": 12, "validation": 6}),
    "qa/squad_v2.yaml": (QUESTION, lambda i: question(i, none=True), {"train": 12, "validation": 6}),
    "qa/cmrc2018.yaml": (
        {name: QUESTION[name] for name in ("id", "context", "question", "answers")},
        lambda i: {k: v for k, v in question(i).items() if k != "title"},
        {"train": 12, "validation": 6, "test": 4},
    ),
}

OWN = {"prompt/sst2.yaml": ["task.verbalizer={negative: bad, positive: good}"]}  # words of the small model

# Examples of each split, labels and steps that building an experiment must give.
BUILT: dict[str, tuple[dict[str, int], list[str], int]] = {
    "sentiment/sst2.yaml": ({"train": 12, "validation": 6}, ["negative", "positive"], 3),
    "sentiment/imdb.yaml": ({"train": 22500, "validation": 2500, "test": 8}, ["neg", "pos"], 4 * 938),
    "sentiment/chnsenticorp.yaml": ({"train": 12, "validation": 6, "test": 4}, ["negative", "positive"], 3),
    "ner/conll2003.yaml": ({"train": 12, "validation": 6, "test": 4}, CONLL, 3),
    "ner/wnut17.yaml": (
        {"train": 24, "validation": 6, "test": 4},
        ["O", *(f"{p}-{kind}" for p in "BI" for kind in WNUT)],
        5,
    ),
    "ner/cluener.yaml": (
        {"train": 12, "validation": 6},
        ["O", "B-company", "B-name", "I-company", "I-name"],
        3,
    ),
    "relation/semeval2010.yaml": ({"train": 18, "validation": 2, "test": 4}, RELATIONS, 5),
    "classification/ag_news.yaml": ({"train": 38, "validation": 2, "test": 4}, TOPICS, 6),
    "classification/clinc_oos.yaml": ({"train": 12, "validation": 6, "test": 4}, ["balance", "oos"], 5),
    "classification/sms_spam.yaml": ({"train": 28, "validation": 4, "test": 8}, ["ham", "spam"], 3),
    "classification/banking77.yaml": ({"train": 36, "validation": 4, "test": 4}, INTENTS, 10),
    "multi_label/go_emotions.yaml": ({"train": 32, "validation": 6, "test": 4}, EMOTIONS, 8),
    "matching/squad.yaml": ({"train": 12, "validation": 6}, [], 1),
    "prompt/sst2.yaml": ({"train": 32, "validation": 32, "test": 6}, ["negative", "positive"], 1000),
    "setfit/sst2.yaml": ({"train": 144, "validation": 16, "test": 6}, ["negative", "positive"], 9),
    "in_context/sst2.yaml": ({"train": 198, "validation": 2, "test": 6}, ["negative", "positive"], 0),
    "nli_zero_shot/ag_news.yaml": ({"train": 36, "validation": 4, "test": 4}, TOPICS, 0),
    "multi/glue.yaml": (
        {"train": 24, "validation": 12},
        ["sst2 negative", "sst2 positive", "stsb score"],
        3,
    ),
    "regression/stsb.yaml": ({"train": 12, "validation": 6}, [], 4),
    "ordinal/yelp_stars.yaml": ({"train": 98, "validation": 2, "test": 5}, STARS, 8),
    **dict.fromkeys(INTENT_SLOTS, ({"train": 12, "validation": 6, "test": 4}, ["fare", "flight"], 10)),
    "summarization/dialogsum.yaml": ({"train": 12, "validation": 6, "test": 4}, [], 3),
    "translation/multi30k.yaml": ({"train": 12, "validation": 6, "test": 4}, [], 3),
    "qa/squad.yaml": ({"train": 12, "validation": 6}, [], 3),
    "qa/squad_v2.yaml": ({"train": 12, "validation": 6}, [], 2),
    "qa/cmrc2018.yaml": ({"train": 12, "validation": 6}, [], 2),
    "quickstart/sentiment.yaml": ({"train": 560, "validation": 100, "test": 100}, ["negative", "positive"], 0),
    "quickstart/ner.yaml": (
        {"train": 218, "validation": 56, "test": 56},
        ["O", *(f"{p}-{kind}" for p in "BI" for kind in ("LOC", "MISC", "ORG", "PER"))],
        0,
    ),
    "quickstart/dialogue.yaml": ({"train": 154, "validation": 24, "test": 26}, [], 0),
    "quickstart/qa.yaml": ({"train": 231, "validation": 64, "test": 64}, [], 0),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "long", max_position_embeddings=512)


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that write text, or judge what follows from one, by the experiments they serve."""
    folder = tmp_path_factory.mktemp("writers")
    decoder = make_model(folder / "gpt2", "gpt2", n_positions=1024)
    turns = "{% for m in messages %}[CLS]{{ m.role }}: {{ m.content }}[SEP]{% endfor %}"
    asked = "{% if add_generation_prompt %}[CLS]assistant: {% endif %}"
    (decoder / "chat_template.jinja").write_text(turns + asked)
    encoder_decoder = make_model(folder / "bart", "bart")
    return {
        "summarization/dialogsum.yaml": decoder,
        "quickstart/dialogue.yaml": decoder,
        "in_context/sst2.yaml": decoder,
        "nli_zero_shot/ag_news.yaml": make_tiny_model(folder / "nli", **INFERENCE),
        "translation/multi30k.yaml": encoder_decoder,
    }


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def as_on_the_hub(experiment: str, folder: Path) -> Path:
    """Small data in a local folder that `datasets` reads as it reads the hub."""
    features, make, counts = HUB[experiment]
    for split, count in counts.items():
        rows = [make(i) for i in range(count)]
        columns = {name: [row[name] for row in rows] for name in features}
        dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        (folder / split).mkdir(parents=True)
        dataset.to_parquet(folder / split / "0000.parquet")
    return folder


def tree(names: Sequence[str], model: Path, folder: Path) -> Path:
    """The folder of experiments with small data of each in the place of the hub's, and another model."""
    shutil.copytree(FOLDER, folder / "experiments")
    for i, name in enumerate(names):
        content = yaml.safe_load((FOLDER / name).read_text())
        data = {**content["data"], "name": str(as_on_the_hub(name, folder / f"data{i}"))}
        data = {key: value for key, value in data.items() if key not in ("config", "revision")}
        path = folder / "experiments" / name
        path.write_text(yaml.safe_dump({**content, "model": {"name": str(model)}, "data": data}))
    return folder / "experiments"


def built(experiment: str, model: Path, folder: Path) -> Any:
    overrides = [f"model.name={model}", "model.revision=null", f"run_dir={folder / 'run'}", *OWN.get(experiment, [])]
    if experiment in JOINT:
        return load_config(tree(["sentiment/sst2.yaml", "regression/stsb.yaml"], model, folder) / experiment, overrides)
    if experiment in HUB:
        overrides += [f"data.name={as_on_the_hub(experiment, folder / 'data')}", "data.config=null"]
    return load_config(FOLDER / experiment, overrides)


def test_their_number() -> None:
    assert len(EXPERIMENTS) == 31 and len(SEQUENCES) == 1
    assert set(EXPERIMENTS) == set(BUILT)
    assert {*HUB, *JOINT} == {name for name in EXPERIMENTS if not name.startswith("quickstart/")}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_header_states_command_score_and_time(experiment: str) -> None:
    text = (FOLDER / experiment).read_text(encoding="utf-8")
    header = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert f"research train experiments/{experiment}" in header
    assert "Expected:" in header or "Measured:" in header
    assert "measured" in header.lower()
    assert "extends: ../base.yaml" in text or experiment in JOINT  # whose tasks' files say that


@pytest.mark.in_check(3)
@pytest.mark.parametrize("experiment", sorted([*HUB, *JOINT]))
def test_hub_names(experiment: str) -> None:
    config = load_config(FOLDER / experiment)
    for name in (config.model.name, config.data.name):
        assert name is not None and name.count("/") == 1
    assert config.task.name == experiment.split("/")[0]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_is_built(experiment: str, model: Path, writers: dict[str, Path], tmp_path: Path) -> None:
    module = build_module(built(experiment, writers.get(experiment, model), tmp_path))
    counts, labels, steps = BUILT[experiment]
    data = module.data
    assert {name: len(store) for name, store in data.stores.items()} == counts
    assert sorted(data.labels) == sorted(labels)
    assert module.total_steps == steps or (steps == 0 and module.total_steps > 20)
    assert all((store.targets > 0).all() for store in data.stores.values())
    if experiment == "sentiment/imdb.yaml":  # which is sorted by label: as many of each are held out
        assert data.stores["train"].count("label", 2).tolist() == [11250, 11250]
        assert data.stores["validation"].count("label", 2).tolist() == [1250, 1250]
        assert not set(data.splits["train"].rows["text"]) & set(data.splits["validation"].rows["text"])


@pytest.mark.slow
@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda path: path.stem)
def test_cells_of_a_sequence_are_built(sequence: Path, model: Path, tmp_path: Path) -> None:
    names = [f"classification/{name}.yaml" for name in ("ag_news", "clinc_oos", "banking77")]
    read = read_sequence(tree(names, model, tmp_path) / "continual" / sequence.name)
    assert [f"classification/{name}.yaml" for name in read.tasks] == names and len(read.orders) == 2
    header = " ".join(line.lstrip("# ") for line in sequence.read_text().splitlines() if line.startswith("#"))
    assert f"research continual experiments/continual/{sequence.name}" in header and "Expected:" in header
    for strategy in read.strategies:
        content = cell_content(read, strategy, read.orders[0], 2, [model, model])
        if strategy.name in ("lwf", "ewc"):  # they read what earlier runs have written
            assert content["task"].get("follow", 0) or content["methods"]["ewc"]["runs"]
            continue
        module = module_of(content, tmp_path / strategy.name, 0, [f"model.name={model}"])
        examples = {"naive": 36, "joint": 38 + 12 + 36, "replay": 36 + 38 + 12}[strategy.name]
        assert len(module.data.stores["test"]) == 12 and module.total_steps == 3 * -(-examples // 32)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", INTENT_SLOTS)
def test_intents_and_slots_as_published(experiment: str, model: Path, tmp_path: Path) -> None:
    """A folder for each split, with the overrides that the header of the experiment names."""
    for split, count in {"train": 12, "valid": 6, "test": 4}.items():
        rows = [utterance(i + 100 * count) for i in range(count)]
        (tmp_path / split).mkdir()
        for file, field in (("seq.in", "text"), ("seq.out", "slot"), ("label", "intent")):
            lines = [row[field] if field == "intent" else " ".join(row[field]) for row in rows]
            (tmp_path / split / file).write_text("".join(f"{line}\n" for line in lines))
    header = [line.lstrip("# ") for line in (FOLDER / experiment).read_text().splitlines() if line.startswith("#   ")]
    written = shlex.split(" ".join(line.removesuffix("\\") for line in header[1:]).replace("FOLDER", str(tmp_path)))
    overrides = [f"model.name={model}", f"run_dir={tmp_path / 'run'}", *written]
    data: Any = build_module(load_config(FOLDER / experiment, overrides)).data
    assert {name: len(store) for name, store in data.stores.items()} == {"train": 12, "validation": 6, "test": 4}
    assert data.labels == ["fare", "flight"] and list(data.tags) == ["B-city", "O"]


@pytest.mark.slow
def test_ids_of_the_data_are_kept(model: Path, tmp_path: Path) -> None:
    data = build_module(built("sentiment/sst2.yaml", model, tmp_path)).data
    assert data.splits["validation"].rows["id"] == [str(i) for i in range(6)]


@pytest.mark.slow
def test_questions_without_answer_are_scored_by_squad_v2(model: Path, tmp_path: Path) -> None:
    module = build_module(built("qa/squad_v2.yaml", model, tmp_path))
    assert module.data.score_settings() == {"rules": "squad_v2", "threshold": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["sentiment/sst2.yaml", "ner/cluener.yaml", "quickstart/ner.yaml"])
def test_is_shown(experiment: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = built(experiment, model, tmp_path)
    show(config)
    shown = capsys.readouterr().out
    counts, labels, _ = BUILT[experiment]
    for split, count in counts.items():
        assert f"{split}: {count:,} examples" in shown
    for label in labels:
        assert label in shown
    assert f"run folder: {tmp_path / 'run'}" in shown
    assert f"name: {model}" in shown
    assert not (tmp_path / "run").exists()
