from msm_fast.engine.context import Context
from msm_fast.engine.effects import Batch, Outcome
from msm_fast.engine.health import NodeHealth

__all__ = ["UsualWay", "all_answered"]

def all_answered(healths: dict[str, NodeHealth], batches: list[Batch], outcomes: list[Outcome], now: float) -> bool: ...

class UsualWay:
    def __init__(self, ctx: Context) -> None: ...
