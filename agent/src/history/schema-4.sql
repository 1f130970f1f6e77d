-- Who answers behind a service address, and the proxy of a mesh.
ALTER TABLE flow_key ADD COLUMN actual_ip BLOB; -- as peer.ip; NULL: no service, or not known
ALTER TABLE flow_key ADD COLUMN actual_port INTEGER;
ALTER TABLE flow_key ADD COLUMN via TEXT;
