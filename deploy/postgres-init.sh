#!/bin/sh
# Run by the postgres image when its volume is empty. Makes two roles that are no superusers, each with its own database:
# ingest for tables and the ledger, dagster for Dagster's storage.
set -eu
for name in ingest dagster; do
    case $name in ingest) password=$INGEST_PASSWORD ;; dagster) password=$DAGSTER_PASSWORD ;; esac
    psql -v ON_ERROR_STOP=1 -v name="$name" -v password="$password" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE DATABASE :"name" OWNER :"name" ENCODING 'UTF8' TEMPLATE template0;
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
