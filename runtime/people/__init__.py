"""Where the boxes of people come from, and who is who from frame to frame."""

from sfpp.runtime.people.boxes_file import BoxesFile as BoxesFile
from sfpp.runtime.people.detections import (
    Detections as Detections,
    FirstToFind as FirstToFind,
    FullFrame as FullFrame,
    PersonFinder as PersonFinder,
)
from sfpp.runtime.people.detector import OnnxDetector as OnnxDetector
from sfpp.runtime.people.detector_output import DetectorContract as DetectorContract
from sfpp.runtime.people.finders import HogPeople as HogPeople, choose_finder as choose_finder
from sfpp.runtime.people.followed import FollowedPose as FollowedPose
from sfpp.runtime.people.tracking import Follower as Follower, People as People, Tracker as Tracker
