"""The review desk: pages and API for the people who book."""
