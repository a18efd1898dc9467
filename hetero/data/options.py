"""`data` of the job file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hetero.paths import PathText

BUILT_IN = "python-stdlib"


class DataOptions(BaseModel):
    """Which text, how it becomes tokens, and how long a sample is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: PathText = Field(
        BUILT_IN,
        description=f"`{BUILT_IN}`, the source text of Python's standard library, or a file or folder of text",
    )
    tokenizer: Literal["bytes"] = Field("bytes", description="`bytes`: a token for each byte, one more ends a document")
    seq_len: int = Field(gt=0, description="tokens in a sample, which is one sequence")

    @property
    def packs(self) -> bool:
        """Whether a sample holds several documents, which do not see each other."""
        return False

    @property
    def vocab(self) -> int:
        """How many symbols the tokenizer has."""
        return 257
