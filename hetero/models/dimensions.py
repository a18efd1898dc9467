"""The numbers that fix a decoder model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Dimensions(BaseModel):
    """Sizes of a Llama-style decoder, as a job file or a preset gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str = Field("llama", description="architecture")
    layers: int = Field(gt=0, description="decoder layers; each is two units")
    hidden: int = Field(gt=0, le=1 << 20, description="width of the residual stream")
    heads: int = Field(gt=0, description="query heads")
    kv_heads: int = Field(gt=0, description="key and value heads; must divide heads")
    ffn: int = Field(gt=0, description="inner width of the MLP")
    vocab: int = Field(gt=1, le=1 << 31, description="token entries")
    tie_embeddings: bool = Field(False, description="the head uses the embedding's weight")
    qkv_bias: bool = Field(False, description="bias on the query, key and value projections")
    rope_theta: float = Field(10000.0, gt=1, description="base of the rotary frequencies")
    norm_eps: float = Field(1e-5, gt=0, description="added to the mean square in norms")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads

    def with_vocab(self, vocab: int) -> Dimensions:
        """The same model with another number of token entries."""
        return self.model_copy(update={"vocab": vocab})

    @model_validator(mode="after")
    def _heads_fit(self) -> Dimensions:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden ({self.hidden}) must be heads ({self.heads}) times an even head size")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads ({self.kv_heads}) must divide heads ({self.heads})")
        return self
