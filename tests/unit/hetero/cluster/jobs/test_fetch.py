"""What is asked of the cluster's shell, asked of this one."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hetero.cluster.jobs.fetch import _archive, _command, _unpack


def test_what_is_of_use_there_alone_stays_there(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for name in ("metrics.jsonl", ".claim-1", "plan.json"):
        there.mkdir(exist_ok=True)
        (there / name).write_text(name)
    for name in ("checkpoints", "data"):
        (there / name).mkdir()
        (there / name / "large").touch()
    command = _command(str(there)).replace("sleep 1", "true")
    log = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert _unpack(_archive(log, "job", str(there)), here) == [here / "metrics.jsonl", here / "plan.json"]
    assert sorted(path.name for path in here.iterdir()) == ["metrics.jsonl", "plan.json"]
