"""A project with OpenTelemetry, for workers: the app that instruments, its tasks and its settings."""
