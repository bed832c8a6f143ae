"""What ``taskq demo`` runs: an app of its own, installed for the demonstration's worker and for nobody else."""
