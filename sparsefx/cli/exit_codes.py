"""The exit codes of every command, as --help tells them."""

from __future__ import annotations

OK = 0
NEGATIVE = 1  # the command did its work, and what it found is bad
USER = 2
BUG = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells count

TEXT = f"""exit codes:
  {OK:3d}  done
  {NEGATIVE:3d}  done, and the answer is no: the engine is not the masked model
  {USER:3d}  a wrong flag, model, file or machine; the message says what to change
  {INTERRUPTED:3d}  interrupted by Ctrl-C
  {BUG:3d}  a bug of sparsefx; the message says how to report it"""
