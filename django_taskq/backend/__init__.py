"""The backend for Django's tasks framework: ``"BACKEND": "django_taskq.backend.TaskqBackend"`` in ``TASKS``."""

from django_taskq.backend.backend import TaskqBackend

__all__ = ["TaskqBackend"]
