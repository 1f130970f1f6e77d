-- When EC2 told the oldest of what a verdict stands on. A few dozen verdicts, told anew every quarter of an hour or less.
ALTER TABLE sg ADD COLUMN told INTEGER; -- nanoseconds since 1970; NULL: nothing that EC2 told
