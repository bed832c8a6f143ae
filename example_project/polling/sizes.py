"""How many stations a polling centre needs."""

from __future__ import annotations

SMALLEST, LARGEST = 500, 600


def split(voters: int) -> list[int]:
    """The sizes of the stations for this many voters: as few as hold them with at most 600 in each, evenly filled.

    That gives stations of 500 to 600 wherever such a division exists. It does not exist below 500, where the one
    station stays small, nor for 601-999, 1201-1499, 1801-1999 and 2401-2499, where stations fall below 500: no voter is
    sent to another building, and no station is overfilled. From 2500 on there always is one.
    """
    stations = -(-voters // LARGEST)
    return [voters // stations + (number < voters % stations) for number in range(stations)] if stations else []


def divides_well(voters: int) -> bool:
    """Whether every station of such a centre has 500 to 600 voters, or it is one small centre."""
    return len(split(voters)) == 1 or min(split(voters), default=0) >= SMALLEST
