"""Ray for the length of a run: a local one of our own, or a cluster's that we join."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import ray
from ray._private import ray_constants, services
from ray._private import utils as ray_utils
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray._private.services import find_node_ids
from ray.exceptions import AuthenticationError

from hetero.cluster.errors import TOKEN, ClusterError, RayFailure
from hetero.cluster.host.loopback import check_loopback
from hetero.cluster.onray.daemons import few_daemons
from hetero.cluster.onray.environment import look_again, private_environment
from hetero.cluster.onray.reaper import MARK, Reaper, sweep
from hetero.cluster.private_folder import private_folder
from hetero.errors import is_disk_full
from hetero.interrupts import check, held, listening, sigmask

ATTEMPTS = 3
ANSWER_S = 5.0
LEAVING_S = 12.0
OBJECT_STORE_BYTES = 80 * 1024**2  # Ray's least; agents exchange small messages only
_RAYS = "r"
"""Ray's folder, in a private one: those that Ray makes are open to every user (mode 777)."""
_LONGEST_FOLDER = 38  # Ray puts Unix sockets 68 characters below it, and a socket's path has room for 107


@contextlib.contextmanager
def ray_runtime(address: str | None = None) -> Iterator[None]:
    """Ray is up inside and gone afterwards, however a signal meets its start or its end, which crash if they are broken
    off. A Ray that was up already is used and left as it was."""
    if ray.is_initialized():
        yield
        return
    with listening(), contextlib.ExitStack() as stack:
        try:
            with held():
                stack.enter_context(_local() if address is None else _joined(address))
            check()
            yield
        finally:
            with held():
                stack.__exit__(*sys.exc_info())


@contextlib.contextmanager
def _local() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        clear = _patiently(stack)
        with _left(clear):
            yield


def _patiently(stack: contextlib.ExitStack) -> Callable[[], None]:
    """Ray gives its own start 30 seconds, which is no setting of its; a busy machine needs longer now and then."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(RayFailure):
            return stack.enter_context(_our_own())
        check()
    return stack.enter_context(_our_own())


@contextlib.contextmanager
def _our_own() -> Iterator[Callable[[], None]]:
    """A Ray of our own, in a folder of our own, watched by the reaper until both are gone, and how to clear it away at
    once. Raises RayFailure if it does not start."""
    check_loopback()
    folder, mark = private_folder(_LONGEST_FOLDER), secrets.token_hex(16)
    reaper = Reaper(mark, folder)
    try:
        with private_environment(secrets.token_hex(32), {MARK: mark}), _on_the_loopback(), few_daemons():
            _start(folder / _RAYS)
        yield lambda: sweep(mark, folder, grace_s=0.0)
    finally:
        look_again()
        sweep(mark, folder)
        reaper.dismiss()


def _start(folder: Path) -> None:
    try:
        _init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
        )
    except Exception as error:  # Ray's own word for most of it
        if is_disk_full(error):
            raise
        _shutdown()
        rule = f"must start on this machine, in time: {error}"
        remedy = "try again once the machine is less busy; hetero doctor looks for other causes"
        raise RayFailure("Ray", "of this run's own", rule, remedy) from error


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    _check_address(address)
    try:
        _init(address=address)
    except AuthenticationError as error:
        raise _wrong_token(address) from error
    except (ConnectionError, ValueError, RuntimeError) as error:
        if "No node info found" in str(error):
            raise _outside(address) from error
        rule = f"a Ray cluster answers there: {error}"
        raise ClusterError("--address", address, rule, "start one (ray start), or leave the option out") from error
    with _left():
        yield


@contextlib.contextmanager
def _left(clear: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Ray is left afterwards. One that answers no more is cleared away, if it is ours, and not waited for too long."""
    try:
        yield
    except RayFailure:
        clear()
        with _signals_left_alone():
            leaving = threading.Thread(target=ray.shutdown, name="leave Ray", daemon=True)
            leaving.start()
            leaving.join(LEAVING_S)
        if leaving.is_alive():
            atexit.register(_end_at_once)
        raise
    except BaseException:
        _shutdown()
        raise
    _shutdown()


def _end_at_once() -> None:
    """Nobody waits for Ray's own threads, which would crash the end of this process or keep it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _check_address(address: str) -> None:
    """Finds out at once what Ray would try for a minute."""
    if "://" in address:
        raise _outside(address)
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()):
        return  # Ray's own words, such as auto
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        rule = f"a Ray cluster must answer there ({error})"
        remedy = "give HOST:PORT of the cluster's head, as its ray start printed it"
        raise ClusterError("--address", address, rule, remedy) from error
    if not find_node_ids():
        raise _outside(address)
    _check_token(address)


def _check_token(address: str) -> None:
    """Any question to the cluster's control store will do: a wrong token is told before anything else."""
    token = [(name.lower(), value) for name, value in get_auth_headers_if_auth_enabled({}).items()]
    if _asked(address, token) is grpc.StatusCode.UNAUTHENTICATED:
        raise _wrong_token(address)


def hears_strangers(address: str) -> bool:
    """Whether the cluster whose control store is at HOST:PORT answers who shows no token."""
    return _asked(address, ()) is grpc.StatusCode.OK


def _asked(address: str, token: Sequence[tuple[str, str]]) -> grpc.StatusCode:
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId", bytes, bytes)
        try:
            ask(b"", timeout=ANSWER_S, metadata=tuple(token))
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def _wrong_token(address: str) -> ClusterError:
    rule = f"the cluster at {address} does not accept this token, or wants one"
    return ClusterError("RAY_AUTH_TOKEN", "(not shown)", rule, TOKEN)


def _outside(address: str) -> ClusterError:
    rule = "a run joins a cluster by HOST:PORT, from one of the cluster's own hosts"
    return ClusterError(
        "--address", address, rule, "from elsewhere use: hetero submit JOB.yaml --address http://HEAD:8265"
    )


@contextlib.contextmanager
def _on_the_loopback() -> Iterator[None]:
    """The driver's part of RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER, which Ray reads when it is imported."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


class _JobConfig(ray.job_config.JobConfig):
    """Agents look for modules where their Python does, and not in the folder that the driver was started in."""

    def _runtime_env_has_working_dir(self) -> bool:
        return True  # then Ray leaves their path alone


def _init(**arguments: Any) -> None:
    with _signals_left_alone():
        ray.init(
            log_to_driver=True,
            logging_level=logging.ERROR,
            configure_logging=True,
            job_config=_JobConfig(),
            **arguments,
        )


def _shutdown() -> None:
    with _signals_left_alone():
        ray.shutdown()


@contextlib.contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Ray puts a handler of its own over ours, which is left out, and then a native one that aborts the process on
    SIGTERM, however well it is ending; when Ray ends, it leaves none at all. No thread gets SIGTERM until ours is back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with (
        sigmask(signal.SIG_BLOCK, signal.SIGTERM),
        mock.patch.object(services, "ConsolePopen", _started_apart),
        mock.patch.object(ray_utils, "set_sigterm_handler"),
    ):
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _started_apart(*arguments: Any, **options: Any) -> subprocess.Popen[Any]:
    """A process of Ray's, in a session of its own: what a terminal, `timeout` or a service's stop tells a whole group
    is the driver's to answer. Ray ends it by SIGTERM, which it must not inherit as blocked."""
    with sigmask(signal.SIG_UNBLOCK, signal.SIGTERM):
        return subprocess.Popen(*arguments, start_new_session=True, **options)
