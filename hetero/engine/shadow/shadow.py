"""What a rank has to do with the shadow of a step: nothing, to hand over what its stage did, or to do it again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from backends.backend import Backend
from backends.emulation import Emulated
from balancer.schedule.action import Kind
from bridge.layout.layout import Region
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine.expected import alone_expected
from hetero.engine.shadow.again import UnitErrors, UnitsAgain
from hetero.engine.shadow.cargo import Cargo, TurnCargo
from hetero.engine.shadow.recording import Recording
from hetero.engine.shadow.turn import ShadowTurn, turn_of
from hetero.engine.state.moving import Movement, Pair, message_bytes
from hetero.engine.step.meter import Meter
from hetero.engine.step.stage import Stage
from hetero.engine.step.totals import Totals
from hetero.models.batch import Batch
from hetero.models.registry import architecture
from hetero.models.tolerance import TOLERANCES
from hetero.words.spec import RunSpec
from hetero.words.step import ShadowErrors

TYPES = 3
"""Of numbers that cross: the stage's own, float32 and int64."""
NO_GRADIENT = -1.0
"""Among numbers that are summed: there is none to compare."""


class Shadow:
    """Of one rank under one plan. In a step: `watching` while it computes, and `run`, which all ranks come to at once
    when they have agreed on the step and no parameter has changed yet. It changes nothing of the run."""

    def __init__(
        self, spec: RunSpec, me: RankId, stage: Stage, backend: Backend, port: Port, totals: Totals, meter: Meter
    ) -> None:
        self._spec, self._me, self._stage, self._backend = spec, me, stage, backend
        self._port, self._totals, self._meter = port, totals, meter
        self._turn: ShadowTurn | None = None
        self._recording: Recording | None = None
        self.found: ShadowErrors | None = None
        """Of the last step, the same on all ranks; None where nothing was computed again."""

    @contextmanager
    def watching(self, step: int, batch_of: Callable[[int], Batch]) -> Iterator[Callable[[int], Batch]]:
        """Inside, the step is computed with the micro-batches that this gives."""
        self.found, self._recording, self._turn = None, None, turn_of(self._spec, step)
        if self._turn is None or self._me not in self._turn.place.ranks:
            yield batch_of
            return
        self._recording = Recording(self._turn.micro_batch)
        with self._recording.watching(self._stage, batch_of) as watched:
            yield watched

    def run(self, loss_scale: float) -> None:
        """`loss_scale` is in the step's gradients. Raises what the bridge does."""
        turn = self._turn
        if turn is None:
            return
        errors: list[UnitErrors] = []
        with self._meter.mark("wait shadow"), self._meter.waits.bytes_alone():
            if self._recording is not None:
                self._hand_over(turn, self._recording)
            elif self._me == turn.rank:
                errors = list(self._again(turn, loss_scale))
            self.found = self._told(turn, errors)
        self._recording = None

    def _hand_over(self, turn: ShadowTurn, recording: Recording) -> None:
        held = recording.tensors | {name: one.detach() for name, one in self._stage.parameters.items()}
        for unit, cargoes in TurnCargo(self._spec, turn).by_unit():
            self._carry(turn, unit, cargoes, held)

    def _again(self, turn: ShadowTurn, loss_scale: float) -> Iterator[UnitErrors]:
        precision = self._spec.plan.precisions()[self._me.pool]
        shape_BT = self._spec.plan.pipelines[turn.place.pipeline].micro_batch, self._spec.text.seq_len
        paced = isinstance(self._backend, Emulated)
        expected_of = alone_expected(self._spec, self._me.pool, shape_BT[0]) if paced else _no_time
        precisions = precision, self._coarser(turn)
        units = UnitsAgain(self._spec, shape_BT, *precisions, self._backend, loss_scale, expected_of)
        for unit, cargoes in TurnCargo(self._spec, turn).by_unit():
            came = {one.name: self._blank(one) for one in cargoes}
            self._carry(turn, unit, cargoes, came)
            tensors = {one.name: came.pop(one.name) for one in cargoes if one.on_chip}
            yield units.compare(unit, tensors, came)

    def _coarser(self, turn: ShadowTurn) -> str:
        """Of the stage's precision and the shadow's, the one that errs more."""
        precisions = self._spec.plan.precisions()
        return max((precisions[turn.pool], precisions[turn.rank.pool]), key=lambda name: TOLERANCES[name].alone)

    def _blank(self, cargo: Cargo) -> torch.Tensor:
        device = self._backend.device if cargo.on_chip else torch.device("cpu")
        return torch.empty(cargo.shape, dtype=cargo.dtype, device=device)

    def _carry(
        self, turn: ShadowTurn, unit: int, cargoes: Sequence[Cargo], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """From this rank's `tensors`, or into them. The channels are there for this unit alone, as their memory is."""
        out: defaultdict[Pair, list[torch.Tensor]] = defaultdict(list)
        into: defaultdict[Pair, list[torch.Tensor]] = defaultdict(list)
        for cargo in cargoes:
            for piece in cargo.pieces:
                if piece.source == self._me:
                    out[Pair(piece.target, cargo.dtype)].append(_box(tensors[cargo.name], piece.source_slices))
                elif piece.target == self._me:
                    into[Pair(piece.source, cargo.dtype)].append(_box(tensors[cargo.name], piece.target_slices))
        movement = Movement(self._me, self._spec.epoch, self._backend, self._port, "shadow", self._meter.waits)
        most_bytes = message_bytes(TYPES * len(turn.place.ranks))
        movement.run(f"step {turn.step} unit {unit}", out, into, most_bytes)
        movement.close()

    def _told(self, turn: ShadowTurn, errors: Sequence[UnitErrors]) -> ShadowErrors:
        """Of the first unit beyond its tolerance, else of the one that differs most; one rank knows the errors."""
        limit = TOLERANCES[self._coarser(turn)].alone
        mine = torch.zeros(3, dtype=torch.float64)
        if errors:
            chosen = next((one for one in errors if one.worst > limit), max(errors, key=lambda one: one.worst))
            gradient = NO_GRADIENT if chosen.gradient is None else chosen.gradient
            mine = torch.tensor((chosen.unit, chosen.value, gradient), dtype=torch.float64)
        unit, value, gradient = self._totals.sum(mine).tolist()
        return ShadowErrors(
            pipeline=turn.place.pipeline,
            stage=turn.place.stage,
            pool=turn.pool,
            by=turn.rank.pool,
            micro_batch=turn.micro_batch,
            unit=int(unit),
            unit_kind=architecture(self._spec.model).units[int(unit)].kind,
            value=value,
            gradient=None if gradient == NO_GRADIENT else gradient,
            tolerance=limit,
        )


def _box(tensor: torch.Tensor, region: Region) -> torch.Tensor:
    return tensor[tuple(slice(*bounds) for bounds in region)]


def _no_time(unit: int) -> Mapping[Kind, float]:
    """Real chips take as long as they do."""
    return {}
