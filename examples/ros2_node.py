"""A ROS 2 node that finds objects: images in, vision_msgs/Detection2DArray out.

usage: python3 examples/ros2_node.py --ros-args -p bundle:=face.edge -r image:=/camera/image_raw

==================== ===================================================================================
``image``            subscribed, sensor_msgs/Image: bgr8, rgb8, mono8, bgra8 or rgba8, rows padded or not
``image/compressed`` subscribed instead with ``-p image_transport:=compressed``: JPEG or PNG
``detections``       published, with the stamp and frame of the image; ``class_id`` is the label
==================== ===================================================================================

Parameters, read at the start: ``bundle`` (a path, or ``face``), ``runtime`` (``auto``), ``threshold`` (0 is
the bundle's own), ``image_transport`` (``raw`` or ``compressed``). Best effort, and a depth of 1: of images
that come while one is looked at, the newest is next. One that cannot be used is a warning, at most every ten
seconds. Needs rclpy, sensor_msgs and vision_msgs of ROS 2 Humble or newer, and no cv_bridge.
"""

from __future__ import annotations

import signal
import sys

import numpy as np
import numpy.typing as npt
import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import ParameterException
from rclpy.executors import MultiThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    Point2D,
    Pose2D,
)

import edgecnn
from edgecnn.errors import InputError
from edgecnn.vision import to_bgr
from edgecnn.vision.images import decode_image

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
WARN_EVERY_S = 10.0
SIGNAL_S = 0.2  # a signal waits for a wait of ROS to end
# by image_transport's names: the message, and what its topics end in
TRANSPORTS = {"raw": (Image, ""), "compressed": (CompressedImage, "/compressed")}
# channels, and their order
ENCODINGS = {
    "bgr8": (3, "bgr"),
    "rgb8": (3, "rgb"),
    "mono8": (1, "gray"),
    "bgra8": (4, "bgra"),
    "rgba8": (4, "rgba"),
}


def to_frame(message: Image | CompressedImage) -> npt.NDArray[np.uint8]:
    """The pixels of a message, uint8 (H, W, 3) BGR.

    Raises:
        InputError: Another encoding, or fewer bytes than it says.
    """
    if isinstance(message, CompressedImage):
        return decode_image(message.data.tobytes(), f"{message.format} image")
    if message.encoding not in ENCODINGS:
        raise InputError(f"encoding {message.encoding!r}: not one of {', '.join(ENCODINGS)}")
    channels, order = ENCODINGS[message.encoding]
    height, width, step = message.height, message.width, message.step
    data = np.asarray(message.data, np.uint8)
    if not 0 < width * channels <= step or not 0 < height * step <= len(data):
        raise InputError(
            f"{len(data)} bytes are no {width}×{height} {message.encoding} with rows of {step} bytes"
        )
    rows = data[: height * step].reshape(height, step)
    return to_bgr(rows[:, : width * channels].reshape(height, width, channels), order)


def to_message(found: edgecnn.Detections, header: Header) -> Detection2DArray:
    """Detections of an image with this header."""
    message = Detection2DArray(header=header)
    for box, score, _, label in found:
        x1, y1, x2, y2 = box.tolist()
        center = Pose2D(position=Point2D(x=(x1 + x2) / 2, y=(y1 + y2) / 2))
        hypothesis = ObjectHypothesis(class_id=label, score=score)
        message.detections.append(
            Detection2D(
                header=header,
                results=[ObjectHypothesisWithPose(hypothesis=hypothesis)],
                bbox=BoundingBox2D(center=center, size_x=x2 - x1, size_y=y2 - y1),
            )
        )
    return message


class DetectorNode(Node):
    """Looks at images in a callback group of its own, so that the node answers others meanwhile."""

    def __init__(self) -> None:
        super().__init__("edgecnn")
        bundle, threshold = self.option("bundle", "face"), self.option("threshold", 0.0)
        self.detector = edgecnn.load(
            bundle, runtime=self.option("runtime", "auto"), threshold=threshold or None
        )
        if "detection" not in self.detector.spec.task:
            raise InputError(f"{bundle}: is for {self.detector.spec.task}, give the bundle of a detector")
        transport = self.option("image_transport", "raw")
        if transport not in TRANSPORTS:
            raise InputError(f"image_transport {transport!r}: not one of {', '.join(TRANSPORTS)}")
        kind, ending = TRANSPORTS[transport]
        topic = self.resolve_topic_name("image") + ending
        self.publisher = self.create_publisher(Detection2DArray, "detections", 10)
        self.create_subscription(
            kind, topic, self.look, NEWEST, callback_group=MutuallyExclusiveCallbackGroup()
        )
        self.get_logger().info(f"{bundle} on {self.detector.runtime.name} looks at {topic}")

    def option(self, name: str, default: str | float) -> str | float:
        """A parameter that is read once."""
        return self.declare_parameter(name, default, ParameterDescriptor(read_only=True)).value

    def look(self, message: Image | CompressedImage) -> None:
        """Publish what is found in an image."""
        try:
            found = self.detector(to_frame(message))
        except edgecnn.EdgeCnnError as error:
            self.get_logger().warning(f"skipped an image: {error}", throttle_duration_sec=WARN_EVERY_S)
        else:
            self.publisher.publish(to_message(found, message.header))


def main() -> int:
    """Run until SIGINT or SIGTERM, as ROS 2 ends its nodes."""
    # its own handlers shut ROS down under an executor, which may fail over that or wait for ever
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    executor = MultiThreadedExecutor(num_threads=2)
    try:
        node = DetectorNode()
        executor.add_node(node)
        while True:
            executor.spin_once(SIGNAL_S)
    except KeyboardInterrupt:
        pass
    except (edgecnn.EdgeCnnError, ParameterException) as error:
        get_logger("edgecnn").fatal(str(error))
        return getattr(error, "exit_code", 2)
    finally:
        executor.shutdown()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
