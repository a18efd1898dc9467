"""A model's weights as its directory has them: every tensor is used once, or named in an error. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from hetero.huggingface.folder import HfFolder
from hetero.models.hf_model import HfModel
from hetero.models.registry import weights
from hetero.models.weight_map import WeightMap

MOST_NAMED = 3


class StoredWeights:
    """The weights of `model` in `folder`, which may leave out ties and, without a head, the prefix of names."""

    def __init__(self, model: HfModel, folder: HfFolder) -> None:
        self.map: WeightMap = weights(model)
        self.folder = folder

    @cached_property
    def names(self) -> dict[str, str]:
        """Of each foreign tensor of the map, and of each tie, the name that the directory has for it."""
        known, prefix = [*self.map.foreign, *self.map.ties], self.map.prefix
        bare = not any(name in self.folder.tensors for name in known if name.startswith(prefix))
        return {name: name.removeprefix(prefix) if bare else name for name in known}

    def check(self) -> None:
        """Reads headers, and of ties the bytes. Raises HfError that names what does not fit."""
        self._refuse([*self._missing(), *self._unknown(), *self._misshapen()] or [*self._parted()])

    def check_known(self) -> None:
        """Reads headers. Raises HfError where there are tensors that are none of the model's, or not of its shapes."""
        self._refuse([*self._unknown(), *self._misshapen()])

    @property
    def lost(self) -> list[str]:
        """The foreign tensors that the directory has not."""
        return [name for name in self.map.foreign if self.names[name] not in self.folder.tensors]

    @property
    def untied(self) -> list[tuple[str, str]]:
        """Ties that are there, and not equal to what they are said to be, each with that one. Reads their bytes."""
        there = [pair for pair in self.map.ties.items() if self.names[pair[0]] in self.folder.tensors]
        return [(one, other) for one, other in there if not self.folder.equal(self.names[one], self.names[other])]

    def _refuse(self, faults: list[str]) -> None:
        if faults:
            rule = "; ".join(["its tensors are not those of its config.json", *faults])
            raise self.folder.error(rule, "use the directory as it was saved, config.json and weights together")

    def _missing(self) -> Iterator[str]:
        if lost := self.lost:
            yield f"missing: {_listed(lost)}"

    def _unknown(self) -> Iterator[str]:
        if unused := sorted(self.folder.tensors.keys() - set(self.names.values())):
            yield f"of no use: {_listed(unused)}"

    def _misshapen(self) -> Iterator[str]:
        wrong = []
        for name, shape in self.map.foreign.items():
            found = self.folder.tensors.get(self.names[name])
            if found is not None and found.shape != tuple(shape):
                wrong.append(f"{self.names[name]} has the shape {found.shape}, the model {tuple(shape)}")
        if wrong:
            yield _listed(wrong)

    def _parted(self) -> Iterator[str]:
        for one, other in self.untied:
            yield f"{self.names[one]} is said to be {self.names[other]} (tie_word_embeddings), but is not equal to it"


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(found[:MOST_NAMED]) + more
