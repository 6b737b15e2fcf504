"""The journal gives back what was told to it, whatever happened in between."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raytl.core.errors import UserError
from raytl.evaluation import metrics
from raytl.runs.journal import FILE, Journal, read_journal
from raytl.search.jobs import JobResult
from raytl.search.plan.contest import Contest
from raytl.search.plan.ledger import Ledger, rounded
from raytl.search.plan.said import Labels
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import TrialRecord, TrialStatus
from raytl.training.strategy import Strategy

values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
epochs = st.dictionaries(st.sampled_from(["epoch", "train_loss", "accuracy"]), st.floats(), max_size=3)
events = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(list(TrialStatus)),
        st.one_of(st.none(), st.floats()),
        st.lists(epochs, max_size=3),
        st.dictionaries(st.text(max_size=5), values, max_size=3),
        st.booleans(),
    ),
    max_size=12,
)


def told(folder: Path, sequence: list) -> dict[int, TrialRecord]:
    """Play a sequence of events into a journal; returns the records as they ended."""
    journal = Journal(folder)
    records: dict[int, TrialRecord] = {}
    for number, status, score, history, strategy, begin_again in sequence:
        record = records.setdefault(number, TrialRecord(number, "search", strategy, f"key{number}"))
        record.status, record.score = status, score
        record.history = list(history) if begin_again else record.history + history
        journal.trial(record)
    journal.close()
    return records


@settings(max_examples=60)
@given(events)
def test_replay_gives_back_the_records(tmp_path_factory, sequence):
    folder = tmp_path_factory.mktemp("journal")
    assert repr(read_journal(folder).trials) == repr({}) or not sequence
    records = told(folder, sequence)
    replayed = read_journal(folder).trials
    assert {n: repr(r) for n, r in replayed.items()} == {n: repr(r) for n, r in records.items()}


@settings(max_examples=40)
@given(events, st.floats(0, 1))
def test_a_journal_cut_anywhere_can_be_read_and_continued(tmp_path_factory, sequence, share):
    folder = tmp_path_factory.mktemp("journal")
    told(folder, sequence)
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[: round(share * len(whole))])
    before = read_journal(folder)
    late = TrialRecord(99, "search", {"cut": 1}, "late", status=TrialStatus.COMPLETED, score=0.5)
    journal = Journal(folder)
    journal.trial(late)
    journal.close()
    after = read_journal(folder)
    assert repr(after.trials) == repr(before.trials | {99: late})


def test_nothing_new_writes_nothing(tmp_path):
    journal = Journal(tmp_path)
    record = TrialRecord(0, "search", {"cut": 1}, "k", score=math.nan, history=[{"epoch": 1, "train_loss": math.nan}])
    journal.trial(record)
    size = (tmp_path / FILE).stat().st_size
    journal.trial(copy.deepcopy(record))
    assert (tmp_path / FILE).stat().st_size == size


class Listed(np.ndarray):
    """Counts how often lists are made of it."""

    times = 0

    def tolist(self):
        Listed.times += 1
        return super().tolist()


def test_what_was_said_of_many_images_comes_back_to_the_bit_and_is_told_once(tmp_path):
    said = rounded(np.random.default_rng(0).dirichlet(np.full(50, 0.1), 500).astype(np.float32))
    Listed.times = 0
    record = TrialRecord(0, "probe", {}, "k", validated=list(range(500)), predicted=said.view(Listed))
    journal = Journal(tmp_path)
    journal.trial(record)
    written = (tmp_path / FILE).stat().st_size
    record.status = TrialStatus.COMPLETED
    journal.trial(copy.deepcopy(record))
    assert Listed.times == 1 and (tmp_path / FILE).stat().st_size < written + 100
    assert len(repr(journal._seen)) < 5_000  # the images' numbers, and no second copy of what was said
    journal.close()
    assert np.array_equal(read_journal(tmp_path).trials[0].predicted, said)
    again = Journal(tmp_path)  # as a search that goes on does
    again.trial(record)
    assert Listed.times == 1
    record.predicted = said[::-1].view(Listed)
    again.trial(record)
    again.close()
    assert np.array_equal(read_journal(tmp_path).trials[0].predicted, said[::-1])


def test_a_contest_that_goes_on_stands_as_the_one_that_ended(tmp_path):
    rng = np.random.default_rng(1)
    labels = Labels(rng.integers(0, 4, 60), None, 4, metrics.get("log-loss"))
    records, journal = [], Journal(tmp_path)
    for number in range(4):
        head, fold = Strategy("plain:pixels", cut=1, head=("logistic", "stages")[number % 2]), number // 2
        record = TrialRecord(number, "probe", head.to_dict(), head.key, fold, score=0.5, metrics={"labelled": 0.5})
        index = np.arange(fold, 60, 2)
        said = rng.dirichlet(np.ones(4), 30).astype(np.float32)
        said[np.arange(30), labels.labels[index]] += number % 2
        result = JobResult(validation_index=index, validation_probabilities=said / said.sum(axis=1, keepdims=True))
        time = TimeBudget(None, lambda: 0.0, 0.0, records, lanes=1, tested=False, folds=2)
        Ledger(records, journal, time).fill(record, result, None, TrialStatus.PRUNED)
        records.append(record)
        journal.trial(record)
    journal.close()
    live, resumed = Contest(records, labels), Contest(list(read_journal(tmp_path).trials.values()), labels)
    for record in records[:2]:
        assert np.array_equal(live.said.out_of_fold(record.strategy_key), resumed.said.out_of_fold(record.strategy_key))
        assert live.said.temperature(record.strategy_key) == resumed.said.temperature(record.strategy_key)
    assert live.choice() == resumed.choice()
    assert live.choice() is not None and live.leaders(2) == resumed.leaders(2)


def test_an_epoch_costs_no_second_copy_of_the_strategy(tmp_path):
    journal = Journal(tmp_path)
    record = TrialRecord(0, "search", {"source_model": "torchvision:resnet18"}, "k")
    for epoch in range(5):
        record.history.append({"epoch": epoch, "accuracy": 0.1 * epoch})
        journal.trial(record)
    assert (tmp_path / FILE).read_text().count("resnet18") == 1


def test_damage_in_the_middle_is_named_with_its_line(tmp_path):
    told(tmp_path, [(n, TrialStatus.RUNNING, None, [], {}, False) for n in range(3)])
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / FILE).write_bytes(lines[0] + b"\0\0\0\n" + lines[2])
    with pytest.raises(UserError, match=rf"{FILE} line 2: is damaged"):
        read_journal(tmp_path)


def test_phases_are_kept_in_order(tmp_path):
    journal = Journal(tmp_path)
    journal.phase("pretrain", "cnn-small")
    journal.phase("search", "40 trials")
    assert [(p.phase, p.detail) for p in read_journal(tmp_path).phases] == [
        ("pretrain", "cnn-small"),
        ("search", "40 trials"),
    ]
