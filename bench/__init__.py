"""A benchmark harness for recurrent language models: does this regularizer help this cell?"""

__version__ = "0.1.0"
