"""
Seed and style of the towns whose streets are of several kinds, and of the motorways.

They are what CARLA's towns have and the plain villages lack: avenues of four lanes that narrow streets join, crossings
of dual carriageways without a line for 30 to 50 m, turning loops, ramps, streets without any line, parked cars' strips.
"""

from __future__ import annotations

import math

from sb3_carla.simulator.roads.motorways import MotorwayStyle
from sb3_carla.simulator.roads.opendrive import CrossSection, Marking
from sb3_carla.simulator.roads.villages import VillageStyle

__all__ = ["CITIES", "MOTORWAYS"]

_NONE = Marking("none")
_DASHED, _SOLID = Marking("broken"), Marking("solid")
_YELLOW, _DASHED_YELLOW = Marking("solid", "yellow"), Marking("broken", "yellow")
_DOUBLE_YELLOW, _DOUBLE_WHITE = Marking("solid solid", "yellow", 0.12), Marking("solid solid", "white", 0.12)
_GENTLE = (math.radians(15.0), math.radians(32.0))

CITIES: dict[str, tuple[int, VillageStyle]] = {
    # Training. Two avenues of four lanes cross; narrow streets join them.
    "Village44": (
        344,
        VillageStyle(
            CrossSection(1, 3.5, 0.3, _DASHED_YELLOW, _DASHED, _NONE, sidewalk=3.0),
            main_section=CrossSection(2, 3.5, 0.3, _DOUBLE_YELLOW, _DASHED, _NONE, sidewalk=3.5),
            main_rows=(1,),
            main_columns=(1,),
            spacing=120.0,
            jitter=3.0,
            bow=4.0,
            radii=(14.0, 60.0),
            corner_radius=6.5,
            sidewalk_share=0.85,
            worn_share=0.3,
        ),
    ),
    # An avenue with a median round a quarter of narrow streets with parked cars.
    "Village45": (
        345,
        VillageStyle(
            CrossSection(1, 2.8, 0.0, _DASHED, _DASHED, _SOLID, sidewalk=2.0, parking=2.2),
            main_section=CrossSection(2, 3.3, 0.4, _SOLID, _DASHED, _SOLID, sidewalk=3.0, median=3.0),
            main_rows=(0,),
            main_columns=(2,),
            spacing=120.0,
            jitter=4.0,
            bow=5.0,
            radii=(12.0, 50.0),
            corner_radius=6.0,
            sidewalk_share=0.9,
            worn_share=0.5,
        ),
    ),
    # Residential streets without edge lines, half of them without any line.
    "Village46": (
        346,
        VillageStyle(
            CrossSection(1, 3.2, 0.3, _DASHED, _DASHED, _NONE, sidewalk=2.0),
            columns=4,
            spacing=82.0,
            jitter=2.0,
            bow=4.0,
            missing=((1, 5), (6, 10)),
            radii=(8.0, 60.0),
            corner_radius=5.5,
            sidewalk_share=0.6,
            worn_share=1.0,
        ),
    ),
    # Dual carriageways of three lanes.
    "Village47": (
        347,
        VillageStyle(
            CrossSection(3, 3.4, 0.5, _SOLID, _DASHED, _SOLID, sidewalk=2.5, median=5.0),
            spacing=136.0,
            jitter=3.0,
            bow=4.0,
            missing=((3, 4),),
            radii=(26.0, 100.0),
            corner_radius=7.0,
            sidewalk_share=0.6,
            worn_share=0.3,
            speed_kmh=50,
        ),
    ),
    # A dual carriageway of four lanes that streets of two lanes cross.
    "Village48": (
        348,
        VillageStyle(
            CrossSection(1, 3.6, 0.5, _DASHED_YELLOW, _DASHED, _SOLID, sidewalk=2.0),
            main_section=CrossSection(4, 3.3, 0.6, _YELLOW, _DASHED, _SOLID, sidewalk=3.0, median=4.0),
            main_rows=(1,),
            main_columns=(1,),
            spacing=145.0,
            jitter=3.0,
            bow=4.0,
            radii=(24.0, 90.0),
            corner_radius=6.5,
            sidewalk_share=0.7,
            speed_kmh=50,
        ),
    ),
    # Avenues of six lanes, streets of four.
    "Village49": (
        349,
        VillageStyle(
            CrossSection(2, 3.2, 0.0, _YELLOW, _DASHED, _NONE, sidewalk=2.5),
            main_section=CrossSection(3, 3.2, 0.3, _DOUBLE_YELLOW, _DASHED, _NONE, sidewalk=4.0),
            main_rows=(0, 2),
            main_columns=(1,),
            spacing=136.0,
            jitter=3.0,
            bow=5.0,
            radii=(22.0, 70.0),
            corner_radius=6.5,
            sidewalk_share=0.8,
            worn_share=0.3,
            speed_kmh=50,
        ),
    ),
    # Country roads over hills.
    "Village50": (
        350,
        VillageStyle(
            CrossSection(1, 3.0, 0.6, _DASHED, _DASHED, _SOLID, sidewalk=1.5),
            spacing=130.0,
            jitter=12.0,
            bow=16.0,
            missing=((1, 4),),
            radii=(18.0, 110.0),
            corner_radius=8.0,
            sidewalk_share=0.3,
            worn_share=0.5,
            slope=0.045,
            speed_kmh=40,
        ),
    ),
    # A hilly town with an avenue, and strips for parked cars on both kinds of street.
    "Village51": (
        351,
        VillageStyle(
            CrossSection(1, 3.9, 0.3, _DOUBLE_YELLOW, _DASHED, _SOLID, sidewalk=2.5, parking=2.0),
            main_section=CrossSection(2, 3.0, 0.3, _DOUBLE_WHITE, _DASHED, _SOLID, sidewalk=2.5, parking=2.2),
            main_columns=(1,),
            spacing=125.0,
            jitter=6.0,
            bow=6.0,
            missing=((3, 4),),
            radii=(14.0, 60.0),
            corner_radius=6.0,
            sidewalk_share=0.8,
            worn_share=0.4,
            slope=0.03,
        ),
    ),
    # Held out.
    "Village52": (
        452,
        VillageStyle(
            CrossSection(1, 3.3, 0.4, _DASHED_YELLOW, _DASHED, _NONE, sidewalk=2.4),
            main_section=CrossSection(2, 3.4, 0.4, _DOUBLE_YELLOW, _DASHED, _SOLID, sidewalk=3.2),
            main_rows=(1,),
            main_columns=(2,),
            spacing=122.0,
            jitter=4.0,
            bow=5.0,
            missing=((1, 4),),
            radii=(13.0, 55.0),
            corner_radius=6.2,
            sidewalk_share=0.8,
            worn_share=0.4,
        ),
    ),
    "Village53": (
        453,
        VillageStyle(
            CrossSection(2, 3.4, 0.3, _YELLOW, _DASHED, _NONE, sidewalk=2.2),
            main_section=CrossSection(4, 3.2, 0.4, _SOLID, _DASHED, _SOLID, sidewalk=2.8, median=3.0),
            main_rows=(1,),
            main_columns=(1,),
            spacing=140.0,
            jitter=3.0,
            bow=5.0,
            radii=(25.0, 80.0),
            corner_radius=6.8,
            sidewalk_share=0.7,
            worn_share=0.2,
            speed_kmh=50,
        ),
    ),
}

MOTORWAYS: dict[str, tuple[int, MotorwayStyle]] = {
    # Training.
    "Motorway01": (501, MotorwayStyle(lane_width=3.75, legs=(135.0, 170.0))),
    "Motorway02": (
        502,
        MotorwayStyle(
            3, 3.5, (0.5, 2.0), 8.0, left_line=_SOLID, drops=True, bends=_GENTLE, legs=(120.0, 145.0), loop_radius=20.0
        ),
    ),
    # As in CARLA's Town04: wide shoulders, nothing but asphalt between the carriageways.
    "Motorway03": (
        503,
        MotorwayStyle(
            4,
            3.5,
            (3.0, 3.5),
            1.0,
            paved_median=True,
            legs=(120.0, 145.0),
            bends=_GENTLE,
            radii=(90.0, 150.0),
            loop_radius=22.0,
        ),
    ),
    "Motorway04": (
        504,
        MotorwayStyle(
            2,
            3.25,
            (0.4, 1.2),
            5.0,
            bends=(math.radians(12.0), math.radians(25.0)),
            radii=(180.0, 300.0),
            ramp_angle=(math.radians(25.0), math.radians(45.0)),
            drops=True,
        ),
    ),
    # Held out.
    "Motorway05": (
        601,
        MotorwayStyle(
            3,
            3.4,
            (0.8, 2.2),
            6.0,
            bends=_GENTLE,
            legs=(125.0, 150.0),
            radii=(100.0, 170.0),
            loop_radius=20.0,
            speed_kmh=70,
        ),
    ),
}
