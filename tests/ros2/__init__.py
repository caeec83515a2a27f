"""What the test of examples/ros2_node.py needs on ROS 2's side; tools/ros2.sh makes the environment of it."""
