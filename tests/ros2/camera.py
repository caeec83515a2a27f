"""Publishes images as a camera's node does and prints the detections that come back; runs where ROS 2 is.

usage: python camera.py IMAGES.npz [--topic NAME] [--unanswered N ...] [--at-once]

The file's arrays are images by number, encoding and width: ``0:bgr8:640``, uint8 (height, step), or ``0:jpeg``, the
bytes of a file. The number is the stamp, in seconds. One line of JSON an answer. After each image its answer is
waited for, but for the numbers that have none; with ``--at-once`` a parameter of the node is asked for instead, and
only the last image waited for.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

FRAME_ID = "camera_optical_frame"
WAIT_S = 20.0
AGAIN_S = 1.0
UNANSWERED_S = 0.3
EVERY_S = 0.01


class Camera(Node):
    def __init__(self, topic: str) -> None:
        super().__init__("camera")
        self.raw = self.create_publisher(Image, topic, qos_profile_sensor_data)
        self.compressed = self.create_publisher(
            CompressedImage, f"{topic}/compressed", qos_profile_sensor_data
        )
        self.create_subscription(Detection2DArray, "detections", self.answer, 10)
        self.answered = -1

    def answer(self, message: Detection2DArray) -> None:
        header = message.header
        found = [
            {
                "center": [each.bbox.center.position.x, each.bbox.center.position.y, each.bbox.center.theta],
                "size": [each.bbox.size_x, each.bbox.size_y],
                "same_header": each.header == header,
                "results": [[r.hypothesis.class_id, r.hypothesis.score] for r in each.results],
            }
            for each in message.detections
        ]
        stamp = [header.stamp.sec, header.stamp.nanosec]
        print(json.dumps({"stamp": stamp, "frame_id": header.frame_id, "detections": found}), flush=True)
        self.answered = max(self.answered, header.stamp.sec)

    def show(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        number, encoding, *width = name.split(":")
        if width:
            message, publisher = Image(encoding=encoding, width=int(width[0])), self.raw
            message.height, message.step = pixels.shape
        else:
            message, publisher = CompressedImage(format=encoding), self.compressed
        message.data.frombytes(pixels.tobytes())
        message.header.frame_id = FRAME_ID
        message.header.stamp.sec, message.header.stamp.nanosec = int(number), 7
        self.wait(lambda: publisher.get_subscription_count() > 0, WAIT_S)
        publisher.publish(message)

    def show_until_answered(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Best effort: what may be lost is sent again."""
        number, end = int(name.split(":")[0]), time.monotonic() + WAIT_S
        while self.answered < number and time.monotonic() < end:
            self.show(name, pixels)
            self.wait(lambda: self.answered >= number, AGAIN_S)

    def ask(self, node: str, name: str) -> str:
        """A parameter of another node, from its service."""
        client = self.create_client(GetParameters, f"{node}/get_parameters")
        self.wait(client.service_is_ready, WAIT_S)
        future = client.call_async(GetParameters.Request(names=[name]))
        self.wait(future.done, WAIT_S)
        return str(future.result().values[0].string_value)

    def wait(self, is_done: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not is_done() and time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.05)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images")
    parser.add_argument("--topic", default="image")
    parser.add_argument("--unanswered", type=int, nargs="*", default=[])
    parser.add_argument("--at-once", action="store_true")
    options = parser.parse_args()
    images = list(np.load(options.images).items())
    rclpy.init()
    camera = Camera(options.topic)
    if options.at_once:
        for name, pixels in images:
            camera.show(name, pixels)
            time.sleep(EVERY_S)
        print(json.dumps({"bundle": camera.ask("edgecnn", "bundle")}), flush=True)
        camera.show_until_answered(*images[-1])
    else:
        for name, pixels in images:
            if int(name.split(":")[0]) in options.unanswered:
                camera.show(name, pixels)
                camera.wait(lambda: False, UNANSWERED_S)
            else:
                camera.show_until_answered(name, pixels)
    camera.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
