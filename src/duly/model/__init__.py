"""Jobs, crons, the pause of the executor and changes of the schema, as functions of a transaction."""
