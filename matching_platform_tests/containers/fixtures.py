"""A container engine, a registry and a base image of the tests' own, for tests marked `containers`."""
