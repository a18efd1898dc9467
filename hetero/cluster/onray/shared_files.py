"""The driver's side of what hosts share: ships the text to other nodes, and asks each host for the shared folders."""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from bridge.system.awake import AwakeClock
from hetero.checkpoint.address import Location, write_mark
from hetero.checkpoint.manifest import Manifest
from hetero.cluster.errors import ClusterError
from hetero.cluster.host.shared_files import ModelFolder, SharedFolder
from hetero.interrupts import check

CHUNK_BYTES = 16 * 1024**2
WAIT_S = 0.5
Actors = Mapping[str, Any]


@dataclass(frozen=True)
class Folder:
    """A folder that all hosts share; `key` names it to the user.

    Hosts only read one that holds `proof`, a file that all must see; they must be able to write to any other. To one
    that is `carried` a host need not reach: what it reads and writes there goes by way of the driver.
    """

    key: str
    path: Location
    proof: str | None = None
    carried: bool = False


@dataclass(frozen=True)
class Needs:
    """What every host needs before its ranks start: the contents of `files`, `folders`, and the model's directory."""

    files: tuple[Path, ...] = ()
    folders: tuple[Folder, ...] = ()
    model: ModelFolder | None = None


def prepare(actors: Actors, needs: Needs, patience_s: float) -> dict[Folder, list[str]]:
    """Returns once every agent has what it needs; of each folder that is carried, the hosts that do not reach it.
    Raises ClusterError if one does not reach another folder, or has another model than the driver."""
    away = {folder: hosts for folder in needs.folders if (hosts := _check(folder, actors, patience_s))}
    for folder, hosts in away.items():
        _carry(folder, {host: actors[host] for host in hosts}, patience_s)
    if needs.model is not None:
        _compare(needs.model, actors)
    elsewhere = _hosts_elsewhere(actors, patience_s) if needs.files else []
    for path in needs.files if elsewhere else ():
        _ship(path, {host: actors[host] for host in elsewhere}, patience_s)
    return away


def _check(folder: Folder, actors: Actors, patience_s: float) -> list[str]:
    """The hosts to which it must be carried; one that does not answer, as where a mount hangs, is no host that reaches
    it."""
    with _marked(folder) as marker:
        path = folder.path.resolve() if isinstance(folder.path, Path) else folder.path
        shared = SharedFolder(str(path), marker, written=folder.proof is None)
        answers = _answers({host: actor.reach.remote(shared, host) for host, actor in actors.items()}, patience_s)
    if (faults := _faults(answers)) and not folder.carried:
        rule = "\n  ".join(["every host must reach it", *faults])
        raise ClusterError(
            folder.key, str(folder.path), rule, "name a folder on a file system that all hosts mount, or a store"
        )
    reached = {host for host, (_, why) in answers.items() if not why}
    return [host for host in actors if host not in reached] if folder.carried else []


def _carry(folder: Folder, actors: Actors, patience_s: float) -> None:
    """Has hosts write to their own disks in its place; what they are to read goes there now, to those that answer."""
    place = str(folder.path.resolve() if isinstance(folder.path, Path) else folder.path)
    told = _answers({host: actor.spool.remote(place) for host, actor in actors.items()}, patience_s)
    if folder.proof is None:
        return
    proof = Path(place) / folder.proof
    manifest = Manifest.read(proof)
    for name in (*(piece.file for piece in manifest.pieces), proof.name):
        for chunk in _chunks(proof.parent / name):
            part = place, manifest.step, name, ray.put(chunk)
            _answers({host: actors[host].append_saved.remote(*part) for host in told}, patience_s)


def _compare(model: ModelFolder, actors: Actors) -> None:
    """However long a host reads: for one that is gone Ray answers."""
    calls = {host: actor.compare.remote(model) for host, actor in actors.items()}
    if faults := _faults(_answers(calls, math.inf)):
        rule = "\n  ".join(["every host must have the same directory as the driver", *faults])
        raise ClusterError("model.hf", model.named, rule, "name one that all hosts mount, or copy it to each")


def _faults(answers: Mapping[str, tuple[str, str | None]]) -> list[str]:
    return [f"host {host} ({node}) {why}" for host, (node, why) in answers.items() if why]


@contextlib.contextmanager
def _marked(folder: Folder) -> Iterator[str]:
    """The name of a file in the folder, by which others know it for the same."""
    if folder.proof is not None:
        yield folder.proof
        return
    marker = folder.path / f".reached-{secrets.token_hex(8)}"
    try:
        write_mark(marker)
    except OSError as error:
        rule = f"the driver cannot write there ({error.strerror})"
        raise ClusterError(folder.key, str(folder.path), rule, "name a folder that it may write to") from error
    try:
        yield marker.name
    finally:
        with contextlib.suppress(FileNotFoundError):
            marker.unlink()


def _hosts_elsewhere(actors: Actors, patience_s: float) -> list[str]:
    """Those that are not on the driver's own node."""
    here = ray.get_runtime_context().get_node_id()
    nodes = _answers({host: actor.node.remote() for host, actor in actors.items()}, patience_s)
    return [host for host, node in nodes.items() if node != here]


def _ship(path: Path, actors: Actors, patience_s: float) -> None:
    """Piece by piece, so that a large file fills no object store."""
    for chunk in _chunks(path):
        piece = ray.put(chunk)
        _answers({host: actor.append.remote(str(path), piece) for host, actor in actors.items()}, patience_s)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _answers(calls: Mapping[str, Any], patience_s: float) -> dict[str, Any]:
    """What the hosts answer. A host that is gone is left out: the session will hear of it, and say why."""
    clock, waiting = AwakeClock(), list(calls.values())
    while waiting and clock.now() < patience_s:
        check()
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=min(patience_s, WAIT_S))
    answers = {}
    for host, call in calls.items():
        if call not in waiting:
            with contextlib.suppress(RayActorError):
                answers[host] = ray.get(call)
    return answers
