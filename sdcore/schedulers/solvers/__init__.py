"""The solvers: a file for each family, which ends with ENTRIES, and what several share."""
