"""Who votes where: centres with their voters, the stations inside them, and the list printed for each station."""

from __future__ import annotations

from django.db import models


class Centre(models.Model):
    """A polling centre: a building, with one or more stations in it."""

    code = models.CharField(max_length=10, unique=True)
    name = models.CharField(max_length=100)

    class Meta:
        ordering = ["code"]

    def __str__(self) -> str:
        return f"{self.code} {self.name}"


class Voter(models.Model):
    """One line of the register. ``number`` is the register's own, and what makes a voter the same voter."""

    number = models.PositiveIntegerField(unique=True)
    family_name = models.CharField(max_length=60)
    given_name = models.CharField(max_length=60)
    centre = models.ForeignKey(Centre, on_delete=models.CASCADE, related_name="voters")

    class Meta:
        ordering = ["number"]

    def __str__(self) -> str:
        return f"{self.number} {self.family_name}, {self.given_name}"


class Station(models.Model):
    """One ballot box and the people in charge of it."""

    centre = models.ForeignKey(Centre, on_delete=models.CASCADE, related_name="stations")
    number = models.PositiveSmallIntegerField()

    class Meta:
        ordering = ["centre", "number"]
        constraints = [models.UniqueConstraint(fields=["centre", "number"], name="station_number_in_centre")]

    def __str__(self) -> str:
        return f"{self.centre}, station {self.number}"


class Entry(models.Model):
    """A voter's place: a line on a station's list. One to one, so the database itself refuses a second place."""

    voter = models.OneToOneField(Voter, on_delete=models.CASCADE, primary_key=True)
    station = models.ForeignKey(Station, on_delete=models.CASCADE, related_name="entries")
    line = models.PositiveSmallIntegerField()

    class Meta:
        ordering = ["station", "line"]
        constraints = [models.UniqueConstraint(fields=["station", "line"], name="one_voter_on_a_line")]

    def __str__(self) -> str:
        return f"{self.line}. {self.voter}"


class PrintedList(models.Model):
    """What was printed for a station. ``file`` is relative to ``OUTPUT_DIR``."""

    station = models.OneToOneField(Station, on_delete=models.CASCADE, related_name="printed_list")
    file = models.CharField(max_length=200)
    voters = models.PositiveSmallIntegerField()
    pages = models.PositiveSmallIntegerField()
    printed_at = models.DateTimeField()

    class Meta:
        ordering = ["station"]

    def __str__(self) -> str:
        return self.file
