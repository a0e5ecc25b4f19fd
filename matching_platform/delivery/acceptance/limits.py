"""What a server has to hold."""

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """What the checks demand of a server. They belong to the environment: no run can loosen them for itself."""

    model_config = ConfigDict(frozen=True)

    tolerance: float = Field(
        default=0.001, ge=0, description="How far accuracy, precision and recall may lie from the model's own"
    )
    p99_milliseconds: float = Field(
        default=3000.0, gt=0, description="99 of 100 requests of one transfer are answered within this, under load"
    )
    requests_per_second: float = Field(
        default=2.0, gt=0, description="Least speed under load, in requests of one transfer a second"
    )
    memory_megabytes: float = Field(
        default=1500.0, gt=0, description="Most resident memory of the process that matches"
    )
    growth_megabytes: float = Field(default=64.0, gt=0, description="How much resident memory may grow under load")
    connections: int = Field(default=4, ge=1, description="Clients that ask at the same time under load")
    load_seconds: float = Field(default=5.0, gt=0, description="How long they ask")
    warm_up_seconds: float = Field(default=1.0, ge=0, description="How long they ask before anything is measured")
    in_flight: int = Field(
        default=8, ge=2, description="Requests under way when the server is ended; more where it is fast"
    )
    answer_seconds: float = Field(
        default=60.0, gt=0, description="After which a server that has not answered is silent"
    )
