from importlib import import_module

from django.apps import AppConfig


class TestAppConfig(AppConfig):
    name = "tests.testapp"
    label = "testapp"

    def ready(self) -> None:
        # Workers find what is in tasks.py, and are to know these as well.
        import_module("tests.testapp.canvas_tasks")
        import_module("tests.testapp.fault_canvas_tasks")
