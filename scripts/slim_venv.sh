#!/bin/sh
# Takes out of a virtual environment what a server in an image never reads: pip, since no one installs anything there;
# what pip has compiled, of which a server imports a fifth; packages' own tests; of Gradio what renders pages in Node,
# cuts videos and stands in examples.
set -e
venv=$1
"$venv/bin/python" -m pip uninstall --quiet --yes pip setuptools
find "$venv/lib" -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
rm -rf "$venv/include" "$venv"/setup.*
cd "$venv"/lib/python3*/site-packages
rm -rf gradio/media_assets gradio/templates/node gradio/templates/frontend/static/ffmpeg
