-- What Asterisk may do in the service's PostgreSQL database: read clients, and
-- nothing more. The role `asterisk` exists, and `capconduit migrate` has made the
-- tables; run this in that database as a superuser. Twice does no harm.

DO $$
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO asterisk', current_database());
END
$$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO asterisk;
GRANT SELECT ON pjsip_endpoints, pjsip_aors, pjsip_auths TO asterisk;
-- A dial waits for these reads: none may wait long for a lock.
ALTER ROLE asterisk SET statement_timeout = '2s';
ALTER ROLE asterisk SET default_transaction_read_only = on;
