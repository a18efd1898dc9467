"""Which chips an agent's processes see."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backends.options import EmulateOptions
from hetero.cluster import private_folder
from hetero.cluster.errors import ClusterError
from hetero.cluster.fleet import LOOPBACK, FleetSpec, Hosting, HostSpec
from hetero.cluster.host import devices as subject
from hetero.cluster.host.devices import Devices
from hetero.cluster.host.processes import environment, forks
from hetero.words.pool import Pool


def host(
    family: str, count: int, resource: str = "", assigned: object = (), interface: str | None = None, **more: object
) -> HostSpec:
    pool = Pool("pool", family, "any", count, **more)  # type: ignore[arg-type]
    hosting = Hosting(interface=interface, resources={resource: 1.0} if resource else {})
    fleet = FleetSpec((pool,), local=False, hosting={"pool": hosting})
    return replace(fleet.hosts[0], assigned=dict(assigned), address="10.0.0.1")  # type: ignore[call-overload]


ANOTHER = 12345
SQUATTER = """
import os, socket, sys
os.setgroups([])
os.setresgid(*[int(sys.argv[1])] * 3)
os.setresuid(*[int(sys.argv[1])] * 3)
names = [socket.socket(socket.AF_UNIX) for _ in sys.argv[3:]]
for name, chip in zip(names, sys.argv[3:]):
    name.bind(f"\\0hetero-chip-kunlun-{chip}")
    if sys.argv[2] == "listens":
        name.listen()
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where agents keep theirs."""
    monkeypatch.setattr(private_folder, "_places", lambda: iter([tmp_path]))
    return tmp_path


@pytest.fixture
def chips(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    chips = [f"{secrets.token_hex(4)}-{n}" for n in range(6)]
    monkeypatch.setenv("XPU_VISIBLE_DEVICES", ",".join(chips))
    return chips


@pytest.fixture
def agents(locks: Path, chips: list[str]) -> Iterator[list[Devices]]:
    """Two agents on one node, whose chips nobody else claims."""
    pair = [Devices(), Devices()]
    yield pair
    for devices in pair:
        devices.release()


def test_chips_that_ray_hands_out_are_taken_as_they_are() -> None:
    assigned = {"GPU": ("3", "5"), "NPU": ()}
    assert Devices().of(host("cuda", 2, "GPU", assigned)) == ("3", "5")
    assert Devices().of(host("kunlun", 2, "GPU", assigned)) == ("3", "5"), "a cluster may count them as GPUs"


def test_emulated_chips_cpus_and_machines_of_our_own_have_none() -> None:
    assert Devices().of(replace(host("cuda", 2, "GPU"), assigned=None)) is None
    assert Devices().of(host("kunlun", 2, emulate=EmulateOptions())) is None
    assert Devices().of(host("cpu", 2)) is None


def test_agents_on_one_node_share_its_chips(agents: list[Devices]) -> None:
    one, other = agents
    first, second = one.of(host("kunlun", 2, "KUNLUN")), other.of(host("kunlun", 4, "KUNLUN"))
    assert first
    assert second
    assert [chip[-1] for chip in first] == ["0", "1"]
    assert [chip[-1] for chip in second] == ["2", "3", "4", "5"]
    with pytest.raises(ClusterError, match="needs 1 chips, and 0 of those"):
        Devices().of(host("kunlun", 1, "KUNLUN"))
    one.release()
    assert Devices().of(host("kunlun", 1, "KUNLUN")) == first[:1]


@pytest.fixture(params=["listens", "is silent"])
def squatter(request: pytest.FixtureRequest, chips: list[str]) -> Iterator[str]:
    """Another user, who says of the first four chips that they are his; how a note may name him."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    command = [sys.executable, "-c", SQUATTER, str(ANOTHER), request.param, *chips[:4]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        yield f"user {ANOTHER} (process {pid})" if request.param == "listens" else "another user"
        process.communicate()


def test_another_users_word_keeps_no_chip_from_a_run(squatter: str, agents: list[Devices], chips: list[str]) -> None:
    one, other = agents
    assert one.of(host("kunlun", 4, "KUNLUN")) == (*chips[4:], *chips[:2]), "those that are surely free come first"
    assert [chip in note and squatter in note for chip, note in zip(chips, one.notes, strict=False)] == [True, True]
    assert other.of(host("kunlun", 2, "KUNLUN")) == (*chips[2:4],), "what is disputed is still one agent's alone"
    with pytest.raises(ClusterError, match="needs 1 chips, and 0 of those"):
        Devices().of(host("kunlun", 1, "KUNLUN"))


def test_nor_do_names_lead_to_chips_that_are_not_there(
    squatter: str, agents: list[Devices], chips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XPU_VISIBLE_DEVICES")
    monkeypatch.setattr(subject, "device_files", lambda _: 4)
    monkeypatch.setattr(subject, "str", lambda number: chips[number], raising=False)
    assert agents[0].of(host("kunlun", 4, "KUNLUN")) == (*chips[:4],)


def test_agents_that_found_several_folders_agree(locks: Path, agents: list[Devices], chips: list[str]) -> None:
    one, other = agents
    first = one.of(host("kunlun", 3, "KUNLUN"))
    (locks / "hetero-chips-0").mkdir(mode=0o700)
    for name in [lock for lock in one._locks if isinstance(lock, subject.Name)]:
        name.close()
    assert other.of(host("kunlun", 3, "KUNLUN")) == (*chips[3:],)
    assert first == (*chips[:3],)


def test_processes_see_these_chips_alone_and_their_interface() -> None:
    variables = environment(host("kunlun", 2), ("4", "5"))
    assert variables["XPU_VISIBLE_DEVICES"] == variables["CUDA_VISIBLE_DEVICES"] == "4,5"
    assert "BKCL_SOCKET_IFNAME" not in variables
    with_interface = environment(host("kunlun", 2, interface="eth1", chips_per_host=1))
    assert with_interface["BKCL_SOCKET_IFNAME"] == with_interface["GLOO_SOCKET_IFNAME"] == "eth1"
    emulated = environment(host("kunlun", 2, emulate=EmulateOptions()))
    assert emulated["XPU_VISIBLE_DEVICES"] == ""
    assert emulated["DISABLE_XPYTORCH"] == "1", "it computes by the torch that the plug-in would replace"


def test_ranks_are_forked_unless_their_family_s_plug_in_is_there_and_forbids_it() -> None:
    assert forks(host("cuda", 2).pool)
    assert not forks(host("kunlun", 2).pool)
    assert forks(host("kunlun", 2, emulate=EmulateOptions()).pool)


def test_what_torch_opens_for_itself_is_on_the_pool_s_network_alone() -> None:
    """gloo by itself takes the address of the host's name."""
    on_one_host = environment(host("cuda", 2, interface="eth1"))
    assert (on_one_host["GLOO_SOCKET_IFNAME"], on_one_host["NCCL_SOCKET_IFNAME"]) == ("lo", "eth1")
    on_two = host("cuda", 2, chips_per_host=1)
    assert environment(replace(on_two, address=LOOPBACK))["GLOO_SOCKET_IFNAME"] == "lo"
    nothing_here_has = "10.255.255.254"
    assert "GLOO_SOCKET_IFNAME" not in environment(replace(on_two, address=nothing_here_has))
