-- In which order rows were written, for whoever ships them: what is in the order of time may come late. Flows tell by their
-- ids. Rows that need none of this read as ever, so it is no step of the schema's version; a file of an earlier program gets
-- it when it is written on.
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    kind TEXT NOT NULL, time INTEGER NOT NULL, n INTEGER NOT NULL -- table and key
);
CREATE TRIGGER journal_metadata AFTER INSERT ON metadata BEGIN
    INSERT INTO journal (kind, time, n) VALUES ('metadata', new.time, new.n);
END;
CREATE TRIGGER journal_exec AFTER INSERT ON exec BEGIN
    INSERT INTO journal (kind, time, n) VALUES ('exec', new.time, new.n);
END;
CREATE TRIGGER journal_finding AFTER INSERT ON finding BEGIN
    INSERT INTO journal (kind, time, n) VALUES ('finding', new.time, new.n);
END;
CREATE TRIGGER journal_gap AFTER INSERT ON gap BEGIN
    INSERT INTO journal (kind, time, n) VALUES ('gap', new.time, new.n);
END;
CREATE TRIGGER journal_capacity AFTER INSERT ON capacity BEGIN
    INSERT INTO journal (kind, time, n) VALUES ('capacity', new.time, new.n);
END;
-- Not what only says again how things stood when the file was begun.
CREATE TRIGGER journal_object AFTER INSERT ON object WHEN new.base = 0 BEGIN
    INSERT INTO journal (kind, time, n) VALUES ('object', new.time, new.n);
END;
INSERT INTO journal (kind, time, n)
    SELECT 'metadata', time, n FROM metadata UNION ALL SELECT 'exec', time, n FROM exec
    UNION ALL SELECT 'finding', time, n FROM finding UNION ALL SELECT 'gap', time, n FROM gap
    UNION ALL SELECT 'capacity', time, n FROM capacity
    UNION ALL SELECT 'object', time, n FROM object WHERE base = 0 ORDER BY 2, 3;
