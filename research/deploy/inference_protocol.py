"""Requests and answers of the Open Inference Protocol, version 2: a tensor for each field of the rows."""

from __future__ import annotations

import json
from typing import Any

from research.inference.predictor import BadInput, Row


def rows_of_tensors(content: Any, most_rows: int) -> list[Row]:
    """Rows from tensors of text, all with the same number of values. Raises BadInput for others."""
    tensors = content.get("inputs") if isinstance(content, dict) else None
    if not isinstance(tensors, list) or not tensors or not all(isinstance(tensor, dict) for tensor in tensors):
        raise BadInput('give {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["..."]}]}')
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        name, data = tensor.get("name"), tensor.get("data")
        if not isinstance(name, str) or not isinstance(data, list) or tensor.get("datatype") != "BYTES":
            raise BadInput("each tensor needs a name, the datatype BYTES and a list as its data")
        columns[name] = data[0] if len(data) == 1 and isinstance(data[0], list) else data
    counts = {len(data) for data in columns.values()}
    if len(counts) != 1 or counts == {0}:
        raise BadInput("all tensors need the same number of values, one at least")
    if max(counts) > most_rows:
        raise BadInput(f"{max(counts)} rows; at most {most_rows} in one request")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def answer_tensors(answers: list[Row]) -> list[dict[str, Any]]:
    """A tensor for each column of the answers: probabilities as numbers by class, text as it is, the rest as JSON."""
    found = []
    for name in answers[0]:
        values = [answer.get(name) for answer in answers]
        if name == "probabilities" and isinstance(values[0], dict):
            shape = [len(values), len(values[0])]
            flat = [p for value in values for p in (value or {}).values()]
            tensor: dict[str, Any] = {"datatype": "FP32", "shape": shape, "data": flat}
            tensor["parameters"] = {"classes": json.dumps(list(values[0]))}
        else:
            data = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
            tensor = {"datatype": "BYTES", "shape": [len(values)], "data": data}
        found.append({"name": name, **tensor})
    return found
