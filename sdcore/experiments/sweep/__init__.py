"""A matrix of pictures, each drawn exactly once, by any number of processes that share a folder.

plan.py      the cells, and where each picture goes
claims.py    who draws what: a file that only one process can make, and keeps alive
folder.py    the pictures, what is known of them, what failed
work.py      the loop of one process
ray_pool.py  the same loop over the workers of a Ray cluster
"""
