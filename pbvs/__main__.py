"""`python -m pbvs`, which `torchrun -m pbvs` needs."""

from pbvs.cli.main import main

if __name__ == "__main__":
    main()
