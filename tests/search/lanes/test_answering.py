"""Whether a cluster's head still answers."""

from __future__ import annotations

import queue

from raytl.core.errors import UserError
from raytl.search.lanes.answering import listened_to

PATIENCE_S = 120.0


class Head:
    """Answers as long as it is there. asked: how it was, each time."""

    def __init__(self) -> None:
        self.there = True
        self.asked: queue.Queue[bool] = queue.Queue()

    def ask(self, address: str) -> bool:
        self.asked.put(self.there)
        return self.there

    def wait_until_asked(self, times: int = 3) -> None:
        while not self.asked.empty():
            self.asked.get()
        for _ in range(times):
            self.asked.get(timeout=PATIENCE_S)


def test_that_it_is_away_is_said_once_and_so_is_that_it_is_back() -> None:
    head, said = Head(), queue.Queue[str]()
    with listened_to("10.0.0.7:6379", said.put, ask=head.ask, period_s=0.01, silent_s=0.0):
        head.wait_until_asked()
        assert said.empty()
        head.there = False
        told = said.get(timeout=PATIENCE_S)
        assert told.startswith("the cluster's head at 10.0.0.7:6379 does not answer: ") and "--resume" in told
        head.wait_until_asked()
        assert said.empty()
        head.there = True
        assert said.get(timeout=PATIENCE_S) == "the cluster's head at 10.0.0.7:6379 answers again"
        head.wait_until_asked()
    assert said.empty()


def test_a_short_silence_is_nobodys_business() -> None:
    head, said = Head(), queue.Queue[str]()
    head.there = False
    with listened_to("10.0.0.7:6379", said.put, ask=head.ask, period_s=0.01, silent_s=PATIENCE_S * 10):
        head.wait_until_asked()
        head.there = True
        head.wait_until_asked()
    assert said.empty()


def test_a_listener_that_cannot_take_it_does_not_end_the_listening() -> None:
    head, said = Head(), queue.Queue[str]()

    def full(sentence: str) -> None:
        said.put(sentence)
        raise UserError("trials.jsonl: cannot be written")

    head.there = False
    with listened_to("10.0.0.7:6379", full, ask=head.ask, period_s=0.01, silent_s=0.0):
        said.get(timeout=PATIENCE_S)
        head.there = True
        assert said.get(timeout=PATIENCE_S).endswith("answers again")
