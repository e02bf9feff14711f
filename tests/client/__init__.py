"""harbor-client, as a service uses it: its own engine, its own transactions, Harbor's database."""
