"""The conversation of a remote client with an application, without sockets: messages, their order, shared results."""
