"""The camera's pictures: the town's raster from above, inverse perspective mapping, solid boxes, weather."""
