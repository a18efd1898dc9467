"""The processes of a host and the pipes to them: endpoint, fork server, and the ranks that this one forks."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Mapping
from typing import TypeAlias

from bridge.errors import PipeClosed, ReleaseDiffers, WordError
from bridge.port.pipe import Pipe
from bridge.rank import RankId
from bridge.system.linux import past_caches
from bridge.words.endpoint import Attach, Failed
from bridge.words.error import ErrorReport
from bridge.words.word import Word
from hetero.cluster.fleet import HostSpec
from hetero.cluster.host.devices import Devices
from hetero.cluster.host.processes import Helper, environment, forks
from hetero.cluster.host.roster import Member
from hetero.words.fork_server import Fork

Speaker: TypeAlias = Helper | Member


class Crew:
    """Belongs to one thread, which must outlive it: the kernel ends the processes with the thread that started them."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self._selector = selectors.DefaultSelector()
        self._waker, self._wakee = socket.socketpair()
        self._selector.register(self._wakee, selectors.EVENT_READ)
        self._helpers: list[Helper] = []
        self._devices = Devices()

    def start(self) -> None:
        """Starts endpoint and fork server; raises ClusterError if the pool's interpreter or chips are not there."""
        programs = self.spec.programs
        variables = environment(self.spec.pool, self.spec.address, self._devices.of(self.spec))
        self.endpoint = self._helper("endpoint", programs.endpoint, [], past_caches(variables))
        how = [] if forks(self.spec.pool) else ["--afresh"]
        arguments = ["--main", programs.rank, *how]
        self.fork_server = self._helper("fork server", "hetero.engine.fork_server", arguments, variables)

    def _helper(self, name: str, module: str, arguments: list[str], variables: Mapping[str, str]) -> Helper:
        helper = Helper(name, module, arguments, self.spec.pool, variables)
        self._helpers.append(helper)
        self._selector.register(helper.pipe, selectors.EVENT_READ, helper)
        return helper

    @property
    def notes(self) -> list[str]:
        """What a person should know of the start, which is no error."""
        return self._devices.notes

    @property
    def pids(self) -> dict[str, int]:
        return {helper.name: helper.pid for helper in self._helpers}

    def fork(self) -> dict[RankId, Member]:
        """Has all ranks forked, each with a pipe to us and a port to the endpoint. Does not wait for them."""
        members: dict[RankId, Member] = {}
        theirs: list[Pipe] = []
        for rank in self.spec.ranks:
            ours, agent = Pipe.pair()
            endpoint, port = Pipe.pair()
            theirs += [agent, port]
            self.endpoint.ask(Attach(rank), [endpoint.fileno()])
            endpoint.close()
            members[rank] = Member(rank, ours)
            self._selector.register(ours, selectors.EVENT_READ, members[rank])
        self.fork_server.ask(Fork(self.spec.ranks), [pipe.fileno() for pipe in theirs])
        for pipe in theirs:
            pipe.close()
        return members

    def listen(self, timeout: float) -> list[tuple[Speaker, Word | None]]:
        """What was said within `timeout` seconds, in order per speaker; None is a speaker's end. Who says what is no
        word, or is of another release, has failed."""
        heard: list[tuple[Speaker, Word | None]] = []
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._wakee:
                self._wakee.recv(4096)
            else:
                heard += [(key.data, word) for word in self._read(key.data.pipe)]
        return heard

    def wake(self) -> None:
        """Makes a sleeping `listen` return; any thread may call it, even after the end."""
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    def end(self) -> None:
        """Ends all processes; none of them runs when this returns."""
        for helper in reversed(self._helpers):
            helper.ask_to_end()
        for helper in reversed(self._helpers):
            helper.end()
        self._helpers.clear()

    def close(self) -> None:
        self.end()
        self._devices.release()
        watched = [key.data for key in self._selector.get_map().values() if key.data is not None]
        self._selector.close()
        for speaker in watched:
            speaker.pipe.close()
        self._waker.close()
        self._wakee.close()

    def _read(self, pipe: Pipe) -> list[Word | None]:
        words: list[Word | None] = []
        while True:
            try:
                words.append(pipe.recv_word(0)[0])
            except TimeoutError:
                return words
            except (WordError, ReleaseDiffers) as error:
                words.append(Failed(ErrorReport.of(error)))
            except PipeClosed:
                self._selector.unregister(pipe)
                pipe.close()
                return [*words, None]
