"""The camera's pictures: the town from above, perspective, weather."""
