"""The report of a host: all that matters to its chips, and nothing that is nobody else's business."""

from __future__ import annotations

import dataclasses
import json

from hetero.cluster.doctor.checks import examine
from hetero.cluster.doctor.report import report
from hetero.masking import MASK
from tests.unit.hetero.cluster.doctor.machines import GOOD

ENVIRONMENT = {
    "ASCEND_RT_VISIBLE_DEVICES": "0,1",
    "HCCL_IF_IP": "eth0",
    "RAY_AUTH_TOKEN": "abcdefgh",
    "TORCH_INDEX": "https://me:hunter22@example.org/simple",
    "AWS_SECRET": "not asked for",
    "HOME": "/home/a",
}


def test_it_says_what_drives_the_chips_and_hides_secrets() -> None:
    fault = ("torch-npu 2.13.0 goes with torch 2.13.0", "pip install torch==2.13.0")
    machine = dataclasses.replace(GOOD, plugin_faults={"torch-npu": fault})
    told = report(machine, examine(machine), [{"source": "a", "target": "b"}], ENVIRONMENT)
    assert told["packages"]["torch-npu"] == "2.13.0"
    assert told["pairs"] == {"torch-npu": {"fault": fault[0], "remedy": fault[1]}}
    assert told["drivers"] == {"ascend": "24.1.0"}
    assert told["chips"][0] == {
        "family": "ascend",
        "chips": 8,
        "signs": ("/dev/davinci[0-9]*",),
        "problem": "",
        "note": "",
        "names": (),
    }
    assert told["links"] == [{"source": "a", "target": "b"}]
    assert told["blocks"] is True
    assert told["environment"] == {
        "ASCEND_RT_VISIBLE_DEVICES": "0,1",
        "HCCL_IF_IP": "eth0",
        "RAY_AUTH_TOKEN": MASK,
        "TORCH_INDEX": f"https://me:{MASK}@example.org/simple",
    }
    text = json.dumps(told)
    for private in ("abcdefgh", "hunter22", "not asked for", "10.0.0.1"):
        assert private not in text
