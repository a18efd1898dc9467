from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass

import pytest

from bridge.errors import PipeClosed, WordError
from bridge.port.pipe import Pipe
from bridge.words.word import Word
from tests.patience import WAIT_S


@dataclass(frozen=True)
class Said(Word):
    n: int = 0
    text: str = ""


def test_words_arrive_whole_and_in_order() -> None:
    left, right = Pipe.pair()
    for n in range(5):
        left.send_word(Said(n, "é" * n))
    assert [right.recv_word(WAIT_S)[0] for _ in range(5)] == [Said(n, "é" * n) for n in range(5)]


def test_a_word_larger_than_the_socket_buffer_crosses() -> None:
    left, right = Pipe.pair()
    word = Said(text="x" * 3_000_000)
    sender = threading.Thread(target=left.send_word, args=(word,))
    sender.start()
    assert right.recv_word(WAIT_S) == (word, [])
    sender.join()


def test_descriptors_stay_with_their_word() -> None:
    left, right = Pipe.pair()
    a, b = os.memfd_create("a"), os.memfd_create("b")
    left.send_word(Said(0))
    left.send_word(Said(1), [a, b])
    left.send_word(Said(2), [b])
    os.write(a, b"A")
    received = [right.recv_word(WAIT_S) for _ in range(3)]
    assert [len(fds) for _, fds in received] == [0, 2, 1]
    assert os.pread(received[1][1][0], 1, 0) == b"A"
    assert not any(os.get_inheritable(fd) for _, fds in received for fd in fds)
    for fd in [a, b, *received[1][1], *received[2][1]]:
        os.close(fd)


def test_recv_gives_up_after_its_timeout_and_can_be_asked_again() -> None:
    left, right = Pipe.pair()
    with pytest.raises(TimeoutError):
        right.recv_word(timeout=0.01)
    left.send_word(Said(1))
    left.send_word(Said(2))
    assert right.recv_word(timeout=0)[0] == Said(1)
    assert right.pending()
    assert right.recv_word(timeout=0)[0] == Said(2)
    assert not right.pending()


def test_the_end_is_reported_after_the_last_word() -> None:
    left, right = Pipe.pair()
    left.send_word(Said(7))
    left.close()
    assert right.recv_word()[0] == Said(7)
    with pytest.raises(PipeClosed):
        right.recv_word()
    with pytest.raises(PipeClosed):
        right.send_word(Said())


def test_a_pipe_moves_to_another_owner_by_descriptor() -> None:
    left, right = Pipe.pair()
    moved = Pipe.from_fd(right.detach())
    left.send_word(Said(1))
    assert moved.recv_word(WAIT_S)[0] == Said(1)


def test_threads_may_send_at_the_same_time() -> None:
    left, right = Pipe.pair()

    def send(n: int) -> None:
        for _ in range(50):
            left.send_word(Said(n, str(n) * 5000))

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        word, _ = right.recv_word(WAIT_S)
        assert isinstance(word, Said)
        assert word.text == str(word.n) * 5000
    for thread in threads:
        thread.join()


def test_a_word_that_is_too_long_is_refused_before_it_has_come_and_ends_the_pipe() -> None:
    left, right = Pipe.pair()
    bounded = Pipe.from_fd(right.detach(), most_bytes=1000)
    left.send_word(Said(text="x" * 900))
    left.send_word(Said(text="x" * 3000))
    left.send_word(Said())
    assert bounded.recv_word(WAIT_S)[0] == Said(text="x" * 900)
    with pytest.raises(WordError, match="at most 1000"):
        bounded.recv_word(WAIT_S)
    with pytest.raises(PipeClosed):
        bounded.recv_word(WAIT_S)


def test_descriptors_that_no_word_tells_of_are_bounded_and_closed() -> None:
    near, far = socket.socketpair()
    pipe, gift, before = Pipe(far), os.memfd_create("gift"), len(os.listdir("/proc/self/fd"))
    for _ in range(4):  # pieces of a word that is yet to end
        socket.send_fds(near, [b"\0"], [gift] * 250)
    with pytest.raises(WordError, match="descriptors"):
        pipe.recv_word(WAIT_S)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(PipeClosed):
        pipe.recv_word(WAIT_S)
    os.close(gift)
    near.close()
    pipe.close()
