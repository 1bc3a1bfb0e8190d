from duly import define_schema, define_table, v

schema = define_schema(
    {
        "posts": define_table({"board": v.string(), "sent": v.float64()}).index("by_board", ["board"]),
        "notes": define_table({"n": v.int64(), "text": v.string()}),
    }
)
