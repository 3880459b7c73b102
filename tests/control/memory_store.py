"""As much of a store as a reconciler needs, in dictionaries: for simulations, which make too many transactions for
a real one. A transaction that raises leaves nothing behind.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from clary.domain.clock import Clock
from clary.domain.endpoints import Slot
from clary.domain.instances import InstanceId, InstanceSpec, Phase
from clary.domain.places import InstanceRow
from clary.store import Lease, Resource, StaleResource
from clary.store.records import encode


@dataclass
class Tables:
    resources: dict[str, Resource] = field(default_factory=dict)
    rows: dict[InstanceId, tuple[str, InstanceRow]] = field(default_factory=dict)
    specs: dict[InstanceId, InstanceSpec] = field(default_factory=dict)
    steps: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def copy(self) -> "Tables":
        return Tables(dict(self.resources), dict(self.rows), dict(self.specs), dict(self.steps))


class MemoryStore:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.tables = Tables()

    @contextmanager
    def read(self) -> Iterator["MemoryTransaction"]:
        yield MemoryTransaction(self.tables, self._clock)

    @contextmanager
    def write(self, *, on_full_disk: bool = False) -> Iterator["MemoryTransaction"]:
        draft = self.tables.copy()
        yield MemoryTransaction(draft, self._clock)
        self.tables = draft


class MemoryTransaction:
    def __init__(self, tables: Tables, clock: Clock) -> None:
        self.resources = _Resources(tables, clock)
        self.instances = _Instances(tables, clock)
        self.events = _Events(tables)
        self.work = _Work()


class _Work:
    def hold(self, lease: Lease, lease_s: float) -> None:
        """There is one worker only."""


class _Events:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def add(self, uid: str, step: str, **detail: object) -> None:
        self._tables.steps[uid] = (*self._tables.steps.get(uid, ()), step)


class _Resources:
    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._of = tables.resources
        self._tables = tables
        self._clock = clock

    def insert(self, uid: str, kind: str, name: str, status: str, spec: object, state: object) -> Resource:
        now = self._clock.now()
        text = encode(spec), encode(state)
        self._of[uid] = Resource(uid, "1", "r", kind, uid, "", name, status, *text, 1, 1, now, now)
        return self._of[uid]

    def get(self, uid: str) -> Resource | None:
        return self._of.get(uid)

    def find(self, account: str, region: str, kind: str, name: str) -> Resource | None:
        wanted = (kind, name.lower())
        return next((r for r in self._of.values() if (r.kind, r.name.lower()) == wanted), None)

    def update(
        self, resource: Resource, *, status: str | None = None, spec: object = None, state: object = None
    ) -> Resource:
        held = self._of.get(resource.uid)
        if held is None or held.version != resource.version:
            raise StaleResource(resource.arn)
        self._of[resource.uid] = replace(
            held,
            status=status or held.status,
            spec=held.spec if spec is None else encode(spec),
            state=held.state if state is None else encode(state),
            version=held.version + 1,
        )
        return self._of[resource.uid]

    def delete(self, uid: str) -> None:
        self._of.pop(uid, None)
        for id_ in [id_ for id_, (owner, _) in self._tables.rows.items() if owner == uid]:
            del self._tables.rows[id_]


class _Instances:
    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._of = tables.rows
        self._specs = tables.specs
        self._clock = clock

    def of(self, uid: str) -> list[InstanceRow]:
        rows = [row for owner, row in self._of.values() if owner == uid]
        return sorted(rows, key=lambda row: (*row.slot.place, row.slot.incarnation))

    def insert(self, uid: str, slot: Slot, failures: int, start_at: datetime, spec: InstanceSpec) -> None:
        assert spec.instance_id not in self._of, "an instance is recorded once"
        row = InstanceRow(spec.instance_id, slot, True, False, "missing", failures, start_at)
        self._of[row.id] = (uid, row)
        self._specs[row.id] = spec

    def spec(self, id_: InstanceId) -> InstanceSpec | None:
        return self._specs.get(id_)

    def set_handle(self, id_: InstanceId, handle: str) -> None:
        self._change([id_], is_started=True)

    def set_phase(self, id_: InstanceId, phase: Phase) -> None:
        self._change([id_], phase=phase)

    def retire(self, ids: Iterable[InstanceId]) -> None:
        self._change(ids, is_wanted=False, gone_at=self._clock.now())

    def delete(self, ids: Iterable[InstanceId]) -> None:
        for id_ in ids:
            del self._of[id_]

    def _change(self, ids: Iterable[InstanceId], **values: object) -> None:
        for id_ in ids:
            owner, row = self._of[id_]
            self._of[id_] = (owner, replace(row, **values))  # type: ignore[arg-type]
