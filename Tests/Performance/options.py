"""Arguments as every command of the project takes them: what is wrong with them ends with exit code 64."""

import argparse
import sys


class Options(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")
