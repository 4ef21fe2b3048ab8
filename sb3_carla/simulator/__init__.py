"""The CPU engine: towns from OpenDRIVE, cars, weather, cameras and other sensors, without any network."""
