"""What a search says of a cluster that could bring it more lanes."""

from __future__ import annotations

from raytl.machines.growing import autoscales
from raytl.search.lanes.sizing import Lanes, counted


def more_to_ask_for(lanes: Lanes, trials: int) -> str | None:
    """How to get more lanes, in a sentence, where an autoscaler could bring them and nobody said how many to use.

    It is not asked unless the user says so: nodes cost money. trials: of the search, which would fill as many lanes.
    """
    if lanes.wanted or lanes.most is not None or trials <= lanes.count or not autoscales():
        return None
    return (
        f"without --lanes a search uses the nodes that there are ({counted(lanes.count)}); --lanes N asks the cluster "
        "for more"
    )
