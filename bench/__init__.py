"""Every speed claim of Harbor, measured side by side with what people write instead, and given as a ratio.

Promise: a number is reported only after the database proved that both sides did the work right. Both sides run in one
run, on one machine, in turns, so what the machine does meanwhile happens to both; `README.md` says how to read it.
"""
