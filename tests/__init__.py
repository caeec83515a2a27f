"""The test suite; mirrors the folders of the package."""
