"""Plain data: values and their JSON, index keys, ids; in `schema`, what values must look like. No I/O, no clock."""
