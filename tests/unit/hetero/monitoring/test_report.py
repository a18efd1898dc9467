"""The report: whole, self-contained, and harmless whatever a run's files hold."""

from __future__ import annotations

import html
import json
import math
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from balancer.cost.times import datasheet_times
from hetero.cli.app import app, run
from hetero.job.file.load import load_job
from hetero.job.planning.problem import topology, workload
from hetero.monitoring.follow import follow
from hetero.monitoring.report.page import render
from hetero.monitoring.report.tables import FlopsTable, LedgerTable
from hetero.monitoring.timeline import Timeline, last_timeline
from hetero.monitoring.trace import Trace
from tests.unit.hetero.monitoring.reports import traced
from tests.unit.hetero.monitoring.synthetic import CHIPS, START, Record, append, metrics_line, write_run

RELEASED = Path(__file__).parents[1] / "job" / "released" / "run"
EVIL = '</script><img src=x onerror="alert(1)"><b>{{ 7 * 7 }}'


class _Page(HTMLParser):
    """Tags with their attributes, the text outside scripts, and the data of the charts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.charts: list[dict] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = str(dict(attrs).get("type") or tag)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "application/json":
            self.charts.append(json.loads(data))
        elif self._inside not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _render(run_dir: Path, ledger: LedgerTable | None = None, timeline: Timeline | None = None) -> _Page:
    return _Page(render(follow(run_dir), ledger or LedgerTable(missing="none"), FlopsTable(), timeline))


def _trace(path: Path, steps: int = 2) -> None:
    trace = Trace(path)
    for step in range(steps):
        trace.add(traced("nvidia", step, 2 * [(("F 0.0", 10.0 + step, 0.2), ("wait sync", 10.2 + step, 0.1))]))
    trace.close()


def test_the_command_writes_the_whole_page(tmp_path: Path) -> None:
    write_run(tmp_path, steps=40, finished=True)
    _trace(tmp_path / "trace.json")
    result = CliRunner().invoke(app, ["report", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    page = _Page((tmp_path / "report.html").read_text())
    for heading in ("Loss", "Throughput", "Emulated pools", "Ledger", "Plan", "Timeline of step 1", "Environment"):
        assert heading in page.text
    for term in ("efficiency against the ideal", "rounding", "bubble", "exposed link", "slower chips", "host"):
        assert term in page.text
    assert f"{metrics_line(39)['loss']:.4f}" in page.text
    assert "units 3-9" in page.text
    assert "nvidia ascend 2 2.5 0.02 2.5%" in page.text
    assert not list(tmp_path.glob("*.part"))


def test_each_pool_s_time_sums_up(tmp_path: Path) -> None:
    assert run(["report", str(write_run(tmp_path))]) == 0
    (table,) = re.findall(r"<caption>Each pool's time.*?</table>", (tmp_path / "report.html").read_text(), re.DOTALL)
    cells = dict(re.findall(r"<tr><th>(\w+)(<td>.*?)</tr>", table))
    rows = {name: re.findall(r"<td>([-\d.]+)%", parts) for name, parts in cells.items()}
    assert set(rows) == {*CHIPS, "all"}
    assert all(sum(map(float, parts)) == pytest.approx(100, abs=0.5) for parts in rows.values())


def test_charts_hold_the_figures_of_the_metrics(tmp_path: Path) -> None:
    charts = _render(write_run(tmp_path, steps=40)).charts
    loss, throughput, pools = (chart["data"] for chart in charts[:3])
    assert loss[0]["y"] == [metrics_line(step)["loss"] for step in range(40)]
    assert throughput[0]["y"] == [metrics_line(step)["tokens_per_s"] for step in range(40)]
    assert [line["name"] for line in pools] == [
        "nvidia", "nvidia capacity", "ascend", "ascend capacity", "kunlun", "kunlun capacity",
    ]  # fmt: skip
    assert pools[1]["y"][0] == metrics_line(0)["pools"]["nvidia"]["capacity_tokens_per_s"]


def test_names_stay_text(tmp_path: Path) -> None:
    write_run(tmp_path, name=EVIL, pool_names={"nvidia": EVIL})
    _trace(tmp_path / "trace.json")
    event = {
        "seq": 9,
        "time": 1.0,
        "step": 1,
        "epoch": 0,
        "kind": EVIL,
        "pool": EVIL,
        "rank": None,
        "data": {"x": EVIL},
    }
    append(tmp_path / "events.jsonl", event)
    append(tmp_path / "events.jsonl", event | {"kind": "host_ready", "data": {"host": EVIL, EVIL: EVIL}})
    page = _render(tmp_path, LedgerTable(missing=EVIL), last_timeline(tmp_path / "trace.json"))
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert " ".join(EVIL.split()) in page.text
    assert len([tag for tag, attributes in page.tags if tag == "script" and "type" not in attributes]) == 2
    names = [line["name"] for line in page.charts[2]["data"]]
    assert html.escape(EVIL, quote=False) in names, "plotly reads HTML in names"


@pytest.mark.slow
def test_where_the_flops_went_multiplies_to_the_mfu(tmp_path: Path) -> None:
    assert run(["report", str(write_run(tmp_path))]) == 0
    page = (tmp_path / "report.html").read_text()
    for pool in CHIPS:
        (table,) = re.findall(rf"<caption><b>{pool}</b>.*?</table>", page, re.DOTALL)
        factors = [float(factor) for factor in re.findall(r"<td>([\d.]+)<td>", table)]
        assert "(emulated), MFU 40.0%" in table
        assert len(factors) == 7
        assert math.prod(factors) == pytest.approx(metrics_line(0)["pools"][pool]["mfu"], rel=5e-3)


@pytest.mark.slow
def test_of_an_older_run_the_update_is_no_term_of_its_own(tmp_path: Path) -> None:
    shutil.copytree(RELEASED, tmp_path / "run")
    assert run(["report", str(tmp_path / "run")]) == 0
    text = _Page((tmp_path / "run" / "report.html").read_text()).text
    assert "products, other operators, tensor parallel, optimizer" in text, "of pool a, with tp 2"
    assert "products, other operators, optimizer" in text, "of pool b, with tp 1"


@pytest.mark.slow
def test_a_chip_that_is_faster_than_its_data_sheet_has_no_waterfall(tmp_path: Path) -> None:
    write_run(tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(lines.replace('"mfu": 0.4', '"mfu": 1.4'))
    assert run(["report", str(tmp_path)]) == 0
    assert "no faster than the peak of its data sheet" in _Page((tmp_path / "report.html").read_text()).text


def test_versions_of_driver_and_hosts_have_columns(tmp_path: Path) -> None:
    write_run(tmp_path)
    event = {"seq": 90, "time": 1.0, "step": None, "epoch": None, "pool": None, "rank": None}
    started = {"node": "desk", "software": {"os": "Linux-6.1", "python": "3.11.7", "ray": "2.60.0"}}
    ready = {"host": "ascend@0", "software": {"python": "3.10.4", "torch-npu": "2.5.1", "driver": "24.1.0"}}
    for kind, data in (("started", started), ("host_ready", ready)):
        append(tmp_path / "events.jsonl", event | {"kind": kind, "data": data})
    page = _render(tmp_path)
    for told in ("driver", "desk", "Linux-6.1", "2.60.0", "torch-npu", "2.5.1", "24.1.0", "3.10.4"):
        assert told in page.text
    assert "software" not in page.text


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page = _render(write_run(tmp_path))
    assert not [attributes for _, attributes in page.tags if "src" in attributes or "href" in attributes]
    policy = next(str(one["content"]) for _, one in page.tags if one.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:", policy)


def test_real_and_emulated_pools_are_apart(tmp_path: Path) -> None:
    write_run(tmp_path)
    job = (tmp_path / "job.yaml").read_text()
    (tmp_path / "job.yaml").write_text(job.replace("emulate: {}", "emulate: null", 1))
    page = _render(tmp_path)
    assert [{line["name"] for line in chart["data"]} for chart in (page.charts[2], page.charts[4])] == [
        {"nvidia", "nvidia capacity"}, {"ascend", "ascend capacity", "kunlun", "kunlun capacity"},
    ]  # fmt: skip
    assert "emulated chips (link_ratio 0.31)" in page.text


def test_a_run_that_failed_before_its_first_step(tmp_path: Path) -> None:
    write_run(tmp_path, steps=0)
    failed = {"seq": 9, "time": 1.0, "kind": "failed", "pool": "nvidia", "data": {"cause": "killed by signal 9"}}
    append(tmp_path / "events.jsonl", failed)
    page = _render(tmp_path)
    assert "killed by signal 9" in page.text
    assert "No step was traced." in page.text


def test_a_job_file_that_is_no_longer_valid_costs_the_ledger_alone(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "job.yaml").write_text((tmp_path / "job.yaml").read_text() + "unheard_of: 1\n")
    assert run(["report", str(tmp_path)]) == 0
    text = _Page((tmp_path / "report.html").read_text()).text
    assert "unheard_of" in text
    assert "is not a known key" in text
    assert "bubble" in text


def test_the_ledger_is_by_the_calibration_and_says_so(tmp_path: Path) -> None:
    """Chips that calibrate at half the speed make a step that takes twice as long."""
    shown = []
    for factor in (1.0, 2.0):
        folder = write_run(tmp_path / str(factor))
        event = {"seq": 9, "time": START, "kind": "planned", "data": {"time_scale": 900.0}}
        event["data"] |= {"calibrated": _calibrated(folder, factor)}
        append(folder / "events.jsonl", event)
        shown.append(_predicted_s(folder, "a calibration of these chips"))
    assert shown[1] == pytest.approx(2 * shown[0], rel=0.05)


@pytest.mark.slow
def test_without_one_the_ledger_is_by_what_the_stages_took(tmp_path: Path) -> None:
    whole, slow = (
        _predicted_s(write_run(tmp_path / str(factor), slow_from=(0, dict.fromkeys(CHIPS, factor))), "own stages took")
        for factor in (1.0, 2.0)
    )
    assert slow == pytest.approx(2 * whole, rel=0.05)


def _predicted_s(folder: Path, source: str) -> float:
    assert run(["report", str(folder)]) == 0
    text = _Page((folder / "report.html").read_text()).text
    assert f"Speeds and prediction are by what {source}" in text or f"by what the run's {source}" in text
    (predicted,) = re.findall(r"predicted to take ([\d.,]+) s", text)
    return float(predicted)


def _calibrated(folder: Path, factor: float) -> list[Record]:
    """Every kind of unit at every tp, `factor` times as slow as the datasheets say."""
    job = load_job(folder / "job.yaml")
    chips, work = topology(job), workload(job)
    times = datasheet_times(chips, work)
    found = {
        (pool.name, tp, unit.kind): times.lookup(pool.name, tp, unit.kind)
        for pool in chips.pools for tp in pool.tp_sizes() for unit in work.units
    }  # fmt: skip
    return [
        {"pool": pool, "tp": tp, "kind": kind, "forward_s": time.forward_s * factor,
         "backward_s": time.backward_s * factor}
        for (pool, tp, kind), time in found.items()
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["report", "top"])
def test_a_folder_that_is_not_there(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, str(tmp_path / "nowhere")]) == 2
    assert "must be the folder of a run" in capsys.readouterr().err


def test_a_folder_that_holds_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path)]) == 2
    assert "must hold a run" in capsys.readouterr().err


def test_a_page_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    assert run(["report", str(tmp_path / "run"), "--output", str(tmp_path / "missing" / "page.html")]) == 2
    assert "must be writable" in capsys.readouterr().err


def test_a_page_into_a_pipe_or_through_a_link_leaves_both_what_they_are(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    pipe, link, page = (tmp_path / name for name in ("pipe", "link", "page.html"))
    os.mkfifo(pipe)
    link.symlink_to(page)
    with ThreadPoolExecutor() as reader:
        read = reader.submit(pipe.read_text)
        assert run(["report", str(tmp_path / "run"), "--output", str(pipe)]) == 0
        assert (pipe.is_fifo(), read.result(60).startswith("<!doctype html>")) == (True, True)
    assert run(["report", str(tmp_path / "run"), "--output", str(link)]) == 0
    assert (link.is_symlink(), page.read_text().startswith("<!doctype html>")) == (True, True)
