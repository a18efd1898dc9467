"""What an endpoint says of the error that ends it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from bridge.endpoint.endpoint import Endpoint
from bridge.errors import BridgeError, TransportError
from bridge.port.pipe import Pipe
from bridge.words.endpoint import Failed
from bridge.words.error import ErrorReport
from tests.patience import WAIT_S


def ended_by(error: Exception) -> ErrorReport:
    ours, theirs = Pipe.pair()
    endpoint = Endpoint(theirs)

    def fail() -> None:
        raise error

    endpoint._loop.call_soon(fail)
    raised: list[Any] = []

    def run() -> None:
        with pytest.raises(type(error)) as caught:
            endpoint.run()
        raised.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    failed = ours.recv_word(WAIT_S)[0]
    thread.join(WAIT_S)
    ours.close()
    assert raised == [error]
    assert isinstance(failed, Failed)
    return failed.error


def test_an_error_that_explains_itself_is_told_with_all_its_parts() -> None:
    told = ended_by(TransportError("host", "nowhere", "cannot bind", "give an address of this host"))
    assert isinstance(told.error(), TransportError)
    assert (told.key, told.value, told.rule, told.remedy) == (
        "host", "nowhere", "cannot bind", "give an address of this host"
    )  # fmt: skip


def test_any_other_is_told_as_a_fault_of_this_program() -> None:
    told = ended_by(KeyError("z@9"))
    assert isinstance(told.error(), BridgeError)
    assert (told.type, told.value, told.rule) == ("KeyError", "KeyError('z@9')", "a fault of this program")
    assert "in fail" in str(told.traceback)
