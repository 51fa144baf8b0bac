"""All mutants."""

from __future__ import annotations

from sim.mutation.field import FIELD
from sim.mutation.membership import MEMBERSHIP
from sim.mutation.mutant import Mutant
from sim.mutation.records import RECORDS
from sim.mutation.ring import RING
from sim.mutation.schedule import SCHEDULE
from sim.mutation.store import STORE
from sim.mutation.transfer import TRANSFER

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for theme in (MEMBERSHIP, FIELD, RING, RECORDS, SCHEDULE, TRANSFER, STORE)
    for mutant in theme
}
