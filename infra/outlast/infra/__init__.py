"""How Outlast is run: the command line, migrations and embedded services for development."""
