"""Which types suit this device, as `quantize pick` measured them; without that file the catalogue's."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from edge_reranker.errors import FailedPrecondition
from edge_reranker.models.pull import atomic

FILE = "device.toml"
PUBLISHED = "published"
"""In place of a type: the file as it came."""
_HEAD = """\
# Written by `edge-reranker quantize pick`: the types that `model pull` makes and `serve` runs here.
# Delete it, and pull again, to go back to the catalogue's.
"""


class Picked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One choice: the type, and for whom and why it was made."""

    type: str
    instead_of: str
    speed: float  # by that of ``instead_of``
    tau: float  # Kendall's, against half precision
    processor: str


def read(root: Path) -> dict[tuple[str, str], Picked]:
    """The choices by model and role; empty without the file. Raises FailedPrecondition for a damaged one."""
    path = root / FILE
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        by_model = msgspec.convert(found, dict[str, dict[str, Picked]])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise FailedPrecondition(f"{path}: {error}; delete it, or run `quantize pick` again") from error
    return {(model, role): picked for model, roles in by_model.items() for role, picked in roles.items()}


def write(root: Path, model: str, role: str, picked: Picked) -> Path:
    """Puts one choice beside those that are there; returns the file."""
    choices = read(root) | {(model, role): picked}
    lines = [_HEAD]
    for (name, of_role), each in sorted(choices.items()):
        lines.append(f'["{name}".{of_role}]')
        for field, value in msgspec.structs.asdict(each).items():
            lines.append(f"{field} = {msgspec.json.encode(value).decode()}")
        lines.append("")
    root.mkdir(parents=True, exist_ok=True)
    with atomic(root / FILE) as part:
        part.write_text("\n".join(lines), encoding="utf-8")
    return root / FILE
