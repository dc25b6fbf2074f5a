"""What installed packages add, in the lists of what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdcore.cli.echo import tell

if TYPE_CHECKING:
    from sdcore.extensions import Kind
    from sdcore.interop.installed import Installed


def usable(kind: Kind) -> list[Installed]:
    """What they add of a kind; what of it cannot be used is told on stderr, each in one line."""
    from sdcore.interop.installed import installed

    found = list(installed(kind))
    for each in found:
        if each.problem:
            tell(each.problem)
    return [each for each in found if not each.problem]


def in_json(kind: Kind) -> list[dict[str, str]]:
    return [{"name": n.name, "what": n.what, "from": n.source} for n in usable(kind)]
