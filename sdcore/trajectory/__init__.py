"""What a run did, recorded: as a file, as numbers, as pictures, beside another one.

for step in record(run, "run.safetensors"): ...
trajectory = Trajectory.load("run.safetensors")
shapes(trajectory), strip(trajectory), difference(trajectory, other)
"""

from sdcore.trajectory.difference import Difference, difference
from sdcore.trajectory.file import Moment, Trajectory
from sdcore.trajectory.film import animation, plot, strip
from sdcore.trajectory.geometry import Shape, shapes
from sdcore.trajectory.recorder import Recorder, record

__all__ = [
    "Difference",
    "Moment",
    "Recorder",
    "Shape",
    "Trajectory",
    "animation",
    "difference",
    "plot",
    "record",
    "shapes",
    "strip",
]
