"""What is wrong, or worth knowing, about the data: noted while reading, shown to the user, never silent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from raytl.core.names import printable


class Severity(StrEnum):
    """How much a problem matters."""

    ERROR = "error"  # a search on this data would be refused
    WARNING = "warning"  # something was left out, or the result may suffer
    INFO = "info"  # worth knowing


@dataclass(frozen=True)
class Problem:
    """One observation about the data: a line that any terminal takes, whatever the names in it hold.

    where: the path, file or row it is about.
    message: what was seen and what was done about it.
    leading: whether it says what was taken for what, and so is to be shown before everything else.
    kind: a word for programs that have to know it from others, whatever its message says; most have none.
    """

    severity: Severity
    where: str
    message: str
    leading: bool = False
    kind: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", printable(self.where))
        object.__setattr__(self, "message", printable(self.message))

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"

    def to_json(self) -> dict[str, str]:
        """Plain values; ``kind`` where it has one."""
        said = {"severity": self.severity.value, "where": self.where, "message": self.message}
        return said | ({"kind": self.kind} if self.kind else {})
