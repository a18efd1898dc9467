"""What a source has been made into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hetero.words.spec import TextPart, TextRun


@dataclass(frozen=True)
class Prepared:
    """Files of tokens and what is known of them. `path` is the one that names them all to a person, `parts` the sources
    that are documents, `samples` how many each part has, or the one stream of tokens, `packs` whether
    any sample is of several documents. `unigram_entropy` is in nats per
    token; `note` says in words what of the source was left out, if anything was."""

    path: Path
    fingerprint: str
    vocab: int
    n_tokens: int
    unigram_entropy: float
    note: str = ""
    samples: tuple[int, ...] = ()
    parts: tuple[TextPart, ...] = ()
    packs: bool = False

    @property
    def weights(self) -> tuple[float, ...]:
        """Of each part, or of the one stream."""
        return tuple(part.weight for part in self.parts) or (1.0,)

    @property
    def files(self) -> tuple[Path, ...]:
        """All that ranks read."""
        named = (Path(name) for part in self.parts for name in part.files)
        return tuple(dict.fromkeys(named)) or (self.path.resolve(),)

    def told(self, seq_len: int) -> TextRun:
        """What ranks are told of it."""
        return TextRun(
            path=str(self.path.resolve()),
            fingerprint=self.fingerprint,
            seq_len=seq_len,
            vocab=self.vocab,
            packs=self.packs,
            parts=self.parts,
        )
