"""The client side: a session with a CARLA server, and the processes of servers."""
