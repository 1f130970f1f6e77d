-- Dictionaries: what repeats stands once. An entry may stand twice (the writer forgets old ones); ids are what rows name.
CREATE TABLE who (
    id INTEGER PRIMARY KEY,
    attribution TEXT NOT NULL, why TEXT,
    namespace TEXT NOT NULL, pod TEXT NOT NULL, uid TEXT NOT NULL, container TEXT NOT NULL, workload TEXT NOT NULL
);
CREATE TABLE program (
    id INTEGER PRIMARY KEY,
    exe TEXT, exe_resolved TEXT, comm TEXT NOT NULL,
    args TEXT,      -- JSON array, redacted; NULL: not kept
    ancestors TEXT  -- JSON array of [comm, exe], parent first; NULL: none
);
CREATE TABLE process (
    id INTEGER PRIMARY KEY,
    program INTEGER NOT NULL, pid INTEGER NOT NULL, by TEXT NOT NULL,
    ancestors TEXT  -- JSON array of their process ids
);
CREATE TABLE peer (
    id INTEGER PRIMARY KEY,
    ip BLOB,        -- 16 bytes, IPv4 mapped; NULL: many
    class TEXT NOT NULL, name TEXT, namespace TEXT, pod TEXT
);
CREATE TABLE flow_key (
    id INTEGER PRIMARY KEY,
    who INTEGER NOT NULL, peer INTEGER NOT NULL,
    local BLOB,     -- as peer.ip
    direction TEXT NOT NULL, protocol TEXT, service_port INTEGER, outcome TEXT,
    merged INTEGER NOT NULL, preexisting INTEGER NOT NULL
);
CREATE INDEX flow_key_who ON flow_key (who);
CREATE INDEX flow_key_peer ON flow_key (peer);

-- Times are nanoseconds since the Unix epoch.
CREATE TABLE fold (id INTEGER PRIMARY KEY, start INTEGER NOT NULL, end INTEGER NOT NULL);
CREATE TABLE flow (
    id INTEGER PRIMARY KEY, -- fold << 15 | number within the fold
    key INTEGER NOT NULL, process INTEGER,
    connections INTEGER NOT NULL, open INTEGER NOT NULL, processes INTEGER NOT NULL,
    bytes_sent INTEGER NOT NULL, bytes_received INTEGER NOT NULL,
    retransmits INTEGER, rtt_us INTEGER
);
CREATE INDEX flow_by_key ON flow (key);

-- The rest is in the order of time; n tells apart what happened in the same nanosecond.
CREATE TABLE metadata (
    time INTEGER NOT NULL, n INTEGER NOT NULL,
    who INTEGER NOT NULL, process INTEGER, local BLOB,
    service TEXT NOT NULL, version TEXT NOT NULL, method TEXT, category TEXT,
    role TEXT, access_key_id TEXT, forwarded_for TEXT,
    status INTEGER, response_ttl INTEGER, response_bytes INTEGER, outcome TEXT NOT NULL, latency_us INTEGER,
    PRIMARY KEY (time, n)
) WITHOUT ROWID;
CREATE INDEX metadata_by_who ON metadata (who);
CREATE INDEX metadata_by_key ON metadata (access_key_id) WHERE access_key_id IS NOT NULL;
CREATE TABLE exec (
    time INTEGER NOT NULL, n INTEGER NOT NULL,
    who INTEGER NOT NULL, process INTEGER, user INTEGER NOT NULL,
    PRIMARY KEY (time, n)
) WITHOUT ROWID;
CREATE INDEX exec_by_who ON exec (who);
CREATE TABLE finding (
    time INTEGER NOT NULL, n INTEGER NOT NULL,
    id TEXT NOT NULL, code TEXT NOT NULL,
    namespace TEXT NOT NULL, pod TEXT NOT NULL, uid TEXT NOT NULL, workload TEXT NOT NULL,
    row TEXT NOT NULL, -- JSON
    PRIMARY KEY (time, n)
) WITHOUT ROWID;
CREATE TABLE gap (
    time INTEGER NOT NULL, n INTEGER NOT NULL,
    start INTEGER NOT NULL, cause TEXT NOT NULL,
    lost TEXT NOT NULL, -- JSON object: records by kind
    PRIMARY KEY (time, n)
) WITHOUT ROWID;
CREATE TABLE capacity (
    time INTEGER NOT NULL, n INTEGER NOT NULL,
    row TEXT NOT NULL, -- JSON
    PRIMARY KEY (time, n)
) WITHOUT ROWID;

-- Who wrote here: when the agent started, since when it wrote into this file, and until when it certainly ran.
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL, version TEXT NOT NULL,
    started INTEGER NOT NULL, since INTEGER NOT NULL, alive INTEGER NOT NULL
);
