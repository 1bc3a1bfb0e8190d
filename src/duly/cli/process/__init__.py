"""The commands that run until they are stopped: `duly dev` and `duly serve`."""
