"""Background work of an open app: the executor, the sweeper, and watches of the store and of the event loop."""
