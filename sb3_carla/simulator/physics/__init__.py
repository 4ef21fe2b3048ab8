"""Vehicle dynamics, contacts, ray casting."""
