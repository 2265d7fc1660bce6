"""The name and the address that git signs commits with, and DVC its experiments."""

import os
import subprocess

SIGN = "git config user.name NAME && git config user.email ADDRESS"


def has_identity() -> bool:
    """Return whether DVC finds one: in git's configuration, or in the variables of git's that stand above it."""
    return all(
        os.environ.get(f"GIT_{role}_{part.upper()}") or configured(f"user.{part}")
        for part in ("name", "email")
        for role in ("AUTHOR", "COMMITTER")
    )


def configured(key: str) -> bool:
    """Return whether git has a value for a key here."""
    done = subprocess.run(["git", "config", key], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip())
