"""`python -m teachwhy`: the same as `teachwhy`."""

from teachwhy.cli import main

if __name__ == "__main__":
    main()
