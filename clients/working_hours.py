"""The section `working_hours` of a `centre.yaml`: when a hospital's node may begin a job."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


def _clock_time(value: Any) -> Any:
    if isinstance(value, int):  # YAML reads 19:00 without quotes as a number of base 60
        raise ValueError('must be a time in quotes, such as "19:00"')
    match = _CLOCK.fullmatch(str(value))
    if match is None:
        raise ValueError('must be a time of 24 hours in quotes, such as "19:00"')
    return time(int(match[1]), int(match[2]))


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("is not a time zone that this machine knows; write one such as Europe/Madrid, or UTC")
    return value


ClockTime = Annotated[time, BeforeValidator(_clock_time)]


class WorkingHours(BaseModel):
    """When this centre does jobs. `days` are those on which the hours begin; the hours may run past midnight."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    days: tuple[Day, ...] = Field(DAYS, min_length=1)
    begin: ClockTime = Field(alias="from")
    until: ClockTime
    zone: Annotated[str, AfterValidator(_zone)]

    @model_validator(mode="after")
    def _some_time(self) -> WorkingHours:
        if self.begin == self.until:
            raise ValueError("from and until are the same time; leave out working_hours to work all day")
        return self

    def contain(self, moment: datetime) -> bool:
        """Whether a job may begin at this moment (a datetime with a time zone)."""
        local = moment.astimezone(ZoneInfo(self.zone))
        now = local.time().replace(tzinfo=None)
        today, yesterday = (DAYS[day.weekday()] for day in (local, local - timedelta(days=1)))
        if self.begin < self.until:
            return today in self.days and self.begin <= now < self.until
        return (today in self.days and now >= self.begin) or (yesterday in self.days and now < self.until)

    def __str__(self) -> str:
        return f"{' '.join(self.days)}, {self.begin:%H:%M} to {self.until:%H:%M} {self.zone}"
