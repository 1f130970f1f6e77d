-- What security groups say of a flow. Another dictionary: few verdicts, many flows.
CREATE TABLE sg (
    id INTEGER PRIMARY KEY,
    verdict TEXT NOT NULL, by TEXT, why TEXT,
    rules TEXT NOT NULL -- JSON array of rule ids
);
ALTER TABLE flow ADD COLUMN sg INTEGER; -- NULL: no policy is about the pod
