"""Where other processes reach an app: remote clients over HTTP and WebSockets, the command line over a local socket."""
