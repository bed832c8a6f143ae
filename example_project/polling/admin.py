"""Enough to look around in what was loaded, assigned and printed."""

from django.contrib import admin

from polling.models import Centre, PrintedList, Station, Voter


@admin.register(Centre)
class CentreAdmin(admin.ModelAdmin):
    list_display = ["code", "name"]
    search_fields = ["code", "name"]


@admin.register(Station)
class StationAdmin(admin.ModelAdmin):
    list_display = ["__str__", "centre", "number"]
    list_select_related = ["centre"]


@admin.register(Voter)
class VoterAdmin(admin.ModelAdmin):
    list_display = ["number", "family_name", "given_name", "centre"]
    list_select_related = ["centre"]
    search_fields = ["number", "family_name"]


@admin.register(PrintedList)
class PrintedListAdmin(admin.ModelAdmin):
    list_display = ["file", "voters", "pages", "printed_at"]
