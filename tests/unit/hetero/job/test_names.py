"""Names become files, variables, processes, labels and parts of addresses: what cannot is refused by its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.job.run.run_dir import new_run_dir

JOB = """\
model: {preset: llama-tiny}
data: {seq_len: 16}
train: {steps: 1, global_batch: 2}
pools:
  NAME: {family: cuda, chip: A800-80G, count: 1, emulate: {}, MORE}
"""


def _error(tmp_path: Path, text: str, name: str = "a", file: str = "job.yaml") -> JobError:
    path = tmp_path / file
    path.write_text(text.replace("NAME", name).replace("MORE", "env: {}"), encoding="utf-8")
    with pytest.raises(JobError) as caught:
        load_job(path)
    return caught.value


@pytest.mark.parametrize("name", ["a" * 64, "a" * 230, "池" * 22, "a b", "a/b", "a@0", '""', '"a\\n"', "a.b", "'..'"])
def test_a_pool_s_name(tmp_path: Path, name: str) -> None:
    error = _error(tmp_path, JOB, name)
    assert error.key.startswith("pools")
    assert (error.line, "a pool's name" in error.rule) == (5, True)


@pytest.mark.parametrize("name", ["a" * 63, "池" * 21, "A_1-b"])
def test_a_pool_s_name_that_is_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace("NAME", name).replace(", MORE", ""), encoding="utf-8")
    assert list(load_job(tmp_path / "job.yaml").pools) == [name]


@pytest.mark.parametrize(
    ("more", "key", "rule"),
    [
        ('env: {vars: {"A=B": x}}', "env.vars.A=B", "no ="),
        ('env: {vars: {"": x}}', "env.vars.", "not empty"),
        ('env: {vars: {"A": "x\\0y"}}', "env.vars.A", "null character"),
        ('env: {vars: {"A\\0": x}}', "env.vars", "null character"),
        ('env: {vars: {"A": "\\ud800"}}', "env.vars.A", "half a character"),
        (f"env: {{vars: {{A: {'x' * 30_001}}}}}", "env.vars.A", "30000"),
        ('env: {python: "a\\0"}', "env.python", "null character"),
        ("env: {python: ''}", "env.python", "empty"),
        ("interface: ''", "interface", "interface's name"),
        ("interface: eth0/1", "interface", "interface's name"),
        ("interface: a-very-long-interface", "interface", "interface's name"),
        ('select: {labels: {"": x}}', "select.labels.", "label's name"),
        ('select: {labels: {"a b": x}}', "select.labels.a b", "label's name"),
        ('select: {resources: {"": 1}}', "select.resources.", "resource's name"),
    ],
)
def test_names_of_a_pool_s_surroundings(tmp_path: Path, more: str, key: str, rule: str) -> None:
    error = _error(tmp_path, JOB.replace("MORE", more))
    assert (error.key, error.line) == (f"pools.a.{key}", 5)
    assert rule in error.rule


@pytest.mark.parametrize("labels", ["{zone: a}", "{ray.io/node-group: b}", "{a_b.c-d: '!x'}"])
def test_labels_that_clusters_have(tmp_path: Path, labels: str) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace("NAME", "a").replace("MORE", f"select: {{labels: {labels}}}"))
    load_job(tmp_path / "job.yaml")


@pytest.mark.parametrize("name", ['""', f'"{"a" * 101}"', '"a\\nb"', '"a\\u001b[2J"', '"a\\0"', '"\\ud800"'])
def test_a_job_s_name(tmp_path: Path, name: str) -> None:
    assert _error(tmp_path, f"name: {name}\n{JOB}").key == "name"


@pytest.mark.parametrize("file", ["a" * 240 + ".yaml", "a\nb.yaml", "池" * 80 + ".yaml"])
def test_a_file_of_any_name_gives_its_job_one(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text(JOB.replace("NAME", "a").replace(", MORE", ""))
    name = load_job(tmp_path / file).name
    assert name.isprintable()
    (tmp_path / new_run_dir(name)).mkdir(parents=True)
