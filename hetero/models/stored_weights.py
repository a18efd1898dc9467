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
        faults = [*self._missing(), *self._unknown(), *self._misshapen()]
        if not faults:
            faults = [*self._untied()]
        if faults:
            rule = "; ".join(["its tensors are not those of its config.json", *faults])
            raise self.folder.error(rule, "use the directory as it was saved, config.json and weights together")

    def _missing(self) -> Iterator[str]:
        if lost := [name for name in self.map.foreign if self.names[name] not in self.folder.tensors]:
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

    def _untied(self) -> Iterator[str]:
        for tie, owner in self.map.ties.items():
            one, other = self.names[tie], self.names[owner]
            if one in self.folder.tensors and not self.folder.equal(one, other):
                yield f"{one} is said to be {other} (tie_word_embeddings), but is not equal to it"


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(found[:MOST_NAMED]) + more
