"""In-memory broker, database and clock: for tests of streams and of the loop, held to the real ones by one suite."""
