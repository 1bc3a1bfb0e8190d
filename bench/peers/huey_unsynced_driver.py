"""Huey as fast as its documentation says it can be: what it commits is not flushed."""

import protocol
from huey_driver import Huey


class HueyUnsynced(Huey):
    fsync = False


if __name__ == "__main__":
    protocol.main(HueyUnsynced)
