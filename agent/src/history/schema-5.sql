-- Pods, policies and service accounts as they were. A row holds from its time on.
CREATE TABLE object (
    time INTEGER NOT NULL, n INTEGER NOT NULL,
    base INTEGER NOT NULL, -- 1: it stood when the file was begun; repeated, so that a file is whole by itself
    object TEXT NOT NULL, change TEXT NOT NULL,
    namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT, workload TEXT NOT NULL,
    digest INTEGER NOT NULL, -- tells contents apart
    changed TEXT NOT NULL,   -- JSON array of names of facts
    facts TEXT,              -- JSON; NULL: gone, or too large
    PRIMARY KEY (time, n)
) WITHOUT ROWID;
-- The kernel below the agent: release and machine. NULL: a version before 5 wrote it.
ALTER TABLE run ADD COLUMN kernel TEXT;
