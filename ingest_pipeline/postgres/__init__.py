"""Everything that touches SQLAlchemy, psycopg and Alembic."""
