-- Format 2 of a store in PostgreSQL: the mutations of remote clients, and what servers agree on.

CREATE TABLE duly.t5__client_requests (id bigint PRIMARY KEY, document text NOT NULL);
CREATE TABLE duly.i6_by_request (key bytea PRIMARY KEY, id bigint NOT NULL);
CREATE TABLE duly.t6__server (id bigint PRIMARY KEY, document text NOT NULL);
