"""The tables that have indexes; the others hold anything."""

from duly import define_schema, define_table, v

schema = define_schema(
    {
        "presence": define_table({"user": v.string(), "seen": v.number()})
        .index("by_user", ["user"])
        .index("by_seen", ["seen"]),
        "sessions": define_table({"user": v.string(), "expires": v.number()}).index("by_expiry", ["expires"]),
        "runs": define_table({"task": v.string(), "at": v.number()}).index("by_task", ["task"]),
    }
)
