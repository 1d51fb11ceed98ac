#!/bin/sh
# Prints the first Python >= 3.11 that can make a virtual environment; says what to install if none can.
for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3; do
  if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "$python"
    exit 0
  fi
done
echo "georouter needs Python 3.11 or newer with venv and ensurepip (Debian: apt install python3-venv)." >&2
echo "Set PYTHON=/path/to/python to name one." >&2
exit 1
