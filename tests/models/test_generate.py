"""Generated texts: those of transformers' own search, the same in every layout, stopped where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import DynamicCache, GenerationConfig

from research.batching.pack import pack
from research.batching.plan import evaluation_share
from research.common.errors import UserError
from research.models import generate as generating
from research.models.generate import native_attention, padded, prompts, sources
from research.models.generation_steps import KeyedSampling
from research.models.growing_cache import GrowingLayer, make_room
from tests.tasks.test_translation import build, rows


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`modules(kind, *overrides)`: a translator whose random weights say something, each built once."""
    made: dict[tuple[str, ...], Any] = {}

    def module(kind: str, *overrides: str) -> Any:
        if (kind, *overrides) not in made:
            built = build(tmp_path_factory.mktemp(kind), kind, *overrides, data=rows(14)).eval()
            torch.manual_seed(1)
            for p in built.backbone.model.parameters():
                p.data += 0.2 * torch.randn_like(p)
            made[(kind, *overrides)] = built
        return made[(kind, *overrides)]

    return module


def batch(module: Any, count: int = 14) -> Any:
    return pack(module.data.stores["validation"], np.arange(count), module.backbone.packed)


@pytest.mark.in_check(2)
@pytest.mark.parametrize(("kind", "beams"), [("t5", 1), ("bart", 3), ("gpt2", 3), ("llama", 1)])
def test_tokens_are_those_of_transformers(kind: str, beams: int, modules: Any) -> None:
    """Of `model.generate` with a plain config of its own, for a batch padded by hand."""
    module = modules(kind, f"task.num_beams={beams}")
    micro, model, end = batch(module), module.backbone.model, module.data.end
    outputs = module.generate(micro)
    pair = kind in ("t5", "bart")
    ids, mask = padded(sources(micro) if pair else prompts(micro), 0, left=not pair)
    with native_attention(module.backbone), torch.no_grad():
        model.generation_config = GenerationConfig()
        expected = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=12, num_beams=beams, do_sample=False, eos_token_id=end,
            pad_token_id=0, decoder_start_token_id=2 if pair else None,
        )[:, 1 if pair else ids.shape[1] :].tolist()  # fmt: skip
    assert [o.tokens for o in outputs] == [row[: row.index(end)] if end in row else row for row in expected]
    assert [o.stopped_by for o in outputs] == ["end" if end in row else "limit" for row in expected]
    assert len({o.text for o in outputs}) > 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bart", "llama"])
def test_texts_are_the_same_on_any_number_of_ranks(kind: str, modules: Any) -> None:
    """To the bit in bf16: ranks take whole batches, which are cut from the data alone."""
    module = modules(kind, "task.temperature=1.0")
    store = module.data.stores["validation"]
    found = []
    for ranks in (1, 2, 4):
        texts: dict[int, Any] = {}
        for rank in range(ranks):
            for part in evaluation_share(store.stream_tokens, rank, ranks, 40):
                with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
                    texts |= module.decode(pack(store, part, module.backbone.packed), None)
        found.append(texts)
    assert found[0] == found[1] == found[2] and found[0].keys() == set(range(14))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "key"), [("llama", "num_beams=1"), ("gpt2", "num_beams=3"), ("gpt2", "temperature=1.0")]
)
def test_packed_prompts_cost_their_own_tokens_and_change_no_text(kind: str, key: str, modules: Any) -> None:
    module = modules(kind, f"task.{key}")
    generate, counted = module.generate, list[int]()
    embedding = module.backbone.model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda layer, inputs, output: counted.append(inputs[0].numel()))
    lengths = [len(row) for row in prompts(batch(module))]
    expected = [generate(pack(module.data.stores["validation"], np.array([i]))) for i in range(14)]
    assert len(set(lengths)) > 2
    counted.clear()
    outputs = generate(batch(module))
    handle.remove()
    assert counted[0] - sum(length - 1 for length in lengths) in range(16)  # the filler of the row
    assert counted[1] == 14 * generate.copies  # the last token of each prompt, then one at a time
    if "temperature" not in key:  # a sample belongs to its number
        assert [output.tokens for output in outputs] == [each.tokens for (each,) in expected]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bart", "gpt2"])
def test_a_step_computes_the_sequences_that_have_not_ended(kind: str, modules: Any) -> None:
    """The weights give the same tokens as one by one, and every token of an output is computed once."""
    module = modules(kind, "task.temperature=5.0")
    model = module.backbone.model
    computed: list[int] = []
    layer = model.model.decoder.embed_tokens if kind == "bart" else model.transformer.wte
    expected = [module.generate(pack(module.data.stores["validation"], np.array([i]))) for i in range(14)]
    handle = layer.register_forward_hook(lambda layer, inputs, output: computed.append(len(inputs[0])))
    outputs = module.generate(batch(module))
    handle.remove()
    steps = [len(output.tokens) + (output.stopped_by == "end") for output in outputs]
    assert len(set(steps)) > 1
    assert [output.tokens for output in outputs] == [each.tokens for (each,) in expected]
    first = 1 if kind == "bart" else 2  # a packed row of all prompts comes before
    assert computed[first - 1 :] == [sum(n > k for n in steps) for k in range(max(steps))]


@pytest.mark.slow
def test_a_frozen_weight_is_cast_once_for_all_tokens(modules: Any) -> None:
    """Also where autocast keeps nothing, as Lightning's, and in inference mode; afterwards all is as before."""
    module = modules("gpt2")
    weight = module.backbone.model.get_output_embeddings().weight
    assert weight.shape not in {p.shape for p in module.parameters() if p is not weight}
    weight.requires_grad_(False)
    with (
        profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded,
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16, cache_enabled=False),
    ):
        outputs = module.generate(batch(module))
        assert not torch.is_autocast_cache_enabled()
    assert max(len(output.tokens) for output in outputs) > 2
    casts = [e.count for e in recorded.key_averages(group_by_input_shape=True)
             if e.key == "aten::_to_copy" and e.input_shapes[0] == list(weight.shape)]  # fmt: skip
    assert casts == [1] and not weight.requires_grad
    weight.requires_grad_(True)


@pytest.mark.in_check(1)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_growing_cache_holds_what_the_library_s_holds(dtype: torch.dtype) -> None:
    """After tokens were added and sequences left out; under autocast in bf16."""
    caches = [DynamicCache(), DynamicCache()]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        for i, (n, sequences) in enumerate([(5, 4), (1, 4), (1, 4), (1, 2)]):
            if i == 3:
                for cache in caches:
                    cache.batch_select_indices(torch.tensor([1, 3]))
            k, v = torch.randn(sequences, 2, n, 3), torch.randn(sequences, 2, n, 3)
            (plain_k, plain_v), (own_k, own_v) = (cache.update(k, v, 0) for cache in caches)
            assert torch.equal(own_k.to(dtype), plain_k.to(dtype)) and torch.equal(own_v.to(dtype), plain_v.to(dtype))
            if i == 0:
                make_room(caches[1], 3)
    assert own_k.dtype == dtype and caches[1].get_seq_length() == 8 and type(caches[1].layers[0]) is GrowingLayer


@pytest.mark.slow
def test_a_sample_belongs_to_seed_and_example(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = modules("gpt2", "task.temperature=0.8", "task.num_return_sequences=3")
    texts = module.decode(batch(module), None)
    alone: dict[Any, Any] = {}
    for i in range(14):
        alone |= module.decode(pack(module.data.stores["validation"], np.array([i])), None)
    assert texts == alone
    assert all(len({row["text"], *row["others"]}) == 3 for row in texts.values())
    monkeypatch.setattr(generating, "MOST_TOKENS", 100)  # batches of one or two
    assert module.decode(batch(module), None) == texts
    monkeypatch.setattr(module.generate, "seed", 7)
    assert module.decode(batch(module), None)[0]["text"] != texts[0]["text"]


@pytest.mark.slow
def test_samples_are_distributed_as_the_softmax() -> None:
    """4,000 draws from 4 tokens: each share within 4 standard errors; top_k and top_p leave the unlikely out."""
    draws = 4_000
    scores = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).expand(draws, 4)

    def shares(temperature: float = 1.0, **kept: Any) -> Any:
        sample = KeyedSampling([(0, i) for i in range(draws)], temperature, **kept)
        drawn = sample(torch.zeros(draws, 1, dtype=torch.int64), scores).argmax(-1)
        return np.bincount(drawn.numpy(), minlength=4) / draws

    for expected, got in (
        ([0.5, 0.3, 0.15, 0.05], shares()),
        ([0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365], shares(0.5)),
        ([0.625, 0.375, 0, 0], shares(top_k=2)),
        ([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], shares(top_p=0.9)),
    ):
        p = np.array(expected)
        assert (np.abs(got - p) <= 4 * np.sqrt(p * (1 - p) / draws)).all(), (got, expected)


def test_beams_return_several(modules: Any) -> None:
    module = modules("bart", "task.num_beams=3", "task.num_return_sequences=2")
    first = modules("bart", "task.num_beams=3").generate(batch(module))
    outputs = module.generate(batch(module))
    assert [o.text for o in outputs] == [o.text for o in first]
    assert all(len(o.others) == 1 and o.others[0] != o.text for o in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 2])
def test_a_text_stops_before_a_stop_string(beams: int, modules: Any) -> None:
    """As if it were cut there by hand; and it is not computed to the limit."""
    plain = modules("gpt2").generate(batch(modules("gpt2")))
    text = max((o.text for o in plain), key=len)
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    module = modules("gpt2", f"task.stop=['{stop}']", f"task.num_beams={beams}")
    outputs = module.generate(batch(module))
    stopped = [o for o in outputs if o.stopped_by == "text"]
    assert stopped and not any(stop in o.text for o in outputs)
    if beams == 1:
        assert [o.text for o in outputs] == [o.text.partition(stop)[0].strip() for o in plain]
        one = pack(module.data.stores["validation"], np.array([[o.text for o in plain].index(text)]))
        assert len(module.generate(one)[0].tokens) < len(plain[0].tokens)


@pytest.mark.slow
def test_an_output_begins_with_the_forced_token(modules: Any) -> None:
    """As the language of mBART and NLLB."""
    module = modules("bart")
    generator = generating.Generator(
        module.backbone, module.data.tokenizer, module.config.task, seed=0, ends=[3, 7], first=40
    )
    outputs = generator(batch(module))
    assert all(o.tokens[0] == 40 and not {3, 7} & {*o.tokens} for o in outputs)
    assert generator.settings.eos_token_id == [3, 7]


def test_the_signature_names_what_decides(modules: Any) -> None:
    assert modules("bart").notes() == {"generation": "greedy|max_new_tokens:12"}
    beams = modules("bart", "task.num_beams=3", "task.num_return_sequences=2")
    assert beams.notes() == {"generation": "beam:3|length_penalty:1.0|max_new_tokens:12"}
    sampled = modules("bart", "task.temperature=1.0").generate.signature
    assert sampled == "sampled:1.0|top_p:1.0|top_k:None|seed:0|max_new_tokens:12"


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["task.length_penalty=2"], "task.length_penalty acts in a beam search alone"),
        (["task.top_p=0.5"], "task.top_p and task.top_k act in sampling alone"),
        (["task.temperature=1", "task.num_beams=2"], "task.temperature samples, and task.num_beams=2 searches"),
        (["task.num_return_sequences=2"], "task.num_return_sequences=2 needs as many beams"),
        (["task.stop=['']"], "task.stop=.* must not have an empty text in it"),
        (["task.max_new_tokens=500"], "need 500 positions; .* has 128"),
    ],
)
def test_keys_that_cannot_act_are_refused(overrides: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        build(tmp_path, "bart", *overrides)
