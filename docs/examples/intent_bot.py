"""A customer-service bot: it answers what it is sure of, and hands the rest over to a person.

    python docs/examples/intent_bot.py runs/intents --key KEY < docs/examples/messages.jsonl

A line of input has a `text` and, once a person has read it, the `intent`, which goes back to the service as feedback.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from client import Client

REPLIES = {
    "order_status": "Here is where your order is.",
    "return": "Here is your return label.",
    "refund": "Here is the state of your refund.",
    "payment": "Here are your invoices and payments.",
    "account": "Here are the settings of your account.",
    "product": "Here is what we know of this product.",
}
RUN = "intents"


def threshold_of(run: Path, wanted: float) -> float:
    """The lowest confidence from which on so many of the run's validation answers were right; above 1 where none is."""
    rows = pq.read_table(run / "predictions" / "validation.parquet").to_pylist()
    sure = sorted(((max(row["probabilities"]), row["prediction"] == row["gold"]) for row in rows), reverse=True)
    threshold, right = 1.01, 0
    for count, (confidence, is_right) in enumerate(sure, 1):
        right += is_right
        if right >= wanted * count:
            threshold = confidence
    return threshold


def serve_messages(client: Client, messages: Iterable[dict[str, str]], threshold: float) -> dict[str, Any]:
    """Answer messages or hand them over; returns the feedback's scores."""
    for message in messages:
        (answer,) = client.predict(RUN, [message["text"]])
        intent, confidence = answer["prediction"], max(answer["probabilities"].values())
        reply = REPLIES[intent] if confidence >= threshold else "A colleague will answer you."
        print(f"{message['text']}\n  {reply}  ({intent}, {confidence:.2f})")
        if "intent" in message:
            client.ask(f"/v1/feedback/{RUN}", {"feedback": [{"id": answer["id"], "gold": message["intent"]}]})
    scores: dict[str, Any] = client.ask(f"/v1/feedback/{RUN}")
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", default="")
    parser.add_argument("--right", type=float, default=0.95, help="share of its answers that should be right")
    options = parser.parse_args()
    threshold, client = threshold_of(options.run, options.right), Client(options.url, options.key)
    print(f"hands over below a confidence of {threshold:.2f}")
    scores = serve_messages(client, map(json.loads, sys.stdin), threshold)
    accuracy = scores["scores"].get("accuracy", {})
    print(f"feedback on {scores['examples']} answers: accuracy", {k: round(v, 2) for k, v in accuracy.items()})
    print("chance that the messages are like the test data:", client.drift(RUN))


if __name__ == "__main__":
    main()
