"""The mood of a market by the hour: is it worse than in the same hour of the day before?

python docs/examples/market_mood.py docs/examples/posts.jsonl --key KEY
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from client import Client
from scipy.stats import fisher_exact

RUN, AT_ONCE = "mood", 64
WORSE, CHANCE = 1.5, 0.05  # times the share of negative posts, and how likely that is by chance


@dataclass(frozen=True)
class Hour:
    """Posts of an hour and of the same hour a day before."""

    at: datetime
    negative: int
    posts: int
    negative_before: int
    posts_before: int

    @property
    def is_worse(self) -> bool:
        """Is the share of negative posts 1.5 times that of the day before, and not by chance (Fisher's exact test)?"""
        if not self.posts_before or self.negative * self.posts_before < WORSE * self.negative_before * self.posts:
            return False
        table = [
            [self.negative, self.posts - self.negative],
            [self.negative_before, self.posts_before - self.negative_before],
        ]
        return bool(fisher_exact(table, alternative="greater").pvalue < CHANCE)


def moods(times: Sequence[datetime], labels: Sequence[str]) -> list[Hour]:
    """The hours in which there are posts, each beside the one a day before."""
    counts: dict[datetime, Counter[str]] = defaultdict(Counter)
    for time, label in zip(times, labels, strict=True):
        counts[time.replace(minute=0, second=0, microsecond=0)][label] += 1
    none = Counter[str]()
    pairs = [(hour, counts[hour], counts.get(hour - timedelta(days=1), none)) for hour in sorted(counts)]
    return [Hour(hour, now["negative"], now.total(), old["negative"], old.total()) for hour, now, old in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("posts", type=Path, help="JSONL of `time` and `text`")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", default="")
    options = parser.parse_args()
    client = Client(options.url, options.key)
    posts = [json.loads(line) for line in options.posts.read_text("utf-8").splitlines()]
    labels: list[str] = []
    for first in range(0, len(posts), AT_ONCE):
        texts = [post["text"] for post in posts[first : first + AT_ONCE]]
        labels += [answer["prediction"] for answer in client.predict(RUN, texts)]
    for hour in moods([datetime.fromisoformat(post["time"]) for post in posts], labels):
        before = f"{hour.negative_before} of {hour.posts_before}" if hour.posts_before else "no posts"
        alarm = "  WORSE" if hour.is_worse else ""
        print(f"{hour.at:%Y-%m-%d %H}h  {hour.negative} of {hour.posts} negative, the day before {before}{alarm}")
    print("chance that the posts are like the test data:", client.drift(RUN))


if __name__ == "__main__":
    main()
