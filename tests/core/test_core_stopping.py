"""Work that ends before its end because somebody asked."""

from __future__ import annotations

import threading

import pytest

from raytl.core.stopping import OutOfTimeError, StoppedError, check, check_time, stoppable, within


def test_work_goes_on_until_it_is_asked_to_end() -> None:
    asked = threading.Event()
    with stoppable(asked):
        check()
        asked.set()
        with pytest.raises(StoppedError):
            check()
    check()  # what comes after it is not meant


def test_only_the_work_that_was_meant_ends() -> None:
    asked, others = threading.Event(), []
    asked.set()

    def other() -> None:
        check()
        others.append("went on")

    with stoppable(asked):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with stoppable(None):
            check()
        with pytest.raises(StoppedError):
            check()
    assert others == ["went on"]


def test_it_is_not_what_goes_wrong_with_a_trial() -> None:
    assert not issubclass(StoppedError, Exception)


def test_work_ends_once_its_time_is_over() -> None:
    check_time()
    with within(3600.0):
        check_time()
        with within(0.0), pytest.raises(OutOfTimeError):
            check_time()
        check_time()
    with within(None):
        check_time()
