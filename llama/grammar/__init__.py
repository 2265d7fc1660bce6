"""What an answer's text must look like: grammars, and which tokens they let through."""
