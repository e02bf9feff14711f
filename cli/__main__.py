"""`python -m cli …` is `harbor …`, also where the script is not installed."""

from cli import main

main()
