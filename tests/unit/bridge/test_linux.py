from __future__ import annotations

import subprocess
import sys

import pytest

from bridge.linux import past_caches
from tests.architecture.tree import ROOT

THRESHOLD = "glibc.cpu.x86_non_temporal_threshold"


@pytest.mark.parametrize(
    ("said", "tunables"),
    [
        ({}, f"{THRESHOLD}=0x80000"),
        ({"GLIBC_TUNABLES": ""}, f"{THRESHOLD}=0x80000"),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=1"}, f"glibc.malloc.check=1:{THRESHOLD}=0x80000"),
        ({"GLIBC_TUNABLES": f"{THRESHOLD}=0x4040"}, f"{THRESHOLD}=0x4040"),
    ],
)
def test_copies_go_past_the_caches_unless_somebody_has_said_otherwise(said: dict[str, str], tunables: str) -> None:
    variables = {"PATH": "/bin"} | said
    assert past_caches(variables) == {"PATH": "/bin", "GLIBC_TUNABLES": tunables}
    assert variables == {"PATH": "/bin"} | said


ORPHAN = """
import os, signal, sys, time
from bridge.linux import die_with_parent

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
if os.fork() == 0:
    die_with_parent()
    print("ready", flush=True)
    time.sleep(60)
sys.stdin.readline()
os._exit(0)
"""


def test_a_child_dies_with_its_parent_whatever_signals_it_inherits_as_blocked() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    assert parent.communicate("", timeout=30)[0] == "", "the pipe ends with the last of them"
