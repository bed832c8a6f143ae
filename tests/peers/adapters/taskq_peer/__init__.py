"""Ours, as an app of the project: its tasks are found by autodiscovery."""
