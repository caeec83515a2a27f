"""The devices edgecnn converts for, and which of them this machine is."""

from edgecnn.devices.catalog import profile, profiles
from edgecnn.devices.detection import Detected, best_profile, is_here, this_device
from edgecnn.devices.profiles import DeviceProfile, JetsonSoftware, Runs, Source, built_there, engine_source

__all__ = [
    "Detected",
    "DeviceProfile",
    "JetsonSoftware",
    "Runs",
    "Source",
    "best_profile",
    "built_there",
    "engine_source",
    "is_here",
    "profile",
    "profiles",
    "this_device",
]
