"""The app of a project that has deployed other code than the process has that enqueued its runs."""
