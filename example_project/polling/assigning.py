"""Giving every voter of a centre a station and a line on its list."""

from __future__ import annotations

import unicodedata

from polling.models import Centre, Entry, Station, Voter
from polling.sizes import split

STROKES = str.maketrans("đłø", "dlo")  # to Unicode these are letters of their own, without an accent to take away


def assign(centre: Centre) -> list[Station]:
    """Fill the centre's stations from the alphabet, and return them. Doing it again gives the same stations."""
    voters = sorted(centre.voters.all(), key=_alphabetically)
    sizes = split(len(voters))
    centre.stations.filter(number__gt=len(sizes)).delete()
    Entry.objects.filter(voter__centre=centre).delete()
    stations = [centre.stations.get_or_create(number=number)[0] for number in range(1, len(sizes) + 1)]
    places = [(station, line) for station, size in zip(stations, sizes, strict=True) for line in range(1, size + 1)]
    Entry.objects.bulk_create(
        Entry(voter=voter, station=station, line=line) for voter, (station, line) in zip(voters, places, strict=True)
    )
    return stations


def _alphabetically(voter: Voter) -> tuple[str, str, int]:
    """Č stands beside C and Đ beside D, not behind Z: letters are compared without their accents."""
    return _plain(voter.family_name), _plain(voter.given_name), voter.number


def _plain(name: str) -> str:
    letters = unicodedata.normalize("NFD", name.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).translate(STROKES)
