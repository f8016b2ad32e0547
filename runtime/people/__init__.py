"""Where the boxes of people come from, and who is who from frame to frame."""

from __future__ import annotations

from sfpp.runtime.people.boxes_file import BoxesFile
from sfpp.runtime.people.detections import Detections, FirstToFind, FullFrame, PersonFinder
from sfpp.runtime.people.detector import DetectorContract, OnnxDetector
from sfpp.runtime.people.finders import HogPeople, choose_finder
from sfpp.runtime.people.followed import FollowedPose
from sfpp.runtime.people.tracking import Follower, People, Tracker

__all__ = [
    "BoxesFile",
    "Detections",
    "DetectorContract",
    "FirstToFind",
    "FollowedPose",
    "Follower",
    "FullFrame",
    "HogPeople",
    "OnnxDetector",
    "People",
    "PersonFinder",
    "Tracker",
    "choose_finder",
]
