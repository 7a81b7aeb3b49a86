"""Random bodies: joints in three dimensions in random poses, projected without perspective."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Range = tuple[float, float]

# Rows of a frame: the directions left, up and forward of a body part. Image axes: x right, y down, z to the viewer.
LEFT, UP, FORWARD = 0, 1, 2
FACING_VIEWER: Array = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Poses:
    """The ranges of joint angles in degrees. `rolls`, rotations of the body in the image, are (weight, centre, half-range)."""

    rolls: tuple[tuple[float, float, float], ...]
    bend: Range
    lean: Range
    arm_out: Range
    arm_forward: Range
    elbow: Range
    leg_out: Range
    leg_forward: Range
    knee: Range


POSES: dict[str, Poses] = {
    "narrow": Poses(
        rolls=((1.0, 0, 8),),
        bend=(-4, 12),
        lean=(-8, 8),
        arm_out=(4, 55),
        arm_forward=(-25, 40),
        elbow=(0, 80),
        leg_out=(1, 14),
        leg_forward=(-18, 28),
        knee=(0, 35),
    ),
    "wide": Poses(
        rolls=((0.5, 0, 25), (0.25, 60, 20), (0.25, -60, 20)),
        bend=(-20, 60),
        lean=(-25, 25),
        arm_out=(-5, 150),
        arm_forward=(-50, 130),
        elbow=(0, 130),
        leg_out=(0, 50),
        leg_forward=(-35, 80),
        knee=(0, 110),
    ),
}


@dataclass(frozen=True)
class Skeleton:
    """A posed body. `joints` [16, 3], `hands`, `toes` [2, 3] (right, left), in body heights; `head` a frame."""

    joints: Array
    hands: Array
    toes: Array
    head: Array


def pose(rng: np.random.Generator, poses: Poses) -> Skeleton:
    """A body in a random pose, with the pelvis at the origin."""

    def draw(limits: Range) -> float:
        # The mean of two uniform draws: most people are near the middle of a range, few at its ends.
        return float(rng.uniform(*limits) + rng.uniform(*limits)) / 2

    yaw = rng.choice([0.0, 180.0, 90.0, -90.0], p=[0.5, 0.2, 0.15, 0.15]) + rng.uniform(-35, 35)
    pelvis_frame = _turn(FACING_VIEWER, UP, yaw)
    chest = _turn(_turn(_turn(pelvis_frame, LEFT, draw(poses.bend)), FORWARD, draw(poses.lean)), UP, rng.uniform(-15, 15))
    head = _turn(_turn(_turn(chest, UP, rng.uniform(-35, 35)), LEFT, rng.uniform(-12, 20)), FORWARD, rng.uniform(-12, 12))
    build = rng.uniform(0.9, 1.1, 8)
    joints = np.zeros((16, 3))
    joints[7] = chest[UP] * 0.26 * build[0]
    joints[8] = joints[7] + (chest[UP] + 0.15 * chest[FORWARD]) * 0.055
    joints[9] = joints[8] + head[UP] * 0.155 * build[1]
    hands, toes = np.zeros((2, 3)), np.zeros((2, 3))
    for side, shoulder, elbow, wrist, hip, knee, ankle in ((-1, 12, 11, 10, 2, 1, 0), (1, 13, 14, 15, 3, 4, 5)):
        joints[shoulder] = joints[7] + chest[LEFT] * side * 0.098 * build[2] - chest[UP] * 0.012
        joints[hip] = pelvis_frame[LEFT] * side * 0.062 * build[3] - pelvis_frame[UP] * 0.01
        upper = _direction(chest, side, draw(poses.arm_out), draw(poses.arm_forward))
        inward = chest[FORWARD] + rng.uniform(-0.2, 0.8) * chest[UP] - rng.uniform(-0.3, 0.8) * side * chest[LEFT]
        fore = _fold(upper, inward, draw(poses.elbow))
        joints[elbow] = joints[shoulder] + upper * 0.165 * build[4]
        joints[wrist] = joints[elbow] + fore * 0.145 * build[5]
        thigh = _direction(pelvis_frame, side, draw(poses.leg_out), draw(poses.leg_forward))
        shank = _fold(thigh, -pelvis_frame[FORWARD] + 0.1 * pelvis_frame[UP], draw(poses.knee))
        joints[knee] = joints[hip] + thigh * 0.235 * build[6]
        joints[ankle] = joints[knee] + shank * 0.225 * build[7]
        index = (side + 1) // 2
        hands[index] = joints[wrist] + fore * 0.035
        foot = _fold(shank, pelvis_frame[FORWARD] + 0.25 * side * pelvis_frame[LEFT], 75)
        toes[index] = joints[ankle] + foot * 0.075 + shank * 0.015
    weights = np.array([roll[0] for roll in poses.rolls])
    _, centre, spread = poses.rolls[rng.choice(len(weights), p=weights / weights.sum())]
    spin = _turn(np.eye(3), 2, centre + rng.uniform(-spread, spread))
    return Skeleton(joints @ spin, hands @ spin, toes @ spin, head @ spin)


def _turn(frame: Array, axis: int, degrees: float) -> Array:
    """Turns a frame about one of its rows: the next row moves towards the one after it."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turned: Array = frame.copy()
    turned[first] = cos * frame[first] + sin * frame[second]
    turned[second] = cos * frame[second] - sin * frame[first]
    return turned


def _direction(frame: Array, side: int, outward: float, forward: float) -> Array:
    """The direction of a hanging limb that is lifted `forward` and then `outward` by these degrees."""
    out, ahead = np.radians(outward), np.radians(forward)
    swing = np.cos(ahead) * -frame[UP] + np.sin(ahead) * frame[FORWARD]
    direction: Array = np.cos(out) * swing + np.sin(out) * side * frame[LEFT]
    return direction


def _fold(direction: Array, towards: Array, degrees: float) -> Array:
    """The direction of a limb's lower half: `direction`, bent by `degrees` towards another direction."""
    normal = towards - (towards @ direction) * direction
    normal /= np.linalg.norm(normal) + 1e-9
    bent: Array = np.cos(np.radians(degrees)) * direction + np.sin(np.radians(degrees)) * normal
    return bent


def head_size(skeleton: Skeleton) -> float:
    """0.6 times the diagonal of the head's box, as MPII defines it, in body heights."""
    length = float(np.linalg.norm(skeleton.joints[9] - skeleton.joints[8]))
    return 0.6 * length * float(np.hypot(1.0, 0.8))
