"""Errors of a rank's own, echoes of another's end, and the one error that is shown."""

from __future__ import annotations

import signal

import pytest

from bridge.errors import ReleaseDiffers
from bridge.rank import RankId
from bridge.words.error import ErrorReport
from hetero.cluster.control.blame import failure, severity_of
from hetero.cluster.control.events import Severity, Trouble
from hetero.cluster.errors import ClusterError, HostFailure, RankFailure
from hetero.cluster.host.processes import obituary
from hetero.errors import exit_code, render


@pytest.mark.parametrize(
    ("kind", "message", "severity"),
    [
        ("PeerLost", "", Severity.IN_THE_WAKE),
        ("BridgeTimeout", "", Severity.IN_THE_WAKE),
        ("RuntimeError", "Connection closed by peer [127.0.0.1]:1", Severity.IN_THE_WAKE),
        ("RuntimeError", "Timed out waiting 600000ms for recv operation to complete", Severity.IN_THE_WAKE),
        ("RuntimeError", "shape '[2, 3]' is invalid", Severity.OWN_ERROR),
        ("ValueError", "the socket is closed", Severity.OWN_ERROR),
        ("OutOfMemory", "64 GiB", Severity.OWN_ERROR),
    ],
)
def test_severity(kind: str, message: str, severity: Severity) -> None:
    assert severity_of({"type": kind, "message": message}) is severity


def test_obituary() -> None:
    assert obituary(-signal.SIGKILL) == (Severity.DIED, "was killed by SIGKILL")
    assert obituary(-signal.SIGABRT) == (Severity.ABORTED, "was killed by SIGABRT")
    assert obituary(3) == (Severity.DIED, "ended with exit status 3")


def test_a_dead_rank_is_named_with_pool_host_and_cause() -> None:
    root = Trouble("ascend@1", "rank", Severity.DIED, "was killed by SIGKILL", RankId("ascend", 3))
    error = failure(root, (), step=7, node="box")
    assert isinstance(error, RankFailure)
    assert (error.pool, error.host, str(error.rank), error.cause) == ("ascend", "ascend@1", "ascend:3", root.cause)
    assert exit_code(error) == 1
    for word in ("pools.ascend", "ascend:3", "ascend@1", "box", "step 7", "SIGKILL"):
        assert word in render(error)


def test_a_rank_s_own_error_keeps_its_key_and_remedy() -> None:
    told = {"type": "DeviceError", "message": "ECC", "key": "stage 1", "rule": "is sound", "remedy": "use tp 4"}
    root = Trouble("ascend@0", "rank", Severity.OWN_ERROR, "failed: DeviceError: ECC", RankId("ascend", 0), told)
    error = failure(root, (), 0, "")
    assert isinstance(error, RankFailure)
    assert (error.key, error.remedy, error.error) == ("stage 1", "use tp 4", told)


def test_what_the_job_file_asks_in_vain_is_the_user_s_mistake() -> None:
    told = {"type": "ClusterError", "key": "pools.x.env.python", "value": "p", "rule": "exists", "remedy": "give one"}
    error = failure(Trouble("x@0", "agent", Severity.DIED, "failed", error=told), (), 0, "")
    assert (type(error), error.key, exit_code(error)) == (ClusterError, "pools.x.env.python", 2)


def test_a_stage_that_its_chip_cannot_hold_is_the_user_s_mistake() -> None:
    told = {"type": "OutOfMemory", "key": "memory", "value": "stage 1", "rule": "needs 80 GiB", "remedy": "use tp 4"}
    root = Trouble("ascend@0", "rank", Severity.OWN_ERROR, "failed: OutOfMemory", RankId("ascend", 0), told)
    error = failure(root, (), 0, "box")
    assert (error.key, error.rule, error.remedy, exit_code(error)) == ("pools.ascend", "needs 80 GiB", "use tp 4", 2)
    assert error.value == "stage 1 (rank ascend:0, host ascend@0 on box)"


@pytest.mark.parametrize(("process", "key"), [("endpoint", "pools.x.env.python"), ("agent", "pools.x")])
def test_another_release_is_the_user_s_mistake(process: str, key: str) -> None:
    told = ErrorReport.of(ReleaseDiffers("release", "0.0.9", "one for all", "install it")).plain()
    assert severity_of(told) is Severity.DIED, "nothing is waited for"
    error = failure(Trouble("x@0", process, Severity.DIED, "failed", error=told), (), 0, "box")
    assert (error.key, error.value, exit_code(error)) == (key, f"0.0.9 ({process}, host x@0 on box)", 2)


def test_a_disk_that_is_full_is_the_user_s_mistake() -> None:
    told = {"type": "StorageFull", "key": "checkpoint.storage", "value": "/s", "rule": "is full", "remedy": "make room"}
    root = Trouble("ascend@0", "rank", Severity.OWN_ERROR, "failed: StorageFull", RankId("ascend", 0), told)
    error = failure(root, (), 7, "")
    assert (error.key, error.value, error.remedy, exit_code(error)) == ("checkpoint.storage", "/s", "make room", 2)


def test_a_dead_endpoint_is_no_rank_s_failure() -> None:
    wake = Trouble("nvidia@0", "rank", Severity.IN_THE_WAKE, "failed: PeerLost", RankId("nvidia", 0))
    error = failure(Trouble("kunlun@0", "endpoint", Severity.DIED, "was killed by SIGSEGV"), (wake,), 1, "")
    assert type(error) is HostFailure
    assert error.also == ("nvidia@0 nvidia:0 failed: PeerLost",)
