from __future__ import annotations

import os
import threading
import time

from bridge.system.loop import Loop


def test_timers_run_in_order_and_never_early() -> None:
    loop, late = Loop(), []
    start = time.monotonic()
    for n in (9, 3, 6, 3):
        when = start + n * 0.0021
        loop.call_at(when, lambda n=n, when=when: late.append((n, time.monotonic() - when)))
    loop.call_at(start + 0.03, loop.stop)
    loop.run()
    assert [n for n, _ in late] == [3, 3, 6, 9]
    assert all(seconds >= 0 for _, seconds in late)
    loop.close()


def test_other_threads_wake_it_and_keep_their_order() -> None:
    loop, seen = Loop(), []

    def call() -> None:
        for n in range(100):
            loop.call_soon(lambda n=n: seen.append(n))
        loop.call_soon(loop.stop)

    timer = threading.Timer(0.02, call)
    timer.start()
    loop.run()
    timer.join()
    assert seen == list(range(100))
    loop.close()
    loop.call_soon(lambda: None)


def test_a_loop_that_closes_is_woken_by_nobody() -> None:
    """Other threads call until its end and beyond, and touch no descriptor that is not its own any more."""
    for _ in range(200):
        loop, failed = Loop(), []

        def call(loop: Loop = loop, failed: list[OSError] = failed) -> None:
            try:
                for _ in range(50):
                    loop.call_soon(lambda: None)
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        loop.close()
        thread.join()
        assert not failed


def test_descriptors_are_served_until_they_are_forgotten() -> None:
    loop, seen = Loop(), []
    reader, writer = os.pipe()

    def read() -> None:
        seen.append(os.read(reader, 1))
        if len(seen) == 2:
            loop.unwatch(reader)
            loop.call_at(time.monotonic() + 0.01, loop.stop)

    os.write(writer, b"abc")
    loop.watch(reader, read)
    loop.run()
    assert seen == [b"a", b"b"]
    loop.close()


def test_it_sleeps_while_nothing_happens() -> None:
    loop = Loop()
    loop.call_at(time.monotonic() + 0.3, loop.stop)
    before = time.thread_time()
    loop.run()
    assert time.thread_time() - before < 0.15, "half of it at most, where it takes next to none"
    loop.close()
