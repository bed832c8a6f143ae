"""Doing work: the supervisor (control plane) and its worker processes (data plane)."""
