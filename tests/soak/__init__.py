"""The fault suites in full, as ``make soak`` runs them, and their figures in one table."""
