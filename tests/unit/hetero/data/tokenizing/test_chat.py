"""Chats are written down as transformers does it, and answers are found in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from hetero.data.errors import DataError
from hetero.data.tokenizing.chat_template import ChatTemplate, TemplateFault
from hetero.data.tokenizing.loading import load_tokenizer
from hetero.data.tokenizing.tokenizer import Passage
from tests.unit.hetero.data.made_tokenizer import CHAT, MARKED, made_tokenizer

Chat = list[dict[str, Any]]
CHATS: list[Chat] = [
    [{"role": "user", "content": "what is two?"}, {"role": "assistant", "content": "four"}],
    [
        {"role": "system", "content": "be brief", "name": None},
        {"role": "user", "content": "grüße <|im_end|> 漢字"},
        {"role": "assistant", "content": " the fox "},
        {"role": "user", "content": "and?\n"},
        {"role": "assistant", "content": "漢字, said the fox"},
    ],
]
TRIMMED = (
    "{{ bos_token }}{%- for m in messages -%}\n"
    "  {%- if m.role == 'user' %}[{{ m.content | trim }}]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{%- else %}{{ raise_exception('only users') }}{% endif %}\n"
    "{%- endfor %}"
)
REFUSED = (
    "{{ messages.__class__.mro() }}",
    "{{ messages.append(1) }}",
    "{{ 1 / 0 }}",
    "{% set n = namespace(__a=1) %}",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}",
)


@pytest.mark.parametrize("template", [CHAT, MARKED, TRIMMED], ids=["plain", "marked", "trimmed"])
@pytest.mark.parametrize("chat", CHATS, ids=["short", "long"])
def test_tokens_and_answers_are_those_of_transformers(
    tmp_path: Path, template: str, chat: list[dict[str, Any]]
) -> None:
    if template is TRIMMED:
        chat = [message for message in chat if message["role"] != "system"]
    theirs = AutoTokenizer.from_pretrained(made_tokenizer(tmp_path, template))
    ours = load_tokenizer(str(tmp_path))
    assert ours.template is not None
    text, answers = ours.template.answers(chat)
    assert text == theirs.apply_chat_template(chat, tokenize=False)
    assert ours.template.render(chat[:1], then_answer=True) == theirs.apply_chat_template(
        chat[:1], tokenize=False, add_generation_prompt=True
    )
    (encoded,) = ours.encode([Passage(text, written_out=True, answers=answers)])
    found = theirs.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    assert encoded.tokens.tolist() == found["input_ids"]
    assert encoded.learnt is not None
    if template is MARKED:
        assert encoded.learnt.tolist() == list(map(bool, found["assistant_masks"]))
    said = [message["content"] for message in chat if message["role"] == "assistant"]
    assert [text[start:stop].removesuffix("<|im_end|>").lstrip() for start, stop in answers] == [
        answer.lstrip() for answer in said
    ]
    assert ours.decode(encoded.tokens[encoded.learnt].tolist()) == "".join(text[start:stop] for start, stop in answers)


def test_both_ways_find_the_same_answers() -> None:
    plain, marked = (ChatTemplate(text, {"eos_token": "<|im_end|>"}) for text in (CHAT, MARKED))
    assert plain.answers(CHATS[1]) == marked.answers(CHATS[1])


def test_a_template_that_writes_earlier_answers_otherwise_is_refused() -> None:
    """As those that leave out what was thought before."""
    only_last = "{% for m in messages %}[{{ m.content if loop.last or m.role == 'user' else '' }}]{% endfor %}"
    with pytest.raises(TemplateFault, match="up to message 3 it writes something else"):
        ChatTemplate(only_last, {}).answers(CHATS[1])


def test_a_template_that_writes_no_answer_is_refused() -> None:
    only_asked = "{% for m in messages %}{{ m.role }}: {% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    with pytest.raises(TemplateFault, match="does not write down what the assistant says in message 2"):
        ChatTemplate(only_asked, {}).answers(CHATS[0])


def test_a_template_may_cut_what_was_thought() -> None:
    cut = "{% for m in messages %}[{{ m.content.split('</think>')[-1] }}]{% endfor %}"
    chat = [{"role": "user", "content": "two and two?"}, {"role": "assistant", "content": "hm</think>four"}]
    assert ChatTemplate(cut, {}).answers(chat) == ("[two and two?][four]", ((14, 20),))


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.mro() }}",
        "{{ messages.append(1) }}",
        "{{ 1 / 0 }}",
        "{% set n = namespace(__a=1) %}",
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    ],
)
def test_a_template_only_reads_the_chat(template: str) -> None:
    with pytest.raises(TemplateFault, match="refuses it"):
        ChatTemplate(template, {}).render(CHATS[0])


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_what_was_thought_is_found_under_its_names(tmp_path: Path, name: str) -> None:
    template = (
        "{% set n = namespace(count=0) %}{% for m in messages %}{% set n.count = n.count + 1 %}{{ n.count }}"
        "{{ m.reasoning_content }}/{{ m.thinking }}/{{ m | tojson }}{{ dict(a=m.role) }}{% endfor %}"
    )
    chat = [*CHATS[0], {"role": "assistant", name: "hm <b>", "content": "grüße"}]
    theirs = AutoTokenizer.from_pretrained(made_tokenizer(tmp_path, template))
    ours = load_tokenizer(str(tmp_path)).template
    assert ours is not None
    assert ours.render(chat) == theirs.apply_chat_template(chat, tokenize=False)


def test_no_sample_depends_on_the_day() -> None:
    dated = "{{ strftime_now('%d') if strftime_now is defined else '26 Jul 2024' }}"
    assert ChatTemplate(dated, {}).render(CHATS[0]) == "26 Jul 2024"


@pytest.mark.parametrize("begins", [False, True])
def test_texts_begin_as_the_model_has_them_and_end(tmp_path: Path, begins: bool) -> None:
    """By tokenizer.json: what the configuration says of it is not heard by transformers either."""
    made_tokenizer(tmp_path, add_bos_token=not begins)
    if begins:
        made = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        made.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
        made.save(str(tmp_path / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(str(tmp_path))
    (encoded,) = ours.encode([Passage("the fox")])
    wanted = theirs("the fox")["input_ids"]
    assert (wanted[0] == 0) == begins
    assert encoded.tokens.tolist() == [*wanted, theirs.eos_token_id]
    (answer,) = ours.encode([Passage("the fox", answers=((4, 7),))])
    assert answer.learnt is not None
    assert ours.decode(answer.tokens[answer.learnt].tolist()) in (" fox<|im_end|>", "fox<|im_end|>")


def test_the_template_has_a_file_of_its_own(tmp_path: Path) -> None:
    made_tokenizer(tmp_path, None)
    before = load_tokenizer(str(tmp_path))
    assert before.template is None
    (tmp_path / "chat_template.jinja").write_text(CHAT)
    after = load_tokenizer(str(tmp_path))
    assert after.template is not None
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "its tokenizer.json cannot be read"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{"), "is no JSON"),
    ],
)
def test_a_directory_without_a_tokenizer(tmp_path: Path, spoil: Any, rule: str) -> None:
    spoil(made_tokenizer(tmp_path))
    with pytest.raises(DataError, match=rule) as raised:
        load_tokenizer(str(tmp_path))
    assert raised.value.key == "data.tokenizer"
