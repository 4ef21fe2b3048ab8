"""Contacts between bodies: which ones touch, how deep, and the impulse that they exchange."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.collision import boxes_overlap

__all__ = ["Body", "Collision", "penetration", "resolve_contact", "resolve_contacts"]

CLEARANCE = 1e-3
"""Gap that is left between two bodies after they are pushed apart [m]."""
Extents = tuple[float, float, float]
"""Half length, half width, half height [m]."""


class Body(Protocol):
    """A box that stands on its pose and can be pushed. :class:`sb3_carla.simulator.actors.Actor` implements it."""

    id: int
    half_extents: Extents

    @property
    def pose(self) -> Pose:
        """World pose of the centre of the bottom face."""

    @property
    def velocity(self) -> tuple[float, float, float]:
        """World axes [m/s]."""

    @property
    def inverse_mass(self) -> float:
        """[1/kg]; zero for a body that cannot be moved."""

    @property
    def root(self) -> object:
        """Equal for bodies that are attached to each other: these do not collide."""

    def push(self, shift: tuple[float, float], velocity_change: tuple[float, float]) -> None:
        """Shift the body [m] and change its velocity [m/s], both along world x and y."""


AnyBody = TypeVar("AnyBody", bound=Body)


@dataclass(frozen=True, slots=True)
class Collision(Generic[AnyBody]):
    """
    A contact as one of its two bodies sees it; every contact makes two of these.

    :param actor: this body
    :param other: the body that it touches
    :param impulse: on ``actor``, world axes [N s]
    """

    actor: AnyBody
    other: AnyBody
    impulse: tuple[float, float, float]


def penetration(pose_a: Pose, extents_a: Extents, pose_b: Pose, extents_b: Extents) -> tuple[float, float, float]:
    """
    Shortest shift that separates two boxes in the plane: along the axis with the least overlap.

    Source: Gottschalk, Lin, Manocha, OBBTree, SIGGRAPH 1996, reduced to yaw.

    :param pose_a: centre of the first box's bottom face
    :param extents_a: half length, half width, half height [m]
    :param pose_b: likewise for the second box
    :param extents_b: half length, half width, half height [m]
    :return: unit vector (x, y) from the first to the second box, and the depth along it [m], negative if apart
    """
    dx, dy = pose_b.x - pose_a.x, pose_b.y - pose_a.y
    best = (1.0, 0.0, math.inf)
    for yaw in (pose_a.yaw, pose_a.yaw + 0.5 * math.pi, pose_b.yaw, pose_b.yaw + 0.5 * math.pi):
        nx, ny = math.cos(yaw), math.sin(yaw)
        reach = _reach(yaw - pose_a.yaw, extents_a) + _reach(yaw - pose_b.yaw, extents_b)
        distance = dx * nx + dy * ny
        depth = reach - abs(distance)
        if depth < best[2]:
            best = (nx, ny, depth) if distance >= 0.0 else (-nx, -ny, depth)
    return best


def _reach(angle: float, extents: Extents) -> float:
    """Half the width of a box's shadow on an axis at an angle to the box [m]."""
    return extents[0] * abs(math.cos(angle)) + extents[1] * abs(math.sin(angle))


def _candidates(bodies: Sequence[AnyBody]) -> Iterator[tuple[AnyBody, AnyBody]]:
    """
    Pairs whose bounding circles overlap along x and y, in an order that depends on poses and ids only.

    Source: sweep and prune, Cohen et al., I-COLLIDE, 1995.
    """
    spans = []  # (least x, id, greatest x, radius, body)
    for body in bodies:
        radius = math.hypot(body.half_extents[0], body.half_extents[1])
        spans.append((body.pose.x - radius, body.id, body.pose.x + radius, radius, body))
    spans.sort(key=lambda span: span[:2])
    for index, (_, _, end, radius, body) in enumerate(spans):
        for start, _, _, other_radius, other in spans[index + 1 :]:
            if start > end:  # and so do all that follow
                break
            if abs(other.pose.y - body.pose.y) <= radius + other_radius:
                yield (body, other) if body.id < other.id else (other, body)


def resolve_contacts(bodies: Sequence[AnyBody]) -> list[Collision[AnyBody]]:
    """
    Find every contact, remove the approaching velocity and push the bodies apart.

    The impulse is that of a perfectly plastic collision along the contact normal, without friction or rotation. Props
    and vehicles without physics do not move.

    :param bodies: solid actors
    :return: two entries for each contact, one for each body
    """
    collisions: list[Collision[AnyBody]] = []
    for a, b in _candidates(bodies):
        if a.root is b.root or not boxes_overlap(a.pose, a.half_extents, b.pose, b.half_extents):
            continue
        collisions += resolve_contact(a, b)
    return collisions


def resolve_contact(a: AnyBody, b: AnyBody) -> tuple[Collision[AnyBody], Collision[AnyBody]]:
    """
    Remove the approaching velocity of two bodies that overlap, and push them apart.

    :param a: a body
    :param b: another one
    :return: the contact as ``a`` sees it, and as ``b`` sees it
    """
    nx, ny, depth = penetration(a.pose, a.half_extents, b.pose, b.half_extents)
    impulse = _exchange(a, b, nx, ny, depth)
    return (
        Collision(a, b, (-impulse * nx, -impulse * ny, 0.0)),
        Collision(b, a, (impulse * nx, impulse * ny, 0.0)),
    )


def _exchange(a: Body, b: Body, nx: float, ny: float, depth: float) -> float:
    """Apply the contact to both bodies; returns the impulse [N s], >= 0."""
    inverse_a, inverse_b = a.inverse_mass, b.inverse_mass
    total = inverse_a + inverse_b
    approach = (a.velocity[0] - b.velocity[0]) * nx + (a.velocity[1] - b.velocity[1]) * ny
    if total == 0.0:
        return 0.0
    # Plastic: afterwards both have the same velocity along the normal, J = v_approach / (1 / m_a + 1 / m_b). The shifts
    # are shared in the same proportion, by inverse masses.
    impulse = max(approach, 0.0) / total
    overlap = (depth + CLEARANCE) / total
    for body, inverse, sign in ((a, inverse_a, -1.0), (b, inverse_b, 1.0)):
        if inverse > 0.0:
            shift, change = sign * overlap * inverse, sign * impulse * inverse
            body.push((shift * nx, shift * ny), (change * nx, change * ny))
    return impulse
