"""Runs as Ray jobs: handed in, looked after and ended through a cluster's job server, from any machine that reaches it.

A job's working folder has our packages, the job file and its local data in it. Its run directory lies on the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shlex
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from ray.util.state import list_nodes, list_placement_groups
from ray.util.state.exception import RayStateApiException

from bridge.system.awake import AwakeClock
from hetero.cluster.errors import TOKEN, ClusterError
from hetero.cluster.jobs.proxy import proxy_to, reach_loopback_directly
from hetero.cluster.onray.environment import variables
from hetero.cluster.placement import Node
from hetero.errors import did_you_mean

STOP_S = 8
"""How long a job that is asked to stop may clean up before Ray kills it."""
READY_S = 60.0
ANSWER_S = 30.0
MOST_LISTED = 10_000
LOOK_S = 0.2
ERRAND_ENDS_S = 5.0
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
KIND = "hetero"
"""The key of a job's metadata that tells it from others'."""


@dataclass(frozen=True)
class JobView:
    """What is known of a job. Times are unix seconds; `exit_code` is there once its command has ended; `queued` says
    that it waits for the places of its pools."""

    id: str
    name: str
    status: str
    run_dir: str
    message: str
    started: float | None
    ended: float | None
    exit_code: int | None
    queued: bool = False

    @property
    def state(self) -> str:
        """In a word for people; to Ray, a job that waits for its pools runs."""
        return "queued" if self.queued else self.status.lower()

    @property
    def is_over(self) -> bool:
        return JobStatus(self.status).is_terminal()

    @property
    def code(self) -> int:
        """For the shell: the command's own exit code, 1 for a job that ended without one."""
        return 0 if self.status == JobStatus.SUCCEEDED else self.exit_code or 1


class JobServer:
    """The job server of the cluster at `address` (http://HEAD:8265). Raises ClusterError if it does not let us in."""

    def __init__(self, address: str) -> None:
        self.address = address
        if "://" not in address:
            rule = "the job server is reached by http"
            raise ClusterError("--address", address, rule, f"perhaps http://{address.partition(':')[0]}:8265")
        reach_loopback_directly(address)
        with self._explained(), self._at_address():
            self._client = JobSubmissionClient(address)
        for logger in CHATTY:
            logging.getLogger(logger).setLevel(logging.WARNING)

    def submit(self, folder: Path, command: str, *, id_: str, name: str, run_dir: str) -> None:
        """Hands in `command`, to be run in a copy of `folder` on the cluster."""
        environment = {
            "working_dir": str(folder),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S), "PYTHONUNBUFFERED": "1"},
        }
        metadata = {KIND: "run", "name": name, "run_dir": run_dir}
        self._hand_in(entrypoint=command, submission_id=id_, runtime_env=environment, metadata=metadata)

    def _hand_in(self, **what: Any) -> str:
        """Waits for a cluster that has only just been started, and is not ready for jobs."""
        clock = AwakeClock()
        with self._explained():
            while True:
                try:
                    return str(self._client.submit_job(**what))
                except RuntimeError as error:
                    if "No available agent" not in str(error) or clock.now() > READY_S:
                        raise
                time.sleep(0.5)

    def jobs(self) -> list[JobView]:
        """Our jobs, the newest first."""
        with self._explained():
            ours = [job for job in self._client.list_jobs() if (job.metadata or {}).get(KIND) == "run"]
            waiting = self._waiting() if any(job.status == JobStatus.RUNNING for job in ours) else set()
        found = [_view(job, waiting) for job in ours]
        return sorted(found, key=lambda job: job.started or 0.0, reverse=True)

    def _waiting(self) -> set[str]:
        """The drivers, by Ray's own ids, that have asked for places which nobody has yet."""
        with self._at_address():
            groups = list_placement_groups(self.address, filters=[("state", "=", "PENDING")], limit=MOST_LISTED)
        return {group.creator_job_id for group in groups}

    def job(self, id_: str) -> JobView:
        """Raises ClusterError if there is none of this name."""
        job = self._details(id_)
        with self._explained():
            return _view(job, self._waiting() if job.status == JobStatus.RUNNING else set())

    def _details(self, id_: str) -> JobDetails:
        with self._explained():
            try:
                job = self._client.get_job_info(id_)
            except RuntimeError as error:
                if "status code 404" not in str(error):
                    raise
                job = None
        if job is not None and (job.metadata or {}).get(KIND) == "run":
            return job
        known = [other.id for other in self.jobs()]
        raise ClusterError("JOB", id_, f"there is no such job at {self.address}", did_you_mean(id_, known))

    def ray_versions(self) -> tuple[str, str]:
        """Of the cluster, and of this machine."""
        with self._explained():
            answer: dict[str, str] = self._client._do_request("GET", "/api/version").json()
        return answer["ray_version"], str(ray.__version__)

    def hears_strangers(self) -> bool:
        """Whether it answers who shows no token."""
        with (
            self._explained(),
            requests.get(
                f"{self.address.rstrip('/')}/api/version", timeout=ANSWER_S, stream=True, allow_redirects=False
            ) as answer,
        ):
            return answer.status_code == requests.codes.ok

    def nodes(self) -> list[Node]:
        """The cluster's living nodes."""
        with self._explained(), self._at_address():
            alive = list_nodes(self.address, filters=[("state", "=", "ALIVE")], limit=MOST_LISTED)
        return [Node(one.node_id, f"{one.node_name} ({one.node_ip})", one.labels, one.resources_total) for one in alive]

    def logs(self, id_: str) -> str:
        """All that the job has printed so far."""
        self._details(id_)
        with self._explained():
            return self._client.get_job_logs(id_)

    def follow(self, id_: str) -> Iterator[str]:
        """What the job prints, from its beginning until it ends."""
        self._details(id_)
        return self.printed(id_)

    def printed(self, id_: str) -> Iterator[str]:
        """The same of any job that is known to be there."""
        pieces = self._client.tail_job_logs(id_)
        loop = asyncio.new_event_loop()
        try:
            while True:
                with self._explained():
                    piece = loop.run_until_complete(anext(pieces, None))
                if piece is None:
                    return
                yield piece
        finally:
            loop.run_until_complete(pieces.aclose())  # type: ignore[attr-defined]
            loop.close()

    def wait(self, id_: str, seconds: float) -> JobView:
        """The job once it is over, or as it is after so many seconds."""
        self._over(id_, seconds)
        return self.job(id_)

    def stop(self, id_: str) -> JobView:
        """Ends a job, and returns when it is over and has cleaned up; one that is over already stays as it is. Asks no
        more than it must: a busy head answers slowly."""
        if not JobStatus(self._details(id_).status).is_terminal():
            with self._explained():
                self._client.stop_job(id_)
            self._over(id_, STOP_S + 2.0)
        return _view(self._details(id_), set())

    def read(self, command: str, seconds: float) -> str:
        """What a short shell command prints on the cluster's head."""
        id_ = self.begin_errand(command)
        self._over(id_, seconds)
        with self._explained():
            printed: str = self._client.get_job_logs(id_)
        self.end_errand(id_)
        return printed

    def begin_errand(self, command: str) -> str:
        """Starts a shell command on the cluster's head that is no job of a user's; returns its name."""
        with self._explained():
            return self._hand_in(entrypoint=command, metadata={KIND: "errand"})

    def end_errand(self, id_: str) -> None:
        """Ends a command if it still runs, and has the cluster forget it. Another call does no harm."""
        with self._explained(), contextlib.suppress(RuntimeError):
            self._client.stop_job(id_)
            self._over(id_, ERRAND_ENDS_S)
            self._client.delete_job(id_)

    def _over(self, id_: str, seconds: float) -> bool:
        """Whether the job is over within so many seconds."""
        clock = AwakeClock()
        with self._explained():
            while not (over := JobStatus(self._client.get_job_status(id_)).is_terminal()) and clock.now() < seconds:
                time.sleep(LOOK_S)
        return over

    def _at_address(self) -> contextlib.AbstractContextManager[None]:
        """Inside, Ray's clients ask this server. They would rather go by RAY_ADDRESS than by what they are given."""
        return variables({"RAY_API_SERVER_ADDRESS": self.address})

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what Ray's client raises into errors for people."""
        try:
            yield
        except AuthenticationError as error:
            rule = f"the job server at {self.address} does not accept this token, or wants one"
            raise ClusterError("RAY_AUTH_TOKEN", "(not shown)", rule, TOKEN) from error
        except (ConnectionError, requests.RequestException, aiohttp.ClientError) as error:
            rule = "a Ray job server must answer there"
            remedy = "give http://HEAD:8265, and start the head with --dashboard-host=0.0.0.0 or tunnel to it"
            raise self._unreached(rule, remedy) from error
        except (RuntimeError, ValueError, RayStateApiException) as error:
            rule = f"the job server refused: {_first_line(error)}"
            remedy = f"compare Ray's versions (here {ray.__version__})"
            raise self._unreached(rule, remedy) from error

    def _unreached(self, rule: str, remedy: str) -> ClusterError:
        """It may be the proxy that has answered, or has not."""
        if (proxy := proxy_to(self.address)) is not None:
            host = urlsplit(self.address).hostname
            rule += f"; it was asked through the proxy {proxy} of the environment"
            remedy = f"set no_proxy={host} if that does not lead there; else {remedy}"
        return ClusterError("--address", self.address, rule, remedy)


def shell_path(path: str) -> str:
    """A path as a shell reads it, in which a leading ~ or ~USER is a home on the cluster."""
    home, slash, rest = path.partition("/")
    if not re.fullmatch(r"~[A-Za-z0-9._-]*", home):
        return shlex.quote(path)
    return ('"$HOME"' if home == "~" else home) + slash + (rest and shlex.quote(rest))


def _view(job: JobDetails, waiting: Set[str]) -> JobView:
    metadata: dict[str, Any] = job.metadata or {}
    return JobView(
        id=job.submission_id or "",
        name=metadata.get("name", ""),
        status=str(JobStatus(job.status).value),
        run_dir=metadata.get("run_dir", ""),
        message=job.message or "",
        started=None if job.start_time is None else job.start_time / 1000,
        ended=None if job.end_time is None else job.end_time / 1000,
        exit_code=job.driver_exit_code,
        queued=job.status == JobStatus.RUNNING and job.job_id in waiting,
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
