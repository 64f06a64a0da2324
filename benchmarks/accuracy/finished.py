"""The finished rows, one JSON file each.

Rows of another configuration, of other defaults of the library, or of other data are stale.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plan import Plan, Row, Slot
from provenance import is_current

from pyg_peft.storage import write_atomic


class Results:
    """What is finished in ``folder`` under ``plan``."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.stale: list[Row] = []
        self._found: dict[Row, dict[str, Any]] = {}
        for slot in plan.slots():
            for searched in plan.search(slot):
                self.read(Row(slot, searched.lr))

    def read(self, row: Row) -> None:
        """Look at the row's file, if there is one."""
        path = self.folder / row.file
        if not path.is_file():
            return
        record = json.loads(path.read_text())
        if record["config"] == self.plan.config(row) and is_current(self.plan, row, record):
            self._found[row] = record
        else:
            self.stale.append(row)

    def __contains__(self, row: Row) -> bool:
        return row in self._found

    def __getitem__(self, row: Row) -> dict[str, Any]:
        return self._found[row]

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._found.values())

    def rows(self) -> list[Row]:
        """The finished rows."""
        return list(self._found)

    def chosen(self, slot: Slot) -> Row | None:
        """The slot's row with the rate that was best on validation; ``None`` before it is known.

        Equal ones are decided by the validation loss. Test numbers are not looked at.

        Raises:
            ValueError: rows are equal, and one of them is so old that it records no loss.
        """
        search = self.plan.search(slot)
        if not all(row in self for row in search):
            return None
        highest = max(on_validation(self[row]) for row in search)
        equal = [row for row in search if on_validation(self[row]) == highest]
        if len(equal) == 1:
            return Row(slot, equal[0].lr)
        bare = [row.file for row in equal if "loss" not in self[row]["val"]]
        if bare:
            raise ValueError(
                f"Expected rows of equal accuracy to record 'loss' on validation, which decides "
                f"(got none in {', '.join(bare)}): run them again"
            )
        best = min(equal, key=lambda row: self[row]["val"]["loss"])
        return Row(slot, best.lr)

    def wanted(self, slot: Slot) -> list[Row]:
        """The rows that the slot still needs, as far as that can be told."""
        search = self.plan.search(slot)
        if search[0].slot == slot:
            rows = search
        else:
            chosen = self.chosen(slot)
            rows = [] if chosen is None else [chosen]
        return [row for row in rows if row not in self]

    def record(self, slot: Slot) -> dict[str, Any] | None:
        """The finished row of a slot at its chosen rate."""
        row = self.chosen(slot)
        return None if row is None or row not in self else self[row]


def on_validation(record: Mapping[str, Any]) -> float:
    """What chose the row's epoch: accuracy or, of labels of points, the mean IoU over clouds."""
    return record["val"].get("instance_iou", record["val"]["accuracy"])


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """The record as a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda temporary: temporary.write_text(as_text(record)))


def as_text(record: Mapping[str, Any]) -> str:
    """JSON with one line a key."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"
