"""What the documents say is there: folders, files, links, words, and YAML that loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from balancer.plan.plan import PipelinePlan, StagePlan
from balancer.schedule.action import Kind
from bridge.words.channel import PURPOSES
from hetero.job.file.load import load_job
from hetero.job.job import Job
from tests.architecture.markdown import Block, Document, documents, glossary, read
from tests.architecture.tree import PACKAGES, ROOT
from tests.unit.hetero.huggingface.written import write_folder
from tests.unit.hetero.job.run.test_model import CONFIG
from tests.unit.hetero.monitoring.synthetic import metrics_line

DOCS = ROOT / "docs"
GLOSSARY = read(DOCS / "glossary.md")
YAML = [block for document in documents() for block in document.in_language("yaml")]
RATIOS = ("goodput", "overrun", "link_ratio", "mfu", "busy", "bubble", "bridge_wait", "other", "data_wait")
AREAS = ("configs/", "docs/", "tests/", "benchmarks/", "hetero/", "balancer/", "bridge/", "backends/", ".ci/")


def test_every_folder_is_on_the_map() -> None:
    text = (DOCS / "map.md").read_text()
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    folders |= {path for area in ("configs", "tests") for path in (ROOT / area).iterdir() if any(path.glob("*"))}
    named = {str(path.relative_to(ROOT)) for path in folders if path.name != "__pycache__"}
    assert not sorted(name for name in named if f"`{name}/`" not in text)


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_links_lead_somewhere(document: Document) -> None:
    for link in document.links():
        file, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (document.path.parent / file).resolve() if file else document.path
        assert target.exists(), link
        assert not anchor or anchor in read(target).anchors(), link


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_paths_in_the_repository_exist(document: Document) -> None:
    paths = [span for span in document.spans() if span.startswith(AREAS) and " " not in span]
    known = [path for path in paths if not re.search(r"[A-Z]{3,}|[*{]", path)]
    assert not [path for path in known if not (ROOT / path).exists()]


def test_a_page_is_linked_from_the_readme_or_another_page() -> None:
    linked = {(d.path.parent / link.partition("#")[0]).resolve() for d in documents() for link in d.links()}
    assert not [path.name for path in DOCS.glob("*.md") if path not in linked]


def test_the_documents_have_blocks_of_yaml() -> None:
    assert {block.document.name for block in YAML} >= {"getting-started.md", "job.md", "monitoring.md", "cluster.md"}


def test_yaml_stands_in_blocks_of_yaml_alone() -> None:
    sections = re.compile(rf"^({'|'.join(Job.model_fields)}):", re.MULTILINE)
    blocks = [block for document in documents() for block in document.blocks if block.language != "yaml"]
    assert not [str(block) for block in blocks if sections.search(block.text)]


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_is_a_job_or_sections_of_one(block: Block, tmp_path: Path) -> None:
    """A whole job loads as it stands, beside the directory of its model; sections load in the place of those of a job,
    and change it."""
    data, plain = yaml.safe_load(block.text), _plain()
    whole = {name for name, field in Job.model_fields.items() if field.is_required()} <= data.keys()
    jobs = []
    for number, content in enumerate((plain, data if whole else plain | data)):
        path = tmp_path / str(number) / "job.yaml"
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(content))
        if named := content["model"].get("hf"):
            write_folder(path.parent / named, config={**CONFIG, "num_attention_heads": 4, "num_key_value_heads": 4})
        jobs.append(load_job(path))
    assert jobs[0] != jobs[1]


def _plain() -> dict[str, Any]:
    """A job that says no more than it must of what sections may say."""
    job: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "runs" / "auto.yaml").read_text())
    return {name: section for name, section in job.items() if name not in ("bridge", "balance")}


@pytest.mark.parametrize(("word", "text"), glossary().items())
def test_a_word_of_the_glossary_lives_where_it_says(word: str, text: str) -> None:
    """Said in one or two sentences, and a file that it leads to uses the word."""
    (_, file), *_ = links = re.findall(r"\[([^\]]+)\]\(\.\./([^)]+)\)", text)
    assert all(shown == target for shown, target in links)
    code = re.sub(r"[-_]", " ", (ROOT / file).read_text().lower())
    assert word.replace("-", " ") in code or word.replace("-", "") in code


def test_the_glossary_has_the_words_of_plans_schedules_channels_and_records() -> None:
    entries = {re.sub(r"[- ]", "", word) for word in glossary()}
    line = metrics_line(0)
    figures = [name for name in (*line, *line["pools"]["nvidia"]) if name in RATIOS]
    for word in (*PipelinePlan.model_fields, *StagePlan.model_fields, *figures):
        assert {"owner" if word == "owns" else word.replace("_", "").removesuffix("s")} <= {*entries, *_plural(entries)}
    for word in (*PURPOSES, *(kind.value for kind in Kind)):
        assert f"`{word}`" in GLOSSARY.prose


def _plural(words: set[str]) -> set[str]:
    return {word.removesuffix("s") for word in words}
