"""Where other processes reach an app."""
