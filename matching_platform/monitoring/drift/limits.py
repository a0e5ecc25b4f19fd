"""From where on the world has moved."""

import math
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

# The Jensen-Shannon distance, natural logarithms, of what has nothing in common.
FARTHEST: Final = math.sqrt(math.log(2))


class Limits(BaseModel):
    """What a month's drift is judged by. What chance explains does not count, however far it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distance: float = Field(
        default=0.1,
        gt=0,
        lt=FARTHEST,
        description="How far a property's values may lie from those of the train set, as Jensen-Shannon distance: 0.1 "
        "is a share that goes from 50 to 64 %, or from 5 to 12 %",
    )
    rise: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="How far the share of what was never seen, or has no reference, may rise: 0.02 is from 1 to 3 %",
    )
    chance: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="How often chance may make a month of a world that stands still look moved: half of it is shared out "
        "among the distances, half among the shares",
    )
