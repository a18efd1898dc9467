"""`data` of the job file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hetero.paths import PathText

BUILT_IN = "python-stdlib"
BYTES, MODEL = "bytes", "model"
DataFormat = Literal["auto", "text", "jsonl", "parquet", "arrow", "megatron"]
_SINCE_DOCUMENTS = {"loss": "all", "pack": True}
"""Keys that once were not there, and what was so then."""


class FieldNames(BaseModel):
    """What a record's fields are called: a text, a prompt and its completion, the messages of a chat, or tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None = Field(None, description="a text to learn as it is")
    prompt: str | None = Field(None, description="what is answered; goes with completion")
    completion: str | None = Field(None, description="the answer to prompt")
    messages: str | None = Field(None, description="a list of messages, each with a role and content")
    tokens: str | None = Field(None, description="a list of the model's tokens, made before")
    labels: str | None = Field(
        None, description="goes with tokens: for each of them itself, or -100 where it is no answer"
    )

    @model_validator(mode="after")
    def _are_of_one_kind(self) -> FieldNames:
        kinds = {"text"}, {"prompt", "completion"}, {"messages"}, {"tokens"}, {"tokens", "labels"}
        if set(self.names) not in kinds:
            raise ValueError("give text, or prompt and completion, or messages, or tokens, with labels or without")
        return self

    @property
    def names(self) -> dict[str, str]:
        """The field's name by what it is."""
        return self.model_dump(exclude_none=True)


class WeightedSource(BaseModel):
    """One of several sources."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: PathText = Field(description="a file, a folder or a pattern such as `chats/*.jsonl`")
    weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="its part of the samples, beside the others'")
    format: DataFormat | None = Field(None, description="as `data.format`, of this source alone")
    fields: FieldNames | None = Field(None, description="as `data.fields`, of this source alone")


class DataOptions(BaseModel):
    """Which text, how it becomes tokens, and how long a sample is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: PathText | tuple[WeightedSource, ...] = Field(
        BUILT_IN,
        description=f"`{BUILT_IN}`, the source text of Python's standard library; a file, a folder, or a pattern such "
        "as `chats/*.jsonl`; or a list of sources with weights",
    )
    format: DataFormat = Field("auto", description="what the files are; `auto` goes by their names, and else is text")
    fields: FieldNames | None = Field(
        None, description="what a record's fields are called; by default those of these names that it has"
    )
    loss: Literal["all", "answers"] = Field(
        "all",
        description="which tokens are learnt: all, or completions, what a chat's assistant says, what labels repeat",
    )
    tokenizer: PathText = Field(
        BYTES,
        description=f"`{BYTES}`: a token for each byte, one more ends a document; `{MODEL}`: that of the model's "
        "directory, as by default where that has one; or a directory with a tokenizer.json",
    )
    seq_len: int = Field(gt=0, description="tokens in a sample, which is one sequence")
    pack: bool = Field(True, description="a sample holds as many documents as fit, which do not see each other")

    @model_validator(mode="after")
    def _has_sources(self) -> DataOptions:
        if not self.sources:
            raise ValueError("source should list one source at least")
        return self

    @property
    def vocab(self) -> int | None:
        """How many symbols the tokenizer has, where one is asked and that is known without reading it."""
        return 257 if self.tokenizer == BYTES and not self.is_tokenized else None

    @property
    def is_tokenized(self) -> bool:
        """Whether all sources are said to have tokens, so that no tokenizer is asked."""
        return all(one.fields is not None and one.fields.tokens is not None for one in self.sources)

    @property
    def is_plain(self) -> bool:
        """Whether a text would be one stream of bytes, which samples cut wherever they end."""
        return self.tokenizer == BYTES and self.pack and self.loss == "all" and self.fields is None

    @property
    def sources(self) -> tuple[WeightedSource, ...]:
        """Every source with what holds for it."""
        listed = (WeightedSource(source=self.source),) if isinstance(self.source, str) else self.source
        whole = {"format": self.format, "fields": self.fields}
        return tuple(
            one.model_copy(update={key: getattr(one, key) or value for key, value in whole.items()}) for one in listed
        )

    def facts(self) -> dict[str, Any]:
        """What decides the samples beside the text and the tokenizer, whose contents have a fingerprint of their own.
        Keys that came later are left out where they say what was so before."""
        said = self.model_dump(mode="json", include={"seq_len", *_SINCE_DOCUMENTS})
        said = {key: value for key, value in said.items() if value != _SINCE_DOCUMENTS.get(key)}
        return said | {"tokenizer": BYTES if self.tokenizer == BYTES else "a directory's"}
