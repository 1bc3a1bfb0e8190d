"""How the code of a handler runs: a trampoline drives its coroutine, and a watchdog limits its time."""
