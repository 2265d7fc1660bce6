#!/bin/sh
# Runs a command, and ends with the status of the stage that failed in it, if one did: 75 for one that was asked to stop and
# can be gone on with. DVC says 255 whatever it was.
TUNESMITH_STATUS=$(mktemp) && export TUNESMITH_STATUS || exit 1
trap : INT TERM HUP  # they reach the command by themselves, and it is waited for
"$@"
status=$?
[ "$status" -ne 0 ] && [ -s "$TUNESMITH_STATUS" ] && status=$(cat "$TUNESMITH_STATUS")
exit "$status"
