"""`python -m headrace_main` for tests that start the command line in a process of its own."""

from headrace import main

if __name__ == "__main__":
    main()
