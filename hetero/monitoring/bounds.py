"""Numbers that fit a float and a calendar, as far as views count on those of files that others wrote."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Number = Annotated[float, Field(ge=-1e60, le=1e60)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Time = Annotated[float, Field(ge=0, le=1e11)]
"""Unix seconds of years with four digits."""
