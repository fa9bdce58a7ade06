"""Rules that an agent must follow: read from files, bound to checks, tested with and without their reasons."""
