"""Log records as lines of JSON, for programs that collect them."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson

from duly.clock import to_datetime
from duly.ctx.call_log import APP_LOG
from duly.run.run_log import LOG, Run


def print_json(level: int = logging.INFO) -> None:
    """From now on, print every run, and all log records of libraries from WARNING on, as JSON on the standard error.

    With a higher level, print only what has it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    for name in ("duly", APP_LOG, LOG.logger.name):
        logging.getLogger(name).setLevel(level)


class JsonFormatter(logging.Formatter):
    """A record as one line: `time`, `level`, `logger`, `message`, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": to_datetime(record.created * 1000).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("request_id", "session"):
            if (value := getattr(record, name, None)) is not None:
                line[name] = str(value)
        run = getattr(record, "run", None)
        if isinstance(run, Run):
            line["run"] = _fields_of(run)
        if record.exc_info:
            line["exception"] = record.exc_text or self.formatException(record.exc_info)
        return orjson.dumps({name: _writable(value) for name, value in line.items()}).decode()


def _fields_of(run: Run) -> dict[str, Any]:
    """Return a run without its arguments: they may hold what does not belong into a log."""
    known = {"function": run.function, "kind": run.kind, "milliseconds": round(run.milliseconds, 3)}
    return {**known, "failed": run.error is not None, "scheduled": run.is_scheduled, "job": run.job}


def _writable(value: Any) -> Any:
    """Escape lone surrogates, which UTF-8 does not have."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
