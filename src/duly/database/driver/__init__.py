"""How the code of a handler runs: its coroutine is driven, its calls must be awaited, its time is limited."""
