"""What artifacts are made of and where they come from, as others' tools read it, and signatures that vouch for it."""
