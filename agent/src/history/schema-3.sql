-- How a run began and ended. A run of a version before 3 tells none of this.
ALTER TABLE run ADD COLUMN boot_id TEXT;
ALTER TABLE run ADD COLUMN ended INTEGER; -- when all was written after a stop; NULL: it runs, or it crashed
ALTER TABLE run ADD COLUMN continues INTEGER NOT NULL DEFAULT 0; -- 1: the kernel's side watched since the run before
ALTER TABLE run ADD COLUMN mark TEXT; -- JSON: where it stood at its last transaction
-- Metadata exchanges told lately, so that none is told twice when its records are read again: boot time of the first byte,
-- socket, number among those of one packet.
CREATE TABLE told (
    time INTEGER NOT NULL, cookie INTEGER NOT NULL, n INTEGER NOT NULL,
    until INTEGER, -- the ring's position of the last record of its connection, when all of that was told
    PRIMARY KEY (time, cookie, n)
) WITHOUT ROWID;
