"""Chores run again and again, whatever became of them before, until they are stopped."""

import threading

import pytest

from clary.reconcilers.chores import Chore, Chores

PATIENCE_S = 60


def test_a_chore_that_fails_is_done_again_and_keeps_none_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed_twice, others_ran = threading.Event(), threading.Event()
    failures: list[int] = []

    def fail() -> None:
        failures.append(1)
        if len(failures) == 2:
            failed_twice.set()
        raise OSError("the disk is full")

    chores = Chores(Chore("failing", 0.001, fail), Chore("other", 0.001, others_ran.set))
    chores.start()
    assert failed_twice.wait(PATIENCE_S) and others_ran.wait(PATIENCE_S)
    threads = [thread for thread in threading.enumerate() if thread.name in ("failing", "other")]
    chores.stop()
    for thread in threads:  # `stop` itself waits a moment only
        thread.join(PATIENCE_S)
    assert "a chore failed" in caplog.text
    assert [thread.is_alive() for thread in threads] == [False, False]


def test_one_that_is_due_at_the_start_does_not_wait_for_its_time() -> None:
    ran = threading.Event()
    chores = Chores(Chore("daily", 86_400.0, ran.set, is_due_at_start=True))
    chores.start()
    assert ran.wait(PATIENCE_S)
    chores.stop()
