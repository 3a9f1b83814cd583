"""Reviews made up for the tests of the training examples, which lie in Examples/."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "Examples"))
import reviews


def made_up(count: int, seed: int) -> list[reviews.Review]:
    """Reviews of a few phrases each; the words that judge say on which side they stand."""
    rng = random.Random(seed)
    found = []
    for n in range(count):
        things = rng.choices(("酒店", "房间", "服务", "早餐", "书", "内容", "电脑", "键盘"), k=rng.randint(1, 6))
        phrases = [thing + rng.choice(("很", "真", "太", "非常")) + rng.choice(("差坏烂", "好棒赞")[n % 2]) for thing in things]
        found.append(reviews.Review("，".join(phrases) + "。", n % 2))
    return found


def split(train: int, rest: int) -> reviews.Split:
    return reviews.Split(made_up(train, 0), made_up(rest, 1), made_up(rest, 2))
