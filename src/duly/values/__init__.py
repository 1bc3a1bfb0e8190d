"""Plain data: values, index keys, ids, validators and schemas. No I/O, no time."""
