"""Many pictures to one end: a comparison with the exact solution, a sweep, a metric of two sets."""
