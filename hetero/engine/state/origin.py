"""Where the state of a new epoch comes from: initial values, a model's directory, or a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from backends.backend import Backend
from bridge.rank import RankId
from hetero.checkpoint.pieces import CheckpointReader
from hetero.checkpoint.store import CheckpointStore
from hetero.engine.state.loss_scale import LossScale
from hetero.engine.state.ownership import Holding
from hetero.engine.state.saving import load
from hetero.engine.state.state import Blank, State, owned_by, places_of
from hetero.engine.step.stage import DTYPES, place_of, updates_in_host
from hetero.huggingface.folder import HfFolder
from hetero.huggingface.hub import place
from hetero.huggingface.reader import HfReader
from hetero.layers.builder import fill
from hetero.layers.initial import host_makes
from hetero.layers.spec import TensorSpec
from hetero.models.adapter import is_adapter
from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture
from hetero.models.stored_weights import StoredWeights
from hetero.words.spec import RunSpec


def begin(spec: RunSpec, tensors: Sequence[Holding], me: RankId, backend: Backend) -> State:
    """This rank's state before step `spec.start`: nothing but numbers where the plan does not use it."""
    if spec.state == "initial":
        return _initial(spec, tensors, me, backend)
    if spec.state == "weights":
        return _from_weights(spec, tensors, me, backend)
    assert spec.resume_folder is not None
    with CheckpointReader(CheckpointStore(spec.resume_folder), spec.start) as reader:
        state = _blank(spec, tensors, me, backend)
        state.loss_scale = LossScale.of(spec.train.loss_scale, reader.manifest.run.scalars)
        _blank_masters(spec, state, tensors, me, backend)
        load(reader, state)
        return state


def note_of(spec: RunSpec, me: RankId, backend: Backend) -> str | None:
    """What a person should know of how this rank's state began."""
    if spec.state != "initial" or place_of(spec.plan, me) is None:
        return None
    why = host_makes(backend.device, DTYPES[spec.plan.precisions()[me.pool]])
    return f"their initial values are made by the host, which takes longer: {why}" if why else None


def _initial(spec: RunSpec, tensors: Sequence[Holding], me: RankId, backend: Backend) -> State:
    state, specs = _blank(spec, tensors, me, backend), _tensor_specs(spec, me)
    for name, value in state.values.items():
        layout, position = state.places[name]
        fill(value, specs[name], layout.region(position), spec.train.seed)
    state.make_masters(owned_by(tensors, me), _host_memory(spec, me, backend))
    return state


def _from_weights(spec: RunSpec, tensors: Sequence[Holding], me: RankId, backend: Backend) -> State:
    """Reads what is held here and nothing else; masters keep what a narrower value would round away. Adapters begin as
    they do without weights."""
    assert isinstance(spec.model, HfModel)
    assert spec.weights_folder is not None
    state = _blank(spec, tensors, me, backend)
    _blank_masters(spec, state, tensors, me, backend)
    stored = StoredWeights(spec.model, HfFolder(place(spec.weights_folder), spec.weights_folder))
    reader, specs = HfReader(stored.folder), _tensor_specs(spec, me)
    for name, value in state.values.items():
        region = state.places[name][0].region(state.places[name][1])
        if is_adapter(name):
            fill(value, specs[name], region, spec.train.seed)
            part = value
        else:
            part = stored.map.read(name, region, lambda one, box: reader.get(stored.names[one], box))
            value.copy_(part)
        if name in state.masters and state.masters[name] is not value:
            state.masters[name].copy_(part)
    return state


def _blank_masters(spec: RunSpec, state: State, tensors: Sequence[Holding], me: RankId, backend: Backend) -> None:
    """Memory for the masters of what is owned here, of any content; a float32 value on the chip is its own."""
    owned, blank = owned_by(tensors, me), _host_memory(spec, me, backend)
    if blank is None:
        state.make_masters(owned)
    else:
        state.masters = {name: blank(state.values[name]) for name in owned}


def _host_memory(spec: RunSpec, me: RankId, backend: Backend) -> Blank | None:
    """For the masters of a stage that updates there, whose chip may have no room for them; None for any other."""
    if not updates_in_host(spec.plan, me):
        return None
    return lambda value: backend.beside(value, torch.float32)


def _blank(spec: RunSpec, tensors: Sequence[Holding], me: RankId, backend: Backend) -> State:
    """Memory for the values, of any content."""
    state = State(spec.start, LossScale.of(spec.train.loss_scale, {}), places=places_of(tensors, me))
    state.frozen = tuple(owned_by(tensors, me, trains=False))
    if state.places:
        dtype = DTYPES[spec.plan.precisions()[me.pool]]
        for name, (layout, position) in state.places.items():
            state.values[name] = torch.empty(layout.local_shape(position), dtype=dtype, device=backend.device)
    return state


def _tensor_specs(spec: RunSpec, me: RankId) -> dict[str, TensorSpec]:
    """Of the tensors that a rank's stage uses."""
    place, model = place_of(spec.plan, me), architecture(spec.model, spec.train.tuning)
    if place is None:
        return {}
    units = spec.plan.pipelines[place.pipeline].stages[place.stage].unit_indices()
    found = (model.tensors(unit, place.axes.extent("tp")).values() for unit in units)
    return {tensor.name: tensor for of_unit in found for tensor in of_unit}
